"""Benchmark prompts never enter training: the n-gram test."""

from __future__ import annotations

import re
from collections.abc import Iterable

NGRAM = 8  # words; stock phrases are shorter, a copied clause is longer


def word_ngrams(text: str, n: int = NGRAM) -> set[tuple[str, ...]]:
    """Runs of ``n`` words, case and punctuation ignored; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        return set()
    return {tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}


def overlapping(training: Iterable[str], benchmark: Iterable[str]) -> set[str]:
    """The training prompts that share a run of ``NGRAM`` words with a benchmark prompt."""
    known = set().union(*(word_ngrams(text) for text in benchmark))
    return {text for text in training if word_ngrams(text) & known}
