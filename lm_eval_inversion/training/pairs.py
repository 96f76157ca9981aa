"""Training pairs: from collected rows to (outputs, prompt) examples in a fixed order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.inverter.base import Secret
from lm_eval_inversion.outputs import MAX_OUTPUTS, split_list
from lm_eval_inversion.queries import load_query_set, query_set_names
from lm_eval_inversion.thinking import strip_thinking
from lm_eval_inversion.training.overlap import benchmark_splits, overlapping
from lm_eval_inversion.training.rows import numbered_rows, repeated_place

NO_OUTPUTS_SHARE, NULL_OUTPUTS_SHARE = 0.08, 0.08
HELD_OUT_EVERY, HELD_OUT_MOST = 50, 64  # one prompt in 50 is never trained on; at most 64 of them are evaluated


@dataclass(frozen=True)
class Pair:
    """A prompt and its outputs.

    Attributes:
        prompt: None for a model that ran without one.
        outputs: what the model answered.
        secret: whether it is a system prompt, or the message of a user that was answered.
    """

    prompt: str | None
    outputs: tuple[str, ...]
    secret: Secret = "system"


class Example(NamedTuple):
    """What one training example shows, how many epochs have passed before it, and whether its outputs tell of its prompt."""

    outputs: list[str]
    prompt: str
    epoch: float
    secret: Secret
    informed: bool


def load_pairs(paths: Sequence[Path]) -> list[Pair]:
    """Read collected pairs, answers split into outputs; prompts that overlap a benchmark prompt are left out.

    Raises:
        ValueError: a file is missing, holds no pairs, or something that is none.
    """
    pairs = _read(paths)
    bad = overlapping(
        dict.fromkeys(pair.prompt for pair in pairs if pair.prompt), [text for texts in benchmark_splits().values() for text in texts]
    )
    return [pair for pair in pairs if pair.prompt not in bad]


def load_dev_pairs(paths: Sequence[Path], training: Sequence[Pair]) -> list[Pair]:
    """Read pairs that are evaluated on while training: of the dev split, or of prompts that are no benchmark's.

    Raises:
        ValueError: a file holds no pairs, a prompt is of a test split, or one is trained on.
    """
    pairs = [pair for pair in _read(paths) if pair.prompt is not None and pair.outputs]
    if not pairs:
        raise ValueError(f"{', '.join(map(str, paths))}: no system prompt with answers to evaluate on")
    prompts = list(dict.fromkeys(pair.prompt or "" for pair in pairs))
    tests = {text for name, texts in benchmark_splits().items() if name.endswith("/test") for text in texts}
    if seen := next((prompt for prompt in prompts if prompt in tests), None):
        raise ValueError(f"--dev-pairs: {seen[:60]!r} is of a test split, which training must not look at; give answers under dev prompts")
    if trained := overlapping(prompts, dict.fromkeys(pair.prompt for pair in training if pair.prompt)):
        raise ValueError(
            f"--dev-pairs: {len(trained)} of {len(prompts)} prompts share a run of words with a training prompt, "
            f"such as {min(trained)[:60]!r}; take them out of one of the two"
        )
    return pairs


def _read(paths: Sequence[Path]) -> list[Pair]:
    sets = [load_query_set(name) for name in query_set_names()]
    list_queries = {query.id for queries in sets if queries.kind == "list" for query in queries.queries}
    found: dict[Path, list[Pair]] = {}
    for path in dict.fromkeys(paths):  # one that is named several times is read once
        pairs, rows = [], []
        for number, row in numbered_rows(path):
            if problem := _problem(row):
                raise ValueError(f"{path} line {number} is no pair: {problem}; give what training.collect wrote")
            outputs: list[str] = []
            for query, answer in row["answers"]:
                text = strip_thinking(answer)
                outputs += split_list(text)[0] if query in list_queries else [text]
            pairs.append(Pair(row["prompt"], tuple(dict.fromkeys(text for text in outputs if text)), row.get("secret", "system")))
            rows.append(row)
        if not rows:
            raise ValueError(f"{path} holds no pairs; collect some with python -m lm_eval_inversion.training.collect")
        if (place := repeated_place(rows)) is not None:
            raise ValueError(f"{path} holds place {place} twice: two collectors wrote it at a time; keep one row of each place")
        found[path] = pairs
    return [pair for path in paths for pair in found[path]]


def _problem(row: Any) -> str | None:
    """What a row lacks to be a pair; None where it is one."""
    if not isinstance(row, dict) or not {"prompt", "answers"} <= set(row):
        return "it lacks 'prompt' or 'answers'"
    if not isinstance(row["prompt"], str | None):
        return f"its prompt is {str(row['prompt'])[:40]!r}, and must be a text or null"
    answers = row["answers"]
    if not isinstance(answers, list) or not all(
        isinstance(answer, list) and len(answer) == 2 and all(isinstance(part, str) for part in answer) for answer in answers
    ):
        return "its answers must be a list of [query, text]"
    if (secret := row.get("secret", "system")) not in ("system", "user"):
        return f"its secret is {str(secret)[:40]!r}; known: system, user"
    return None


def held_out_pairs(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Split into training pairs and evaluation pairs that share no prompt.

    A prompt's own hash decides, so that it stays on its side when pairs are added or a run goes on from an earlier one, and which are
    evaluated, so that it is a fair sample of all files: one pair of each prompt.
    """

    def held_out(pair: Pair) -> bool:
        return pair.prompt is not None and int(content_hash(pair.prompt), 16) % HELD_OUT_EVERY == 0

    chosen = {content_hash(pair.prompt or ""): pair for pair in reversed(pairs) if held_out(pair)}
    return [pair for pair in pairs if not held_out(pair)], [chosen[key] for key in sorted(chosen)][:HELD_OUT_MOST]


def pairs_hash(pairs: Sequence[Pair]) -> str:
    """Of what is evaluated on: only nats of the same pairs compare."""
    return content_hash([[pair.prompt, list(pair.outputs), pair.secret] for pair in pairs])


def examples(
    pairs: Sequence[Pair], seed: int, rank: int, world: int, max_outputs: int = MAX_OUTPUTS
) -> Iterator[Example]:
    """Endless examples in an order that depends on ``seed`` only; each rank takes its share.

    From 0 to ``max_outputs`` outputs, a random subset in random order: none at all, those of a model without a system prompt, or the
    prompt's own, of which half of the time as many as there are.
    """
    null_outputs = [line for pair in pairs if pair.prompt is None for line in pair.outputs]
    prompted = [pair for pair in pairs if pair.prompt is not None]
    count = 0
    while True:
        epoch = count // len(prompted)
        rng = random.Random(f"{seed}/{epoch}")
        for pair in rng.sample(prompted, len(prompted)):
            draw = rng.random()
            informed = False
            if draw < NO_OUTPUTS_SHARE:
                outputs: list[str] = []
            elif draw < NO_OUTPUTS_SHARE + NULL_OUTPUTS_SHARE and null_outputs:
                outputs = rng.sample(null_outputs, min(len(null_outputs), rng.randint(1, max_outputs)))
            else:
                # Mostly all of them: more outputs are what the evaluation gives.
                most = min(len(pair.outputs), max_outputs)
                keep = most if rng.random() < 0.5 else rng.randint(1, max(1, most))
                outputs = rng.sample(pair.outputs, min(keep, most))
                informed = bool(outputs)
            if count % world == rank:
                yield Example(outputs, pair.prompt or "", count / len(prompted), pair.secret, informed)
            count += 1


@dataclass(frozen=True)
class Data:
    """What a run reads: pairs to train on, and to evaluate on pairs of the same files, of the dev split, or of both."""

    training: list[Pair]
    held_out: list[Pair]
    dev: list[Pair]


def read_data(pairs: Sequence[Path], dev_pairs: Sequence[Path] = ()) -> Data:
    """Read the files of ``--pairs`` and ``--dev-pairs``.

    Raises:
        ValueError: a file is missing, empty or damaged, ``--dev-pairs`` holds what is trained on, or see ``require_enough``.
    """
    training, held_out = held_out_pairs(load_pairs(pairs))
    data = Data(training, held_out, load_dev_pairs(dev_pairs, training) if dev_pairs else [])
    require_enough(data)
    return data


def require_enough(data: Data) -> None:
    """Check that there is something to train on and something to evaluate on.

    Raises:
        ValueError: one is missing.
    """
    told = f"--pairs: {len(data.training)} pairs to train on and {len(data.held_out)} held out"
    if not any(pair.prompt for pair in data.training):
        raise ValueError(f"{told}, and none of the former has a prompt; collect under more prompts")
    if not data.held_out and not data.dev:
        raise ValueError(
            f"{told}; about one prompt in {HELD_OUT_EVERY} is held out, so collect under more prompts, or give answers under other prompts "
            "as --dev-pairs to evaluate on"
        )


def pairs_summary(data: Data) -> str:
    """What is trained on, in its order."""
    return f"{len(data.training)} pairs with hash {pairs_hash(data.training)}"
