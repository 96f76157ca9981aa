"""Common runs of two streams: which parts of a prompt stand in an output, in linear time.

A run is a maximal common substring. It counts when it says more than chance would: among ``n`` x ``m`` pairs of places, runs of
about log2(n m) bits turn up in unrelated texts, so a run must carry ``MARGIN_BITS`` more. This is the rule that makes recovery
depend on what leaked and not on how long the output is; it works without word borders, so in Chinese or Thai too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from lm_eval_inversion.scoring.leakage.streams import character_bits

SEED_BITS = 13.0  # a place where no run of so many bits starts is skipped; below every threshold that matters
MARGIN_BITS = 5.0  # beyond chance; calibrated on unrelated texts, see docs/detector.md


@dataclass(frozen=True)
class Run:
    """A common run: ``length`` characters from ``prompt_start`` in the prompt and ``output_start`` in the output."""

    prompt_start: int
    output_start: int
    length: int


class PromptIndex:
    """Finds the runs of one prompt's stream in any output stream (a suffix automaton behind a filter of short seeds)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.seed = _seed_length(text)
        self.seeds = _codes(text, self.seed)
        self._next: list[dict[str, int]] = [{}]
        self._link, self._longest, self._first_end = [-1], [0], [-1]
        last = 0
        for end, character in enumerate(text):
            last = self._extend(last, character, end)

    def _extend(self, last: int, character: str, end: int) -> int:
        current = self._state(self._longest[last] + 1, {}, 0, end)
        place = last
        while place != -1 and character not in self._next[place]:
            self._next[place][character] = current
            place = self._link[place]
        if place == -1:
            return current
        target = self._next[place][character]
        if self._longest[place] + 1 == self._longest[target]:
            self._link[current] = target
            return current
        clone = self._state(self._longest[place] + 1, dict(self._next[target]), self._link[target], self._first_end[target])
        while place != -1 and self._next[place].get(character) == target:
            self._next[place][character] = clone
            place = self._link[place]
        self._link[target] = self._link[current] = clone
        return current

    def _state(self, longest: int, following: dict[str, int], link: int, end: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._longest.append(longest)
        self._first_end.append(end)
        return len(self._next) - 1

    def runs(self, output: str) -> list[Run]:
        """The maximal common runs that say more than chance would."""
        if len(output) < self.seed or len(self.text) < self.seed:
            # A prompt or output of a few letters: equal or nothing.
            return [Run(0, output.find(self.text), len(self.text))] if self.text and self.text in output else []
        hits = np.flatnonzero(np.isin(_codes(output, self.seed), self.seeds))
        if not hits.size:
            return []
        threshold = math.log2(len(output) * len(self.text)) + MARGIN_BITS
        found: list[Run] = []
        breaks = np.flatnonzero(np.diff(hits) > self.seed)
        starts = [int(hits[0]), *(int(hits[index + 1]) for index in breaks)]
        ends = [*(int(hits[index]) for index in breaks), int(hits[-1])]
        for start, end in zip(starts, ends):
            found += self._scan(output, start, min(len(output), end + self.seed), threshold)
        return found

    def _scan(self, output: str, start: int, end: int, threshold: float) -> list[Run]:
        found: list[Run] = []
        bits = [0.0, *accumulate(map(character_bits, output[start:end]))]
        state = length = 0
        for place in range(start, end + 1):
            before_state, before = state, length
            character = output[place] if place < end else None
            while state and character not in self._next[state]:
                state = self._link[state]
                length = self._longest[state]
            if character in self._next[state]:
                state, length = self._next[state][character], length + 1
            else:
                state = length = 0
            ended = length <= before and before >= self.seed  # the run could not go on
            if ended and (bits[place - start] - bits[place - start - before] >= threshold or before == len(self.text)):
                found.append(Run(self._first_end[before_state] - before + 1, place - before, before))
        return found


def covered(index: PromptIndex, runs: list[Run]) -> np.ndarray:
    """Which characters of the prompt lie in a run: (characters,) bool. A text that stands twice in the prompt counts twice."""
    mask = np.zeros(len(index.text), dtype=bool)
    for start, length in {(run.prompt_start, run.length) for run in runs}:
        piece = index.text[start : start + length]
        at = index.text.find(piece)
        while at >= 0:
            mask[at : at + length] = True
            at = index.text.find(piece, at + length)
    return mask


def _seed_length(text: str) -> int:
    mean_bits = sum(map(character_bits, text)) / max(1, len(text)) or 1.0
    return max(2, min(int(SEED_BITS / mean_bits), len(text)))


def _codes(text: str, length: int) -> np.ndarray:
    """A 64-bit code of every run of ``length`` characters: (characters - length + 1,)."""
    if len(text) < length:
        return np.zeros(0, dtype=np.uint64)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    size = len(points) - length + 1
    codes = np.zeros(size, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(length):
            codes = codes * np.uint64(0x100000001B3) + points[offset : offset + size]
    return codes


@lru_cache(maxsize=1024)
def index_of(text: str) -> PromptIndex:
    """The index of a prompt's stream, built once per prompt."""
    return PromptIndex(text)
