"""Baselines: what is scored without any trained inverter."""

from __future__ import annotations

import json
import logging
import lzma
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np

from lm_eval_inversion.characters import words_of
from lm_eval_inversion.hashing import content_hash, file_sha256
from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS, Inverter, OutputSets
from lm_eval_inversion.inverter.words import MOST_CHARACTERS

logger = logging.getLogger(__name__)

CONSTANT_PREDICTION = "You are a helpful assistant."


@lru_cache(maxsize=1)
def training_prompts() -> tuple[str, ...]:
    """The distinct system prompts that the shipped checkpoint was trained on."""
    return read_training_prompts(files("lm_eval_inversion").joinpath("checkpoints", "training_prompts.jsonl.xz").read_bytes())


def read_training_prompts(packed: bytes) -> tuple[str, ...]:
    """What ``training.pack`` wrote of a checkpoint's training prompts."""
    # Not ``splitlines``: prompts may hold other line separators, which JSON leaves as they are.
    return tuple(json.loads(line) for line in lzma.decompress(packed).decode("utf-8").split("\n") if line)


class ConstantInverter(Inverter):
    """Writes the same prompt whatever it reads: the floor of text metrics."""

    name = "constant"
    hash = content_hash(CONSTANT_PREDICTION)

    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """See ``Inverter.invert``."""
        return [CONSTANT_PREDICTION for _ in outputs]


class CentralOutputInverter(Inverter):
    """Returns the output that is most like all others (largest mean cosine of sentence embeddings; "" when there is none)."""

    name = "central"
    hash = content_hash("central/all-MiniLM-L6-v2")

    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """See ``Inverter.invert``."""
        from lm_eval_inversion.scoring.embedding import embed

        found = []
        for lines in outputs:
            ordered = sorted(lines)  # equal means must not let the order of the outputs decide
            vectors = np.stack([embed(line) for line in ordered]) if ordered else np.zeros((0, 1))
            # The rounded mean: rounding errors must not decide either.
            found.append(ordered[int((vectors @ vectors.sum(0)).round(4).argmax())] if ordered else "")
        return found


class NearestPromptInverter(Inverter):
    """Returns the training prompt whose sentence embedding is nearest to the mean embedding of the outputs."""

    name = "nearest"

    def __init__(self) -> None:
        from lm_eval_inversion.scoring.embedding import embed_many

        self.prompts = sorted(training_prompts())
        self.hash = content_hash(["nearest/all-MiniLM-L6-v2", self.prompts])
        logger.warning(
            "inverter=%s first embeds %d training prompts, once in each process: a minute or two, longer on a busy machine",
            self.name, len(self.prompts),
        )  # fmt: skip
        self.vectors = embed_many(self.prompts)

    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """See ``Inverter.invert``."""
        from lm_eval_inversion.scoring.embedding import embed

        means = [np.mean([embed(line) for line in sorted(lines)], 0) if lines else self.vectors.mean(0) for lines in outputs]
        return [self.prompts[int((self.vectors @ mean).argmax())] for mean in means]


class TellingWordsInverter(Inverter):
    """Writes the words that speak most for a prompt which holds them, and identifies by words alone: what reading adds to counting."""

    name = "words"
    most = 24  # words written, about half of what a prompt has

    def __init__(self) -> None:
        from lm_eval_inversion.inverter.checkpoint import WORDS_FILE, read_words
        from lm_eval_inversion.inverter.registry import shipped_checkpoint  # late: it imports this module

        folder = shipped_checkpoint()
        self.words = read_words(folder)
        self.hash = content_hash([self.name, self.most, file_sha256(folder / WORDS_FILE)])

    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """See ``Inverter.invert``."""
        found = []
        for lines in outputs:
            known = sorted({word.lower() for line in lines for word in words_of(line[:MOST_CHARACTERS])})
            evidence = dict(zip(known, self.words.evidence(lines, known)))
            found.append(" ".join(sorted(known, key=lambda word: (-evidence[word], word))[: self.most]))
        return found

    def word_evidence(self, outputs: OutputSets, prompts: Sequence[str]) -> list[float]:
        """See ``Inverter.word_evidence``."""
        return self.words.evidence_of_pairs(outputs, prompts)


BASELINES: dict[str, type[Inverter]] = {
    "nearest": NearestPromptInverter,
    "central": CentralOutputInverter,
    "constant": ConstantInverter,
    "words": TellingWordsInverter,
}
