"""Benchmark prompts never enter training: the n-gram test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files

NGRAM = 8  # words; stock phrases are shorter, a copied clause is longer


def word_ngrams(text: str, n: int = NGRAM) -> set[tuple[str, ...]]:
    """Runs of ``n`` words, case and punctuation ignored; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        return set()
    return {tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}


def ngrams_of(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """The runs of all texts."""
    return set().union(*(word_ngrams(text) for text in texts))


def overlapping(training: Iterable[str], benchmark: Iterable[str]) -> set[str]:
    """The training prompts that share a run of ``NGRAM`` words with a benchmark prompt."""
    known = ngrams_of(benchmark)
    return {text for text in training if word_ngrams(text) & known}


def benchmark_splits() -> dict[str, list[str]]:
    """The texts of every split of every prompt set that ships with the package, by ``set/split``: none may enter training."""
    splits: dict[str, list[str]] = {}
    folder = files("lm_eval_inversion").joinpath("prompts", "data")
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".jsonl"):
            for line in entry.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                splits.setdefault(f"{entry.name.removesuffix('.jsonl')}/{row['split']}", []).append(row["text"])
    return splits
