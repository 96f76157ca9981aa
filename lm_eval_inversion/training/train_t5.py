"""Train the paper's architecture, a sparse T5, on the same pairs as the shared inverter: the baseline that it must beat.

Command::

    python -m lm_eval_inversion.training.train_t5 --pairs pairs.jsonl --output runs/t5 --minutes 20

From random weights of ``--layers`` and ``--width``, with the tokenizer of the shipped checkpoint; or from a pretrained T5, as in the paper,
with ``--base FOLDER``. Examples, learning rate and held-out pairs are those of ``training.train``; every output is encoded by itself and
the decoder attends to all of them, by the very function that inverts (``inverter.sparse_t5.encode_outputs``).

``OUTPUT/final`` is a T5 folder, for ``inverter=t5:OUTPUT/final``. ``OUTPUT/last`` is written as it goes; started again, the command goes on
there. ``OUTPUT/log.jsonl`` has the columns of ``training.train`` but ``contrast``. Pairs of users' messages are left out and counted: a
T5 has one way to begin a text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from lm_eval_inversion.arguments import non_negative, non_negative_whole, positive_whole
from lm_eval_inversion.inverter.base import OutputSets
from lm_eval_inversion.inverter.checkpoint import TOKENIZER_FILE
from lm_eval_inversion.inverter.model_folder import READING, whole_model
from lm_eval_inversion.inverter.registry import shipped_checkpoint
from lm_eval_inversion.inverter.sparse_t5 import encode_outputs, text_ids
from lm_eval_inversion.inverter.tokens import BlockFormat
from lm_eval_inversion.precision import choose_device
from lm_eval_inversion.training.base_model import weights_hash
from lm_eval_inversion.training.pairs import Data, Pair, examples, pairs_summary, read_data, require_enough
from lm_eval_inversion.training.running import Run, add_bf16_option, computes_in_bf16, require_same_start
from lm_eval_inversion.training.train import compare_conditions

PAD_ID, HEAD_SIZE, FEED_FORWARD = 0, 64, 4  # token that pads and begins a text; width of a head, and feed-forward over width, as in T5
NO_LABEL = -100  # stands behind a prompt's end; transformers reads it as padding
RANDOM_RATE, PRETRAINED_RATE = 1e-3, 2e-4  # peak learning rates; the second is that of training.train, which goes on from a trained model
LAYOUT = BlockFormat()  # of the shared inverter: how much of outputs and prompts is read


def wrapped_tokenizer(tokenizer_file: Path) -> Any:
    """The project's tokenizer as a T5 folder needs it: texts end with the end token, and special tokens inside of them stay text.

    Raises:
        ValueError: the tokens that are to pad and to end a text stand for ordinary text in this tokenizer.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    pad, end = tokenizer.id_to_token(PAD_ID), tokenizer.id_to_token(LAYOUT.end_id)
    added = tokenizer.get_added_tokens_decoder()
    if not all(token in added and added[token].special for token in (PAD_ID, LAYOUT.end_id)):
        raise ValueError(
            f"--tokenizer {tokenizer_file}: tokens {PAD_ID} and {LAYOUT.end_id} pad and end a text and must be special, but are {pad!r} "
            f"and {end!r}; leave the option out to take the shipped checkpoint's tokenizer, or give one whose special tokens come first"
        )
    tokenizer.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, LAYOUT.end_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, split_special_tokens=True, padding_side="right"
    )


def random_t5(vocabulary: int, layers: int, width: int) -> Any:
    """A T5 with random weights: ``layers`` in the encoder and as many in the decoder.

    Raises:
        ValueError: the width is no multiple of ``HEAD_SIZE``.
    """
    from transformers import T5Config, T5ForConditionalGeneration

    if width < HEAD_SIZE or width % HEAD_SIZE or layers < 1:
        raise ValueError(f"--layers {layers} --width {width}: give at least one layer, and a multiple of {HEAD_SIZE} as width")
    config = T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=HEAD_SIZE, d_ff=FEED_FORWARD * width, num_heads=width // HEAD_SIZE, num_layers=layers,
        num_decoder_layers=layers, pad_token_id=PAD_ID, decoder_start_token_id=PAD_ID, eos_token_id=LAYOUT.end_id,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def load_start(options: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer that the training starts from, in float32.

    Raises:
        ValueError: ``--base`` is no T5 folder, the size is impossible, or see ``wrapped_tokenizer``.
    """
    if options.base is None:
        tokenizer = wrapped_tokenizer(options.tokenizer)
        model = random_t5(len(tokenizer), options.layers, options.width)
    else:
        from transformers import AutoConfig, AutoTokenizer, T5ForConditionalGeneration

        if not (options.base / "config.json").is_file():
            raise ValueError(f"--base {options.base} holds no config.json; give the folder of a T5ForConditionalGeneration")
        kind = AutoConfig.from_pretrained(str(options.base), **READING).model_type
        if kind != "t5":
            raise ValueError(f"--base {options.base} holds a {kind}; give the folder of a T5ForConditionalGeneration")
        tokenizer = AutoTokenizer.from_pretrained(str(options.base), **READING)
        model = whole_model(T5ForConditionalGeneration, options.base, f"--base {options.base}", dtype=torch.float32)
    model.config.max_output_tokens = options.max_output_tokens  # goes with the folder: inversion reads as much
    return model, tokenizer


def prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, cut as the shared inverter's training cuts them, each with its end."""
    return text_ids(tokenizer, prompts, LAYOUT.max_prompt_tokens + 1)


def prompt_nats(model: Any, tokenizer: Any, outputs: OutputSets, prompts: Sequence[str]) -> torch.Tensor:
    """-log p(prompt and its end | outputs) in nats, summed over tokens: (prompts,)."""
    from transformers.modeling_outputs import BaseModelOutput

    hidden, mask = encode_outputs(model, tokenizer, outputs)
    rows = [torch.tensor(row) for row in prompt_ids(tokenizer, prompts)]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_LABEL).to(model.device)
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
        attention_mask=mask,
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        use_cache=False,
    ).logits
    real = labels != NO_LABEL
    losses = functional.cross_entropy(logits[real].float(), labels[real], reduction="none")
    return torch.zeros(len(labels), device=model.device).index_add(0, real.nonzero()[:, 0], losses)


@torch.no_grad()
def evaluate_pairs(
    model: Any, tokenizer: Any, pairs: Sequence[Pair], batch: int, autocast: AbstractContextManager[Any]
) -> dict[str, float]:
    """The same columns as ``training.train.evaluate_pairs``; tokens, and with them nats, are those of this tokenizer."""

    def nats(outputs: OutputSets) -> torch.Tensor:
        parts = []
        for start in range(0, len(pairs), batch):
            part = slice(start, start + batch)
            with autocast:
                parts.append(prompt_nats(model, tokenizer, outputs[part], [pair.prompt or "" for pair in pairs[part]]))
        return torch.cat(parts)

    return compare_conditions(nats, pairs)


def system_pairs(data: Data) -> Data:
    """The data without users' messages."""
    return Data(*([pair for pair in pairs if pair.secret == "system"] for pairs in (data.training, data.held_out, data.dev)))


def train(options: argparse.Namespace, data: Data, model: Any, tokenizer: Any) -> None:
    """Run the training.

    Args:
        options: as on the command line.
        data: pairs of system prompts.
        model: see ``load_start``.
        tokenizer: its tokenizer.

    Raises:
        ValueError: ``--output`` holds another run.
    """
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    # Random weights are told by their options: what a seed draws may change with the version of torch.
    weights = {
        "base": weights_hash(model) if options.base else None,
        "layers": None if options.base else options.layers,
        "width": None if options.base else options.width,
    }
    rest = {"max_output_tokens": options.max_output_tokens, "pairs": pairs_summary(data), "seed": options.seed}
    require_same_start(output, weights | rest)
    device = choose_device(options.device)
    autocast = torch.autocast(device, torch.bfloat16) if computes_in_bf16(options.bf16, device) else nullcontext()
    model.to(device).train()
    print(
        f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} million weights; {len(data.training)} training pairs, "
        f"{len(data.held_out)} held out, {len(data.dev)} of the dev split"
    )
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)
    run = Run(options, parameters, optimizer)
    stream = examples(data.training, options.seed, 0, 1, LAYOUT.max_outputs)
    for _ in range(run.progress["examples"]):
        next(stream)
    run.start()

    def evaluate_now() -> None:
        model.eval()
        row = run.log_evaluation(data, lambda pairs: evaluate_pairs(model, tokenizer, pairs, options.batch, autocast))
        model.train()
        print(json.dumps(row))

    while (done := run.share_done()) < 1:
        run.set_rate(done)
        chosen = [next(stream) for _ in range(options.batch)]
        with autocast:
            nats = prompt_nats(model, tokenizer, [example.outputs for example in chosen], [example.prompt for example in chosen])
        loss = nats.sum() / sum(map(len, prompt_ids(tokenizer, [example.prompt for example in chosen])))
        torch.autograd.backward(loss)
        run.update()
        run.count(loss.item(), chosen[-1].epoch)
        if run.step % options.eval_every == 0:
            evaluate_now()
        run.save_when_due()
    evaluate_now()
    run.save()
    run.close()
    model.save_pretrained(output / "final")
    tokenizer.save_pretrained(output / "final")
    print(f"training has finished; the inverter is t5:{output / 'final'}")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.train_t5", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", required=True, type=Path, nargs="+", help="JSONL files of training.collect")
    parser.add_argument("--dev-pairs", type=Path, nargs="+", default=[], help="answers under dev prompts: evaluated, never trained on")
    parser.add_argument("--output", required=True, type=Path, help="run folder; resumes when it holds a run")
    parser.add_argument("--base", type=Path, help="folder of a pretrained T5, with its tokenizer (default: random weights)")
    parser.add_argument("--layers", type=int, default=6, help="of the encoder, and of the decoder, where the weights are random")
    parser.add_argument("--width", type=int, default=512, help="of the model, where the weights are random")
    parser.add_argument(
        "--tokenizer", type=Path, default=shipped_checkpoint() / TOKENIZER_FILE, help="tokenizer.json of a checkpoint, with random weights"
    )
    parser.add_argument("--minutes", type=non_negative, default=60.0, help="wall-clock budget; 0 for none")
    parser.add_argument("--steps", type=non_negative_whole, default=0, help="step budget; 0 for none")
    parser.add_argument("--batch", type=positive_whole, default=16, help="examples per step")
    parser.add_argument("--lr", type=non_negative, help=f"default {RANDOM_RATE:g} from random weights, {PRETRAINED_RATE:g} from --base")
    parser.add_argument("--warmup", type=non_negative, default=0.04, help="fraction of the run")
    parser.add_argument("--max-output-tokens", type=positive_whole, default=LAYOUT.max_output_tokens, help="tokens read of each output")
    parser.add_argument("--eval-every", type=positive_whole, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    add_bf16_option(parser)
    options = parser.parse_args(arguments)
    if not options.minutes and not options.steps:
        parser.error("give --minutes or --steps: without a budget the training would never end")
    if options.max_output_tokens < 2:
        parser.error("give at least 2 as --max-output-tokens (an output and its end)")
    if options.lr is None:
        options.lr = RANDOM_RATE if options.base is None else PRETRAINED_RATE
    torch.manual_seed(options.seed)
    try:
        everything = read_data(options.pairs, options.dev_pairs)
        data = system_pairs(everything)
        require_enough(data)
        model, tokenizer = load_start(options)
        if left_out := len(everything.training) - len(data.training):
            print(f"{left_out} training pairs are messages of users, which a T5 is not trained on")
        train(options, data, model, tokenizer)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
