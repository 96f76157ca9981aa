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
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lm_eval_inversion.arguments import non_negative, non_negative_whole, positive_whole
from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter
from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer
from lm_eval_inversion.scoring.embedding import embed_many
from lm_eval_inversion.training.adapter import (
    ADAPTER_FILE,
    PACKED_BASE_FILE,
    adapter_state,
    keep_base,
    round_base,
    with_adapter,
    write_whole,
)
from lm_eval_inversion.training.base_model import (
    SETTINGS_FILE,
    load_base,
    require_trainable,
    shrink_tokenizer,
    vocabulary_size,
    weights_hash,
    with_user_start,
)
from lm_eval_inversion.training.contrast import alike_together, contrast, with_rivals
from lm_eval_inversion.training.manifest import TRAINING_PROMPTS_FILE, manifest_of, write_training_prompts
from lm_eval_inversion.training.packed_loss import PackedLoss, by_prompt
from lm_eval_inversion.training.pairs import Data, Example, Pair, examples, pairs_summary, read_data
from lm_eval_inversion.training.running import Run, add_bf16_option, computes_in_bf16, require_same_start


class PromptLoss(nn.Module):
    """The training objective as a module, so that accelerate can wrap it.

    Args:
        model: that is trained.
        layout: how it reads.
        compiled: see ``PackedLoss``.
        teacher: a model and how it reads; while training, what the model must agree with, in place of the prompts as they are.
    """

    def __init__(self, model: Any, layout: BlockFormat, compiled: bool = False, teacher: tuple[Any, BlockFormat] | None = None) -> None:
        super().__init__()
        self.model, self.layout, self._packed = model, layout, PackedLoss(compiled)
        self._teacher = teacher  # in a tuple, in which torch sees no weights of this module

    def forward(self, blocks: list[list[list[int]]], prompts: list[list[int]], rivals: int = 0) -> torch.Tensor:
        """Nats of each example's prompt and of its rivals' (``contrast.with_rivals``), summed over tokens: (examples, 1 + rivals).

        With a teacher, while training: nats by which the model's next tokens diverge from the teacher's (Kullback-Leibler), the mean of an
        example's prompt and of its rivals, which the model must find as unlikely: (examples, 1).
        """
        scored = with_rivals(prompts, rivals)
        if self._teacher is None or not self.training:
            return self._packed(self.model, blocks, scored, self.layout).reshape(len(prompts), rivals + 1)
        teacher, layout = self._teacher
        with torch.no_grad():
            wanted, _ = self._packed.logits(teacher, blocks, scored, layout)
        found, row = self._packed.logits(self.model, blocks, scored, self.layout)
        apart = functional.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True).sum(-1)
        return by_prompt(apart, row).reshape(len(prompts), rivals + 1).mean(1, keepdim=True)


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


def train(options: argparse.Namespace, data: Data) -> None:
    """Run the training; options as on the command line.

    Raises:
        ValueError: the base cannot be trained so, or ``--output`` holds another run.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.utils import broadcast_object_list

    device = str(PartialState(cpu=options.device == "cpu").device)  # the one that accelerate takes, a Mac's too
    precision = "bf16" if computes_in_bf16(options.bf16, device) else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=options.device == "cpu")
    torch.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    accelerator.print(f"{len(data.training)} training pairs, {len(data.held_out)} held out, {len(data.dev)} of the dev split")
    model, tokenizer, provenance = prepared_base(options, data, accelerator)
    layout = tokenizer.layout
    teacher = _teacher(options.teacher, tokenizer, accelerator.device) if options.teacher else None
    loss: Any = PromptLoss(model, layout, options.compile, teacher)
    parameters = {name: value for name, value in loss.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)
    run = Run(options, parameters, optimizer, accelerator.num_processes, accelerator.is_main_process)
    loss, run.optimizer = accelerator.prepare(loss, optimizer)
    stream = _stream(options, data, accelerator, run.progress["examples"], layout.max_outputs)
    run.start()

    def evaluate_now() -> None:
        bare = accelerator.unwrap_model(loss)
        bare.eval()
        row = run.log_evaluation(data, lambda pairs: evaluate_pairs(bare, tokenizer, pairs, options.batch, accelerator.autocast))
        bare.train()
        accelerator.print(json.dumps(row))

    loss.train()
    # All stop at the same step: one that went on alone would wait for the others for ever.
    while (done := float(broadcast_object_list([run.share_done()])[0])) < 1:
        run.set_rate(done)
        chosen = [next(stream) for _ in range(options.batch)]
        own, told = _backward(loss, tokenizer, chosen, options, accelerator)
        run.update()
        run.count(own, chosen[-1].epoch, contrast=told)
        if run.step % options.eval_every == 0:
            evaluate_now()
        run.save_when_due()
    evaluate_now()
    run.save()
    run.close()
    if accelerator.is_main_process:
        final = accelerator.unwrap_model(loss).model
        if options.round_base or options.keep_base:
            write_whole(adapter_state(final), options.output / ADAPTER_FILE)
            final.config.save_pretrained(options.output / "final")
        else:
            (final.merge_and_unload() if options.lora_rank else final).save_pretrained(options.output / "final")
        settings = {
            "base": provenance["base"],
            "seed": options.seed,
            "steps_done": provenance["steps_done"] + run.step,
            "block_format": layout.to_dict(),
        }
        (options.output / SETTINGS_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")
        print(f"training has finished; next: python -m lm_eval_inversion.training.pack --run {options.output}")
    accelerator.wait_for_everyone()  # whoever goes on finds a whole run


def prepared_base(options: argparse.Namespace, data: Data, accelerator: Any) -> tuple[Any, BlockTokenizer, dict[str, Any]]:
    """The model as the options want it trained: fewer tokens, rounded weights, an adapter; its tokenizer stands in ``--output``.

    Returns:
        The model, its tokenizer, and the provenance of ``load_base``.

    Raises:
        ValueError: see ``train``.
    """
    output: Path = options.output
    model, tokenizer_text, layout, provenance = load_base(options.base, options.max_output_tokens)
    if accelerator.is_main_process:
        require_same_start(output, {"base": weights_hash(model), **start_of(options, data)})
    accelerator.wait_for_everyone()
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
        (output / TOKENIZER_FILE).write_text(tokenizer_text, encoding="utf-8")
        if (Path(options.base) / TRAINING_PROMPTS_FILE).is_file():  # for ``training.pack``: these have been trained on too
            write_training_prompts(output / TRAINING_PROMPTS_FILE, manifest_of(Path(options.base)))
    accelerator.wait_for_everyone()  # nobody reads a file that is being written
    layout = with_user_start(layout, tokenizer_text)
    if options.blocks_per_output:
        layout = replace(layout, blocks_per_output=options.blocks_per_output)
    if options.output_layers:
        if options.output_layers >= (depth := model.config.num_hidden_layers):
            raise ValueError(f"--output-layers {options.output_layers}: the base has {depth} layers; give fewer, or 0 for what it has")
        layout = replace(layout, output_layers=options.output_layers)
    tokenizer = BlockTokenizer(output / TOKENIZER_FILE, layout)
    if options.round_base:
        with accelerator.main_process_first():  # it rounds, the others take what it wrote
            round_base(model.to(accelerator.device), output / PACKED_BASE_FILE, data.training, tokenizer)
    if options.keep_base:
        with accelerator.main_process_first():
            model = keep_base(model, Path(options.base) / WEIGHTS_FILE, output / PACKED_BASE_FILE)
    elif options.lora_rank:
        model = with_adapter(model, options.lora_rank)
    return model, tokenizer, provenance


def _teacher(folder: str, tokenizer: BlockTokenizer, device: torch.device) -> tuple[Any, BlockFormat]:
    """The model of a checkpoint and how it reads, to learn from.

    Raises:
        ValueError: it reads other tokens, or reads them in another way, than the model that learns.
    """
    teacher = SparsePrefixInverter.from_folder(Path(folder), name=folder, device=str(device), dtype=torch.float32)
    alike = replace(teacher.layout, output_layers=tokenizer.layout.output_layers) == tokenizer.layout
    if not alike or teacher.tokenizer.tokenizer.to_str() != tokenizer.tokenizer.to_str():
        raise ValueError(f"--teacher {folder} has another tokenizer or block format than --base; give the checkpoint that --base grew from")
    return teacher.model.requires_grad_(False), teacher.layout


def _stream(options: argparse.Namespace, data: Data, accelerator: Any, seen: int, max_outputs: int) -> Iterator[Example]:
    """The examples of this process, behind those that it has seen."""
    stream = examples(data.training, options.seed, accelerator.process_index, accelerator.num_processes, max_outputs)
    if options.rival_pool:
        before = seen // options.rival_pool * options.rival_pool  # whole pools, which need not be sorted again
        stream = alike_together(islice(stream, before, None), options.micro_batch, options.rival_pool, embed_many)
        seen -= before
    for _ in range(seen):  # now, before the clock starts
        next(stream)
    return stream


def _backward(
    loss: Any, tokenizer: BlockTokenizer, chosen: Sequence[Example], options: argparse.Namespace, accelerator: Any
) -> tuple[float, float]:
    """Add the gradients of one step's examples; nats per token of their prompts, and what it costs to tell their rivals apart."""
    prompts = [tokenizer.prompt(example.prompt, tokenizer.layout.max_prompt_tokens, example.secret) for example in chosen]
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
    return total, told


def start_of(options: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Options that a run must keep when it goes on, by name: its weights, or the order of its examples, would be others."""
    kept = ["seed", "lora_rank", "round_base", "keep_base", "vocabulary", "max_output_tokens", "blocks_per_output", "output_layers"]
    kept += ["rival_pool", "teacher"]
    # Micro-batches shape the order of examples only where rivals are chosen for them.
    kept += ["micro_batch"] * bool(options.rival_pool)
    return {"pairs": pairs_summary(data), **{name: getattr(options, name) for name in kept}}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.train", description=__doc__.split("\n")[0])
    parser.add_argument("--base", required=True, help="folder or hub name of a Llama or Qwen2, a finished run, or a checkpoint")
    parser.add_argument(
        "--pairs", required=True, type=Path, nargs="+",
        help="files of training.collect and training.convert, .jsonl or .jsonl.xz; one named several times is seen so often in an epoch",
    )  # fmt: skip
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
    parser.add_argument(
        "--teacher", metavar="CHECKPOINT", help="learn to write as this one does, of prompts and rivals, and not the prompts themselves"
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
    parser.add_argument(
        "--output-layers", type=non_negative_whole, default=0,
        help="layers that outputs run through, prompts run through all (default 0: as many as in the base)",
    )  # fmt: skip
    parser.add_argument("--eval-every", type=positive_whole, default=100, help="steps (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the layers first: a minute, then 1.1 to 1.3 times the speed")
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
        data = read_data(options.pairs, options.dev_pairs)
        require_trainable(options.base)
        train(options, data)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
