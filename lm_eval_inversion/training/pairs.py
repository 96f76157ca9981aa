"""Training pairs: from collected rows to (outputs, prompt) examples in a fixed order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.outputs import split_list, strip_thinking
from lm_eval_inversion.prompts import load_prompts
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.training.collect import QUERY_SHARES, read_pairs
from lm_eval_inversion.training.overlap import overlapping

NO_OUTPUTS_SHARE, NULL_OUTPUTS_SHARE = 0.08, 0.08
HELD_OUT_EVERY, HELD_OUT_MOST = 50, 64  # one prompt in 50 is never trained on; at most 64 of them are evaluated


@dataclass(frozen=True)
class Pair:
    """A system prompt (None: the model ran without one) and its outputs."""

    prompt: str | None
    outputs: tuple[str, ...]


def load_pairs(paths: Sequence[Path]) -> list[Pair]:
    """Read collected pairs, answers split into outputs; prompts that overlap a benchmark prompt are left out.

    Raises:
        ValueError: a file is missing or holds no pairs.
    """
    list_queries = {
        query.id for name, _ in QUERY_SHARES if load_query_set(name).kind == "list" for query in load_query_set(name).queries
    }
    pairs = []
    for path in paths:
        rows = read_pairs(path)
        if not rows:
            raise ValueError(f"{path} holds no pairs; collect some with python -m lm_eval_inversion.training.collect")
        for row in rows:
            outputs: list[str] = []
            for query, answer in row["answers"]:
                text = strip_thinking(answer)
                outputs += split_list(text)[0] if query in list_queries else [text]
            pairs.append(Pair(row["prompt"], tuple(dict.fromkeys(text for text in outputs if text))))
    bad = overlapping([pair.prompt for pair in pairs if pair.prompt], [prompt.text for prompt in load_prompts("v1", split=None)])
    return [pair for pair in pairs if pair.prompt not in bad]


def held_out_pairs(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Split into training pairs and evaluation pairs that share no prompt.

    A prompt's own hash decides, so that it stays on its side when pairs are added or a run goes on from an earlier one.
    """

    def held_out(pair: Pair) -> bool:
        return pair.prompt is not None and int(content_hash(pair.prompt), 16) % HELD_OUT_EVERY == 0

    chosen = [pair for pair in pairs if held_out(pair)]
    return [pair for pair in pairs if not held_out(pair)], chosen[:HELD_OUT_MOST]


def examples(pairs: Sequence[Pair], seed: int, rank: int, world: int) -> Iterator[tuple[list[str], str, float]]:
    """Endless (outputs, prompt, epoch) in an order that depends on ``seed`` only; each rank takes its share."""
    null_outputs = [line for pair in pairs if pair.prompt is None for line in pair.outputs]
    prompted = [pair for pair in pairs if pair.prompt is not None]
    count = 0
    while True:
        epoch = count // len(prompted)
        rng = random.Random(f"{seed}/{epoch}")
        for pair in rng.sample(prompted, len(prompted)):
            draw = rng.random()
            if draw < NO_OUTPUTS_SHARE:
                outputs: list[str] = []
            elif draw < NO_OUTPUTS_SHARE + NULL_OUTPUTS_SHARE and null_outputs:
                outputs = rng.sample(null_outputs, min(len(null_outputs), rng.randint(1, 16)))
            else:
                # Mostly all of them: more outputs are what the evaluation gives.
                keep = len(pair.outputs) if rng.random() < 0.5 else rng.randint(1, max(1, len(pair.outputs)))
                outputs = rng.sample(pair.outputs, min(keep, len(pair.outputs)))
            if count % world == rank:
                yield outputs, pair.prompt or "", count / len(prompted)
            count += 1
