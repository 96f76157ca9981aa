"""The shared inverter from scratch, in one command: all weights, then an adapter on the rounded weights, then packing.

Command (one process, or several GPUs with ``accelerate launch -m``)::

    python -m lm_eval_inversion.training.recipe --base SMOLLM2 --pairs-folder benchmarks/data --output runs/shared --minutes 90 \\
        --batch 64 --micro-batch 64

Started again, it goes on where it was; a stage that has finished is not run again, whatever the budget. The checkpoint is
``OUTPUT/checkpoint``, an ``inverter=`` name; what remains to be done to ship it is printed. The first stage takes four fifths of the time.
The shipped checkpoint came about in more steps than these (see its model card): it grew with its data.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from lm_eval_inversion.arguments import non_negative_whole, positive, positive_whole
from lm_eval_inversion.training import base_model, pack, running, train

# How often an epoch sees each file: the few rows under natural prompts and a strong model's answers more often than the grammar's many.
EPOCH_SHARES = {
    "pairs_a": 1, "pairs_b": 1, "pairs_c": 1, "pairs_d": 1, "pairs_e": 1, "pairs_f": 1, "pairs_g": 2, "pairs_h": 2, "pairs_i": 3,
    "pairs_j": 3, "pairs_user": 3, "pairs_strong": 2, "pairs_strong_2": 2, "pairs_strong_3": 2, "pairs_strong_4": 3, "pairs_strong_5": 3,
    "pairs_strong_6": 3, "pairs_strong_7": 3, "pairs_strong_8": 3, "pairs_strong_9": 3, "pairs_strong_10": 3,
    "pairs_strong_11": 3,
}  # fmt: skip
FIRST_STAGE = 0.8  # of the time
FIRST_FOLDER, SECOND_FOLDER = "all_weights", "adapter"
ADAPTER_RANK, ADAPTER_RATE = 16, 3e-4
VOCABULARY = 32_768
OUTPUT_LAYERS = 3 / 4  # of the base's; the layers above hardly add to what is read of outputs (``docs/LOG.md``)


def pair_files(folder: Path) -> list[Path]:
    """The files of training pairs, each as often as an epoch sees it.

    Raises:
        ValueError: one is missing.
    """
    found = []
    for name, times in EPOCH_SHARES.items():
        path = next((path for path in (folder / f"{name}.jsonl.xz", folder / f"{name}.jsonl") if path.is_file()), None)
        if path is None:
            raise ValueError(f"--pairs-folder {folder}: {name}.jsonl.xz is missing; give the folder benchmarks/data of the repository")
        found += [path] * times
    return found


def default_vocabulary(base: str) -> int:
    """``VOCABULARY``, or 0, for all tokens, where the base's tokenizer has no more than that, or its special ones stand behind."""
    tokenizer_text, layout = base_model.base_files(base)
    return VOCABULARY if max(layout.start_id, layout.end_id) < VOCABULARY < base_model.vocabulary_size(tokenizer_text) else 0


def default_output_layers(base: str) -> int:
    """``OUTPUT_LAYERS`` of a language model's layers; 0, for as many as it has, where it has one, or is a run or a checkpoint."""
    from transformers import AutoConfig

    if base_model.is_trained(base):
        return 0
    return int(OUTPUT_LAYERS * AutoConfig.from_pretrained(base, trust_remote_code=False).num_hidden_layers)


def stages(options: argparse.Namespace, pairs: Sequence[Path]) -> dict[Path, list[str]]:
    """Run folder -> arguments of ``training.train``, stage by stage."""
    shared = ["--pairs", *map(str, pairs), "--batch", str(options.batch), "--micro-batch", str(options.micro_batch)]
    shared += ["--rivals", str(min(options.rivals, options.micro_batch - 1)), "--contrast", str(options.contrast)]
    shared += ["--seed", str(options.seed), "--device", options.device, "--eval-every", str(options.eval_every)]
    if options.bf16 is not None:
        shared.append("--bf16" if options.bf16 else "--no-bf16")
    if options.dev_pairs:
        shared += ["--dev-pairs", *map(str, options.dev_pairs)]
    first, second = options.output / FIRST_FOLDER, options.output / SECOND_FOLDER
    budgets = [
        ["--minutes", str(options.minutes * share), "--steps", str(options.steps and max(1, round(options.steps * share)))]
        for share in (FIRST_STAGE, 1 - FIRST_STAGE)
    ]
    return {
        first: [
            "--base", options.base, "--vocabulary", str(options.vocabulary), "--blocks-per-output", str(options.blocks_per_output),
            "--output-layers", str(options.output_layers), "--lr", str(options.lr), *["--compile"] * options.compile, *budgets[0], *shared,
        ],
        second: ["--base", str(first), "--round-base", "--lora-rank", str(ADAPTER_RANK), "--lr", str(ADAPTER_RATE), *budgets[1], *shared],
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.recipe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", required=True, help="folder or hub name of SmolLM2-135M-Instruct, or of another Llama or Qwen2")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pairs-folder", type=Path, default=Path("benchmarks/data"), help="default benchmarks/data")
    source.add_argument(
        "--pairs", type=Path, nargs="+", metavar="FILE", help="your own files instead; an epoch sees each as often as it is named"
    )
    parser.add_argument("--dev-pairs", type=Path, nargs="+", default=[], help="answers under dev prompts: evaluated, never trained on")
    parser.add_argument("--output", required=True, type=Path, help="folder of both stages and the checkpoint; resumes")
    parser.add_argument("--minutes", type=positive, default=90.0, help="of both stages together (default 90)")
    parser.add_argument("--steps", type=positive_whole, default=0, help="steps of both together, where they end sooner (default: no limit)")
    parser.add_argument("--batch", type=positive_whole, default=16, help="examples per step and process (default 16)")
    parser.add_argument(
        "--micro-batch", type=positive_whole, default=16, help="examples per forward pass (default 16); halve it if memory does not suffice"
    )
    parser.add_argument(
        "--rivals", type=non_negative_whole, default=3, help="see training.train (default 3, or as many as --micro-batch leaves)"
    )
    parser.add_argument("--contrast", type=positive, default=3.0, help="see training.train (default 3)")
    parser.add_argument(
        "--vocabulary", type=non_negative_whole,
        help=f"keep only the first so many tokens; 0 for all (default {VOCABULARY}, or all where there are fewer)",
    )  # fmt: skip
    parser.add_argument("--blocks-per-output", type=positive_whole, default=2, help="read long outputs in up to so many blocks (default 2)")
    parser.add_argument(
        "--output-layers", type=non_negative_whole,
        help="layers that outputs run through, prompts run through all; 0 for all, or as many as in a checkpoint (default three quarters)",
    )  # fmt: skip
    parser.add_argument("--lr", type=positive, default=4e-4, help="of the first stage (default 4e-4)")
    parser.add_argument("--eval-every", type=positive_whole, default=200, help="steps between evaluations (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--compile", action="store_true", help="of the first stage, see training.train")
    running.add_bf16_option(parser)
    options = parser.parse_args(arguments)
    import peft  # noqa: F401  # of the second stage, and better missed now than after the first

    try:
        pairs = options.pairs or pair_files(options.pairs_folder)
        if not base_model.read_settings(options.output / FIRST_FOLDER):
            base_model.require_trainable(options.base)
            if options.vocabulary is None:
                options.vocabulary = default_vocabulary(options.base)
            if options.output_layers is None:
                options.output_layers = default_output_layers(options.base)
    except ValueError as error:
        parser.error(str(error))
    for folder, stage in stages(options, pairs).items():
        if not base_model.read_settings(folder):  # written last
            train.main([*stage, "--output", str(folder)])
    if int(os.environ.get("RANK", "0")):
        return  # one process packs
    try:
        found = pack.pack(options.output / SECOND_FOLDER, list(dict.fromkeys(pairs)), options.output / "checkpoint")
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(found, indent=2))
    print(
        f"Try it: python benchmarks/baselines.py ANSWERS.jsonl --inverters {options.output / 'checkpoint'} default\n"
        "Ship it: copy the folder to lm_eval_inversion/checkpoints and put the SHA-256 into DEFAULT_SHA256 of inverter/registry.py"
    )


if __name__ == "__main__":
    main()
