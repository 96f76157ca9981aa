"""Train the shared inverter on collected pairs.

Command (one process, or several with ``accelerate launch -m``)::

    python -m lm_eval_inversion.training.train --base FOLDER --pairs pairs.jsonl --output runs/v1 --minutes 60

Every example is a system prompt and a random subset of its outputs in random order; some examples have no outputs and some
have the outputs of a model without a system prompt, so that one checkpoint also knows how likely a prompt is when nothing
betrays it. The loss is on the prompt only. ``OUTPUT/last`` is written as it goes; started again, the command goes on there.

``OUTPUT/log.jsonl`` holds the loss of every step and, every ``--eval-every`` steps, nats and bits on held-out training prompts and, with
``--dev-pairs``, on the dev split (columns that start with ``dev_``)::

    python -m lm_eval_inversion.training.collect --source v1 --split dev --prompts 50 --defence-share 0 --model FOLDER --output dev.jsonl
    python -m lm_eval_inversion.training.train ... --dev-pairs dev.jsonl
    python -m lm_eval_inversion.training.plot runs/v1/log.jsonl -o training.svg
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from lm_eval_inversion.arguments import non_negative, non_negative_whole, positive_whole
from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter
from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer
from lm_eval_inversion.precision import fast_dtype
from lm_eval_inversion.scoring.embedding import embed_many
from lm_eval_inversion.training.adapter import adapter_state, keep_base, round_base, with_adapter, write_whole
from lm_eval_inversion.training.contrast import alike_together, contrast, with_rivals
from lm_eval_inversion.training.packed_loss import PackedLoss
from lm_eval_inversion.training.pairs import HELD_OUT_EVERY, Pair, examples, held_out_pairs, load_dev_pairs, load_pairs, pairs_hash

FIRST_STATE_SECONDS, STATE_EVERY_SECONDS = 60.0, 600.0  # early once, so that a run that is killed every few minutes still gets on
TRAINABLE = ("llama", "qwen2")  # whose layers are those of ``packed_loss``
STATE_FILE, LOG_FILE = "state.safetensors", "log.jsonl"  # the first in OUTPUT/last
SETTINGS_FILE, PACKED_BASE_FILE, ADAPTER_FILE = "settings.json", "packed_base.safetensors", "adapter.safetensors"
START_FILE, BASE_HASH_FILE = "start.json", "base.sha256"  # the second of runs of older versions


class PromptLoss(nn.Module):
    """The training objective as a module, so that accelerate can wrap it."""

    def __init__(self, model: Any, layout: BlockFormat, compiled: bool = False) -> None:
        super().__init__()
        self.model, self.layout, self._nats = model, layout, PackedLoss(compiled)

    def forward(self, blocks: list[list[list[int]]], prompts: list[list[int]], rivals: int = 0) -> torch.Tensor:
        """Nats of each example's prompt and of its rivals' (``contrast.with_rivals``), summed over tokens: (examples, 1 + rivals)."""
        scored = with_rivals(prompts, rivals)
        return self._nats(self.model, blocks, scored, self.layout.prompt_position).reshape(len(prompts), rivals + 1)


def learning_rate(done: float, steps_warm: float, peak: float) -> float:
    """Linear warm-up, then cosine to a twentieth; ``done`` and ``steps_warm`` are fractions of the run."""
    if done < steps_warm:
        return peak * done / steps_warm
    share = min(1.0, (done - steps_warm) / (1 - steps_warm))
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def add_bf16_option(parser: argparse.ArgumentParser) -> None:
    """``--bf16`` and ``--no-bf16``, for ``computes_in_bf16``."""
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="compute in bfloat16 (default: where the device is fast in it)"
    )


def computes_in_bf16(asked: bool | None, device: str) -> bool:
    """``--bf16`` or ``--no-bf16``; where neither was given, whatever the device is fast in."""
    return fast_dtype(device) is torch.bfloat16 if asked is None else asked


def share_done(options: argparse.Namespace, step: int, seconds: float) -> float:
    """How much of ``--minutes`` or ``--steps``, whichever is nearer to its end, has been used; 1 and above ends a run."""
    by_time = seconds / (60 * options.minutes) if options.minutes else 0.0
    return max(by_time, step / options.steps if options.steps else 0.0)


def save_state(folder: Path, parameters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Write weights, optimiser moments and progress as one safetensors file, which takes the place of the last one once it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in parameters.items()}
    tensors |= {
        f"{name}|{key}": optimizer.state[value][key]
        for name, value in parameters.items()
        if value in optimizer.state
        for key in ("exp_avg", "exp_avg_sq", "step")
    }
    write_whole(tensors, folder / STATE_FILE, {"progress": json.dumps(progress)})


def load_state(folder: Path, parameters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore what ``save_state`` wrote; None when there is nothing."""
    from safetensors import safe_open

    if not (folder / STATE_FILE).is_file():
        return None
    with safe_open(folder / STATE_FILE, "pt") as stream:
        known = set(stream.keys())
        for name, parameter in parameters.items():
            parameter.data.copy_(stream.get_tensor(name))
            if f"{name}|step" in known:
                # The optimiser wants its moments where the parameter is, and counts steps on the CPU.
                moments = {key: stream.get_tensor(f"{name}|{key}").to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {**moments, "step": stream.get_tensor(f"{name}|step")}
        progress: dict[str, Any] = json.loads(stream.metadata()["progress"])
    return progress


def resumed(progress: dict[str, Any] | None, batch: int, processes: int) -> dict[str, Any]:
    """The progress of a run that begins, or goes on: steps, seconds, and examples that each process has seen.

    Args:
        progress: as it was saved; None at the beginning.
        batch: examples per step and process, which may be another than before.
        processes: of this run; they share the examples out among themselves.

    Raises:
        ValueError: other processes shared the examples out before.
    """
    found = progress or {"step": 0, "seconds": 0.0}
    before = found.get("processes", processes)
    if before != processes:
        raise ValueError(f"--output holds a run of {before} processes; start {before} again, or give another folder (now: {processes})")
    return {"examples": found["step"] * batch, **found, "processes": processes}


def open_log(path: Path) -> TextIO:
    """Open a log to append to, without a last line that a kill or a full disk cut off."""
    if path.is_file():
        with path.open("r+b") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8")


@torch.no_grad()
def evaluate_pairs(loss: PromptLoss, tokenizer: BlockTokenizer, pairs: Sequence[Pair], batch: int, autocast: Any) -> dict[str, float]:
    """Mean nats per prompt with outputs, without, and under another prompt's outputs; bits above none and above another's."""

    def nats(outputs: Sequence[Sequence[str]]) -> torch.Tensor:
        parts = []
        for start in range(0, len(pairs), batch):
            chosen = pairs[start : start + batch]
            prompts = [tokenizer.prompt(pair.prompt or "", loss.layout.max_prompt_tokens, pair.secret) for pair in chosen]
            with autocast():
                parts.append(loss([tokenizer.blocks(lines) for lines in outputs[start : start + batch]], prompts)[:, 0])
        return torch.cat(parts)

    return compare_conditions(nats, pairs)


def compare_conditions(nats: Callable[[Sequence[Sequence[str]]], torch.Tensor], pairs: Sequence[Pair]) -> dict[str, float]:
    """See ``evaluate_pairs``; ``nats`` gives those of every prompt (pairs,) under one set of outputs each."""
    own = nats([pair.outputs for pair in pairs])
    none = nats([[] for _ in pairs])
    swapped = nats([pairs[index - 1].outputs for index in range(len(pairs))])
    return {
        "nats": own.mean().item(),
        "nats_no_outputs": none.mean().item(),
        "nats_swapped": swapped.mean().item(),
        "bits_above_no_outputs": (none - own).mean().item() / math.log(2),
        "bits_above_swapped": (swapped - own).mean().item() / math.log(2),
    }


@dataclass(frozen=True)
class Data:
    """What a run reads: pairs to train on, pairs of the same files to evaluate on, and those of the dev split, if any."""

    training: list[Pair]
    held_out: list[Pair]
    dev: list[Pair]


def read_data(options: argparse.Namespace) -> Data:
    """Read what the options name.

    Raises:
        ValueError: a file is missing, empty or damaged, there is nothing to hold out, or ``--dev-pairs`` holds what is trained on.
    """
    training, held_out = held_out_pairs(load_pairs(options.pairs))
    if not held_out or not any(pair.prompt for pair in training):
        raise ValueError(
            f"--pairs: {len(training)} pairs to train on and {len(held_out)} held out; about one system prompt in {HELD_OUT_EVERY} is held "
            "out, so collect under more prompts"
        )
    return Data(training, held_out, load_dev_pairs(options.dev_pairs, training) if options.dev_pairs else [])


def train(options: argparse.Namespace, data: Data) -> None:
    """Run the training; options as on the command line.

    Raises:
        ValueError: the base cannot be trained so, or ``--output`` holds another run.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.utils import broadcast_object_list
    from tqdm import tqdm

    device = str(PartialState(cpu=options.device == "cpu").device)  # the one that accelerate takes, a Mac's too
    use_bf16 = computes_in_bf16(options.bf16, device)
    accelerator = Accelerator(mixed_precision="bf16" if use_bf16 else "no", cpu=options.device == "cpu")
    torch.manual_seed(options.seed)
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    model, tokenizer_text, layout, provenance = load_base(options.base, options.max_output_tokens)
    if accelerator.is_main_process:
        require_same_start(output, {"base": weights_hash(model), **start_of(options, data)})
    accelerator.wait_for_everyone()
    tokenizer_file = output / TOKENIZER_FILE
    if options.vocabulary:
        if options.vocabulary > (size := vocabulary_size(tokenizer_text)):
            raise ValueError(f"--vocabulary {options.vocabulary}: the tokenizer has {size} tokens; give fewer, or 0 for all")
        tokenizer_text = shrink_tokenizer(tokenizer_text, options.vocabulary)
        model.resize_token_embeddings(options.vocabulary, mean_resizing=False)
        if max(layout.start_id, layout.end_id) >= options.vocabulary:
            raise ValueError(
                f"--vocabulary {options.vocabulary} leaves out the tokens between which prompts stand ({layout.start_id} and "
                f"{layout.end_id}); give at least {max(layout.start_id, layout.end_id) + 1}, or 0 for all"
            )
    if accelerator.is_main_process:
        tokenizer_file.write_text(tokenizer_text, encoding="utf-8")
    accelerator.wait_for_everyone()  # nobody reads a file that is being written
    layout = with_user_start(layout, tokenizer_text)
    if options.blocks_per_output:
        layout = replace(layout, blocks_per_output=options.blocks_per_output)
    tokenizer = BlockTokenizer(tokenizer_file, layout)
    training = data.training
    accelerator.print(f"{len(training)} training pairs, {len(data.held_out)} held out, {len(data.dev)} of the dev split")
    if options.round_base:
        with accelerator.main_process_first():  # it rounds, the others take what it wrote
            round_base(model.to(accelerator.device), output / PACKED_BASE_FILE, training, tokenizer)
    if options.keep_base:
        with accelerator.main_process_first():
            model = keep_base(model, Path(options.base) / WEIGHTS_FILE, output / PACKED_BASE_FILE)
    elif options.lora_rank:
        model = with_adapter(model, options.lora_rank)

    loss: Any = PromptLoss(model, layout, options.compile)
    parameters = {name: value for name, value in loss.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)
    progress = resumed(load_state(output / "last", parameters, optimizer), options.batch, accelerator.num_processes)
    loss, optimizer = accelerator.prepare(loss, optimizer)
    stream = examples(training, options.seed, accelerator.process_index, accelerator.num_processes, layout.max_outputs)
    seen = progress["examples"]
    if options.rival_pool:
        before = seen // options.rival_pool * options.rival_pool  # whole pools, which need not be sorted again
        stream = alike_together(islice(stream, before, None), options.micro_batch, options.rival_pool, embed_many)
        seen -= before
    for _ in range(seen):
        next(stream)
    log = open_log(output / LOG_FILE) if accelerator.is_main_process else None
    began, save_at = time.monotonic() - progress["seconds"], time.monotonic() + FIRST_STATE_SECONDS
    bar = tqdm(total=options.steps or None, initial=progress["step"], unit="step", disable=not accelerator.is_main_process)

    def finished() -> float:
        # All stop at the same step: one that went on alone would wait for the others for ever.
        return float(broadcast_object_list([share_done(options, progress["step"], time.monotonic() - began)])[0])

    def log_row(row: dict[str, Any]) -> None:
        if log is not None:
            log.write(json.dumps(row) + "\n")
            log.flush()

    def evaluate_now() -> None:
        bare = accelerator.unwrap_model(loss)
        bare.eval()
        row = {"step": progress["step"], "held_out": pairs_hash(data.held_out)}
        row |= evaluate_pairs(bare, tokenizer, data.held_out, options.batch, accelerator.autocast)
        if data.dev:
            found = evaluate_pairs(bare, tokenizer, data.dev, options.batch, accelerator.autocast)
            row |= {f"dev_{name}": value for name, value in found.items()}
        bare.train()
        log_row(row)
        accelerator.print(json.dumps(row))

    loss.train()
    while (done := finished()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, options.warmup, options.lr)
        chosen = [next(stream) for _ in range(options.batch)]
        prompts = [tokenizer.prompt(example.prompt, layout.max_prompt_tokens, example.secret) for example in chosen]
        own_tokens = torch.tensor(float(sum(len(prompt) - 1 for prompt in prompts)), device=accelerator.device)
        # Gradients are averaged over processes: with the mean of their tokens, each token of the whole step weighs the same.
        tokens = accelerator.reduce(own_tokens, reduction="mean").item()
        total = told = 0.0
        for start in range(0, len(chosen), options.micro_batch):
            part = slice(start, start + options.micro_batch)
            blocks = [tokenizer.blocks(example.outputs) for example in chosen[part]]
            rivals = min(options.rivals, len(blocks) - 1)
            with accelerator.autocast():
                nats = loss(blocks, prompts[part], rivals)
            own = nats[:, 0].sum() / tokens
            apart = contrast(nats, prompts[part], [example.informed for example in chosen[part]]) / tokens
            accelerator.backward(own + options.contrast * apart)
            total += own.item()
            told += apart.item()
        accelerator.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # kept: fresh memory costs a CPU more than zeros
        progress["step"] += 1
        progress["examples"] += options.batch
        progress["seconds"] = time.monotonic() - began
        log_row({"step": progress["step"], "loss": total, "contrast": told, "epoch": chosen[-1].epoch, "seconds": progress["seconds"]})
        bar.update()
        bar.set_postfix(loss=f"{total:.3f}", epoch=f"{chosen[-1].epoch:.2f}")
        if progress["step"] % options.eval_every == 0:
            evaluate_now()
        if accelerator.is_main_process and time.monotonic() > save_at:
            save_state(output / "last", parameters, optimizer, progress)
            save_at = time.monotonic() + STATE_EVERY_SECONDS
    evaluate_now()
    if accelerator.is_main_process:
        save_state(output / "last", parameters, optimizer, progress)
        final = accelerator.unwrap_model(loss).model
        if options.round_base or options.keep_base:
            write_whole(adapter_state(final), output / ADAPTER_FILE)
            final.config.save_pretrained(output / "final")
        else:
            (final.merge_and_unload() if options.lora_rank else final).save_pretrained(output / "final")
        settings = {
            "base": provenance["base"],
            "seed": options.seed,
            "steps_done": provenance["steps_done"] + progress["step"],
            "block_format": layout.to_dict(),
        }
        (output / SETTINGS_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")
        print(f"training has finished; next: python -m lm_eval_inversion.training.pack --run {output}")
    accelerator.wait_for_everyone()  # whoever goes on finds a whole run


def load_base(base: str, max_output_tokens: int) -> tuple[Any, str, BlockFormat, dict[str, Any]]:
    """What a training starts from: a finished run, an inverter checkpoint, or the folder or hub name of a language model.

    Returns:
        The model in float32, its tokenizer as JSON text, the block format (``max_output_tokens`` counts for a language model
        only: the others have theirs), and ``base`` and ``steps_done`` of the stages before.

    Raises:
        ValueError: its tokenizer cannot be trained with; or it is a run that must be packed first.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(base)
    if (folder / DESCRIPTION_FILE).is_file():
        inverter = SparsePrefixInverter.from_folder(folder, name=base, device="cpu", dtype=torch.float32)
        facts = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["training"]
        return inverter.model, base_files(base)[0], inverter.layout, {"base": facts["base"], "steps_done": facts["steps"]}
    settings = read_settings(folder)
    if settings and not list((folder / "final").glob("*.safetensors")):
        raise ValueError(f"--base {base}: this run trained an adapter on packed weights; pack it (training.pack) and give the checkpoint")
    model = AutoModelForCausalLM.from_pretrained(folder / "final" if settings else base, dtype=torch.float32, trust_remote_code=False)
    tokenizer_text, layout = base_files(base, max_output_tokens)
    return model, tokenizer_text, layout, settings or {"base": folder.name, "steps_done": 0}


def base_files(base: str, max_output_tokens: int = 32) -> tuple[str, BlockFormat]:
    """Tokenizer as JSON text and block format of a base, see ``load_base``; no weights are read.

    Raises:
        ValueError: see ``prompt_ends``.
    """
    from transformers import AutoTokenizer

    folder = Path(base)
    described = folder / DESCRIPTION_FILE
    known = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else read_settings(folder)
    if known:
        return (folder / TOKENIZER_FILE).read_text(encoding="utf-8"), BlockFormat(**known["block_format"])
    source = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    start, end = prompt_ends(source, base)
    layout = BlockFormat(max_output_tokens=max_output_tokens, start_id=start, end_id=end)
    return str(source.backend_tokenizer.to_str(pretty=False)), layout


def prompt_ends(tokenizer: Any, base: str) -> tuple[int, int]:
    """The tokens that begin and end a prompt: ``bos_token`` and ``eos_token`` of a transformers tokenizer.

    Where one is missing, or both are the same, the first special token stands in that is none of its named ones: Qwen2, which has no
    ``bos_token``, begins with ``<|im_start|>``.

    Raises:
        ValueError: there is no such token.
    """
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    named = {start, end, tokenizer.pad_token_id, tokenizer.unk_token_id}
    free = iter(sorted(token for token, added in tokenizer.added_tokens_decoder.items() if added.special and token not in named))
    if start is None or start == end:
        start = next(free, None)
    if end is None:
        end = next(free, None)
    if start is None or end is None:
        raise ValueError(
            f"--base {base}: prompts begin with its tokenizer's bos_token and end with its eos_token, which are {tokenizer.bos_token!r} "
            f"and {tokenizer.eos_token!r}, and it has no special token to spare; set two different ones in tokenizer_config.json"
        )
    return start, end


def weights_hash(model: Any) -> str:
    """SHA-256 of a model's weights and their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def start_of(options: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Options that a run must keep when it goes on, by name: its weights, or the order of its examples, would be others."""
    kept = ["seed", "lora_rank", "round_base", "keep_base", "vocabulary", "max_output_tokens", "blocks_per_output", "rival_pool"]
    # Micro-batches shape the order of examples only where rivals are chosen for them.
    kept += ["micro_batch"] * bool(options.rival_pool)
    return {"pairs": pairs_summary(data), **{name: getattr(options, name) for name in kept}}


def pairs_summary(data: Data) -> str:
    """What is trained on, in its order."""
    return f"{len(data.training)} pairs with hash {pairs_hash(data.training)}"


def require_same_start(output: Path, start: dict[str, Any]) -> None:
    """Keep what a run starts from, or compare it: a run that goes on from something else would mix two trainings.

    Args:
        output: run folder; where nothing was trained yet, anything may start.
        start: option -> value.

    Raises:
        ValueError: the folder holds a run that started from something else.
    """
    path, before = output / START_FILE, {}
    if (output / "last" / STATE_FILE).is_file() or (output / PACKED_BASE_FILE).is_file():
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
        elif (output / BASE_HASH_FILE).is_file():
            before = {"base": (output / BASE_HASH_FILE).read_text(encoding="utf-8").strip()}
    for name, value in start.items():
        if before.get(name, value) != value:
            raise ValueError(
                f"--output {output} holds a run that started from another --{name.replace('_', '-')} ({before[name]}, not {value}); give "
                "that one, or another --output"
            )
    if before != start:
        path.write_text(json.dumps(start, indent=2), encoding="utf-8")


def require_trainable(base: str) -> None:
    """Refuse, before anything is loaded, a language model whose layers are not those that the loss is written for.

    Raises:
        ValueError: it is of another kind, or no model can be found under that name.
    """
    from transformers import AutoConfig

    if (Path(base) / DESCRIPTION_FILE).is_file() or read_settings(Path(base)):
        return
    try:
        kind = AutoConfig.from_pretrained(base, trust_remote_code=False).model_type
    except (OSError, ValueError) as error:
        raise ValueError(f"--base {base}: no model is found there ({str(error).splitlines()[0]})") from error
    if kind not in TRAINABLE:
        raise ValueError(f"--base {base} is a {kind}; the training loss is written for {', '.join(TRAINABLE)}")


def with_user_start(layout: BlockFormat, tokenizer_text: str) -> BlockFormat:
    """The block format with a token that opens users' messages: the first special one that is not taken, where it has none yet."""
    if layout.user_start_id is not None:
        return layout
    taken = (layout.start_id, layout.end_id)
    special = [token["id"] for token in json.loads(tokenizer_text)["added_tokens"] if token["special"] and token["id"] not in taken]
    return replace(layout, user_start_id=min((token for token in special if token > layout.end_id), default=None))


def read_settings(run: Path) -> dict[str, Any]:
    """The settings of a finished run; empty when the folder is none."""
    path = run / SETTINGS_FILE
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return settings


def vocabulary_size(tokenizer_text: str) -> int:
    """Tokens of a tokenizer, special ones among them."""
    from tokenizers import Tokenizer

    return 1 + max(Tokenizer.from_str(tokenizer_text).get_vocab(with_added_tokens=True).values())


def shrink_tokenizer(text: str, size: int) -> str:
    """A byte-pair tokenizer's JSON with its first ``size`` tokens only.

    Merges are numbered in the order in which they were learnt, so what remains is the tokenizer that learning would have given when
    stopped earlier: every text can still be written, rare words with more tokens.

    Raises:
        ValueError: the tokenizer is no byte-pair tokenizer.
    """
    data = json.loads(text)
    if data["model"].get("type") != "BPE":
        raise ValueError(f"--vocabulary needs a byte-pair tokenizer; this one is {data['model'].get('type')}")
    vocabulary = {token: index for token, index in data["model"]["vocab"].items() if index < size}
    parts = [(merge, merge.split(" ") if isinstance(merge, str) else merge) for merge in data["model"]["merges"]]
    data["model"]["vocab"] = vocabulary
    data["model"]["merges"] = [merge for merge, pair in parts if "".join(pair) in vocabulary]
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < size]
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.train", description=__doc__.split("\n")[0])
    parser.add_argument("--base", required=True, help="folder or hub name of a Llama or Qwen2, a finished run, or a checkpoint")
    parser.add_argument("--pairs", required=True, type=Path, nargs="+", help="JSONL files of training.collect")
    parser.add_argument(
        "--dev-pairs", "--dev", type=Path, nargs="+", default=[], help="answers under dev prompts: evaluated, never trained on"
    )
    parser.add_argument("--output", required=True, type=Path, help="run folder; resumes when it holds a run")
    parser.add_argument("--minutes", type=non_negative, default=60.0, help="wall-clock budget (default 60, beside --steps too; 0 for none)")
    parser.add_argument("--steps", type=non_negative_whole, default=0, help="step budget (default 0: none)")
    parser.add_argument("--batch", type=positive_whole, default=16, help="examples per step and process (default 16)")
    parser.add_argument("--micro-batch", type=positive_whole, default=16, help="examples per forward pass (default 16)")
    parser.add_argument(
        "--rivals", type=non_negative_whole, default=0,
        help="score each prompt after the outputs of so many others too, which must tell them apart (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--contrast", type=non_negative, default=1.0, help="weight of telling rivals apart, beside that of the likelihood (default 1)"
    )
    parser.add_argument(
        "--rival-pool", type=non_negative_whole, default=0, help="rivals are the most alike of so many examples (default 0: whichever come)"
    )
    parser.add_argument("--lr", type=non_negative, default=2e-4, help="highest learning rate (default 0.0002)")
    parser.add_argument("--warmup", type=non_negative, default=0.04, help="fraction of the run in which the rate rises (default 0.04)")
    parser.add_argument("--lora-rank", type=non_negative_whole, default=0, help="of the adapter; 0, the default, trains all weights")
    parser.add_argument("--vocabulary", type=non_negative_whole, default=0, help="keep only the first so many tokens (default 0: all)")
    parser.add_argument(
        "--round-base", action="store_true", help="round the base as packing will and train the adapter on top: packing then costs nothing"
    )
    parser.add_argument(
        "--keep-base", action="store_true", help="--base is a checkpoint: leave its packed weights as they are, train its adapter on"
    )
    parser.add_argument(
        "--max-output-tokens", type=positive_whole, default=32, help="tokens of a block (a run or checkpoint as --base keeps its own)"
    )
    parser.add_argument(
        "--blocks-per-output", type=positive_whole, help="read long outputs in up to so many blocks (default: one, or as --base does)"
    )
    parser.add_argument("--eval-every", type=positive_whole, default=100, help="steps (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the model's layers first: a minute, then about 1.5 times the speed")
    add_bf16_option(parser)
    options = parser.parse_args(arguments)
    if not options.minutes and not options.steps:
        parser.error("give --minutes or --steps: without a budget the training would never end")
    if options.rivals >= options.micro_batch:
        parser.error(f"--rivals {options.rivals}: rivals are of the same --micro-batch, of {options.micro_batch} examples; give fewer")
    if options.rival_pool and (not options.rivals or options.rival_pool % options.micro_batch):
        parser.error(f"--rival-pool {options.rival_pool}: give a multiple of --micro-batch ({options.micro_batch}), and --rivals")
    if options.rival_pool and options.batch % options.micro_batch:
        parser.error(
            f"--batch {options.batch}: with --rival-pool, whose groups are of one micro-batch each, give a multiple of --micro-batch "
            f"({options.micro_batch})"
        )
    if options.round_base and not options.lora_rank:
        parser.error("--round-base freezes the base; give the rank of the adapter that is trained on top, as in --lora-rank 16")
    if options.keep_base and (options.round_base or options.lora_rank or options.vocabulary):
        parser.error("--keep-base takes all weights from the checkpoint; leave out --round-base, --lora-rank and --vocabulary")
    if options.keep_base and not (Path(options.base) / DESCRIPTION_FILE).is_file():
        parser.error(f"--keep-base: {options.base} is no checkpoint folder ({DESCRIPTION_FILE} is missing)")
    try:
        data = read_data(options)
        require_trainable(options.base)
        train(options, data)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
