"""Words that stand in outputs oftener than they would anyway speak for prompts that hold them.

A small model that reads hundreds of tokens tells what they are about, and forgets the rare words among them: names, products, places.
Counting words forgets none. So an inverter may hold how many outputs of all kinds contain each word, and what that says of a prompt adds
to what its model says (``Inverter.word_evidence``): the likelihood ratio of naive Bayes, each word of the prompt for itself.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lm_eval_inversion.characters import words_of
from lm_eval_inversion.inverter.base import OutputSets, check_pairs, equal_outputs

# Of the outputs that would not hold a word anyway, the share that do because the prompt does. Between 0.005 and 0.02 it makes no difference
# (docs/LOG.md).
TOLD = 0.01
NEVER_COUNTED = 0.5  # outputs that a word without a count is taken to stand in
MOST_CHARACTERS, MOST_LETTERS = 200_000, 64  # read of a text, and of a word
KEPT_TEXTS, KEPT_CHARACTERS = 4096, 10_000  # words are kept of so many texts of at most this length: each prompt is also a decoy of others


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem import PorterStemmer

    return PorterStemmer()


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word.lower()))


def stems(text: str) -> frozenset[str]:
    """The words of a text by Porter's rules: what a prompt calls "repairs", outputs call "repairing"."""
    return _kept_stems(text) if len(text) <= KEPT_CHARACTERS else _stems(text)


def _stems(text: str) -> frozenset[str]:
    return frozenset(_stem(word[:MOST_LETTERS]) for word in words_of(text[:MOST_CHARACTERS]))


_kept_stems = lru_cache(maxsize=KEPT_TEXTS)(_stems)


@dataclass(frozen=True)
class OutputWords:
    """In how many outputs, of all kinds of models and prompts, each stem stands.

    Attributes:
        outputs: that were counted.
        counts: stem -> number of those, from 2 on.
    """

    outputs: int
    counts: Mapping[str, int]

    @classmethod
    def count(cls, outputs: Iterable[str]) -> OutputWords:
        """Count outputs. Stems of a single one are left out: most are slips, and they would be half of the file."""
        counts: Counter[str] = Counter()
        number = 0
        for output in outputs:
            counts.update(stems(output))
            number += 1
        return cls(number, {stem: count for stem, count in counts.items() if count > 1})

    @classmethod
    def read(cls, text: str) -> OutputWords:
        """What ``written`` gave.

        Raises:
            ValueError: it holds something else, or a count that cannot be.
        """
        try:
            raw = json.loads(text)
            outputs, counts = raw["outputs"], raw["counts"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"holds no counts of words ({type(error).__name__})") from error
        whole = isinstance(outputs, int) and isinstance(counts, dict) and all(type(count) is int for count in counts.values())
        if not whole or any(not 1 <= count <= outputs for count in counts.values()) or not 0 <= outputs < 1 << 53:
            raise ValueError("holds a count that is no whole number between 1 and its number of outputs")
        return cls(outputs, counts)

    def written(self) -> str:
        """As JSON; equal counts give equal texts."""
        return json.dumps({"outputs": self.outputs, "counts": dict(sorted(self.counts.items()))}, indent=0) + "\n"

    def evidence(self, outputs: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """How many nats likelier outputs are if they tell the words of a prompt, each in ``TOLD`` of them, than if they do not.

        Args:
            outputs: of one model under one prompt.
            prompts: that may have been it.
        """
        holding = Counter(stem for output in outputs for stem in stems(output))
        return [math.fsum(self._of_word(stem, holding[stem], len(outputs)) for stem in stems(prompt)) for prompt in prompts]

    def evidence_of_pairs(self, outputs: OutputSets, prompts: Sequence[str]) -> list[float]:
        """See ``Inverter.word_evidence``."""
        check_pairs(outputs, prompts)
        result = [0.0 for _ in prompts]
        for lines, indices in equal_outputs(outputs).items():
            for index, nats in zip(indices, self.evidence(lines, [prompts[index] for index in indices])):
                result[index] = nats
        return result

    def _of_word(self, stem: str, holding: int, outputs: int) -> float:
        anyway = (self.counts.get(stem, 0) + NEVER_COUNTED) / (self.outputs + 1)
        told = anyway + TOLD * (1 - anyway)
        # The second part is (1 - told) / (1 - anyway), whatever the word.
        return holding * math.log(told / anyway) + (outputs - holding) * math.log1p(-TOLD)
