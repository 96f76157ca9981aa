"""Count the words of training outputs for identification (``inverter.words``); ``training.pack`` does it for a run.

Command, for a checkpoint that has no counts, or those of other pairs::

    python -m lm_eval_inversion.training.words --checkpoint my_checkpoint --pairs benchmarks/data/pairs_*

It writes ``words.json`` and ``inverter.json`` anew and prints the new SHA-256 of the latter; weights and tokenizer stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file

from lm_eval_inversion.inverter.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, verify_checkpoint, write_checkpoint
from lm_eval_inversion.inverter.words import OutputWords
from lm_eval_inversion.training.pairs import Pair, load_pairs


def counted_words(pairs: Iterable[Pair]) -> OutputWords | None:
    """In how many outputs of pairs each word stands; None where there is no output. A file that is named several times counts once."""
    words = OutputWords.count(output for pair in dict.fromkeys(pairs) for output in pair.outputs)
    return words if words.outputs else None


def add_words(folder: Path, pairs: list[Path]) -> str:
    """Give a checkpoint the counts of the outputs of pairs files; returns the new SHA-256 of its ``inverter.json``.

    Raises:
        CheckpointError: the folder is no checkpoint.
        ValueError: the pairs cannot be read, or hold no output.
    """
    known = verify_checkpoint(folder).description
    if (words := counted_words(load_pairs(pairs))) is None:
        raise ValueError("--pairs: they hold no output whose words could be counted")
    return write_checkpoint(
        folder, load_file(folder / WEIGHTS_FILE), folder / TOKENIZER_FILE, block_format=known["block_format"],
        model_config=known["model_config"], training=known.get("training", {}), words=words,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.words", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint folder; its inverter.json is written anew")
    parser.add_argument("--pairs", required=True, type=Path, nargs="+", help="training pairs; none of a prompt that will be evaluated")
    options = parser.parse_args(arguments)
    try:
        print(add_words(options.checkpoint, options.pairs))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
