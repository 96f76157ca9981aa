"""Which words of a truth stand in a reconstruction, in the same order: for people to look at, not for scores.

Example: of "You are Mira, a baker." and "She is Mira the baker" the words "Mira" and "baker" are common.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lm_eval_inversion.characters import UNSPACED
from lm_eval_inversion.scoring.subsequence import common_subsequence

# The longest stretch of either text that is aligned, in words; the rest is shown unmarked. Far beyond prompts and reconstructions,
# it keeps a runaway answer cheap.
MAX_WORDS = 4_000

_WORD = re.compile(rf"(?=\w)[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+(?:['’](?:(?![{UNSPACED}])\w)+)*")


@dataclass(frozen=True)
class Piece:
    """A stretch of text; ``common`` when its words stand in the other text too."""

    text: str
    common: bool


@dataclass(frozen=True)
class Alignment:
    """Two texts cut into pieces; the pieces of a side joined are the text.

    Attributes:
        truth: pieces of the truth.
        reconstruction: pieces of the reconstruction.
        recovered: words of the truth that stand in the reconstruction in the same order.
        words: words of the truth, with those beyond ``MAX_WORDS``.
        reconstruction_words: words of the reconstruction, likewise.
    """

    truth: tuple[Piece, ...]
    reconstruction: tuple[Piece, ...]
    recovered: int
    words: int
    reconstruction_words: int


def align(truth: str, reconstruction: str) -> Alignment:
    """Align by the longest common subsequence of words; case and punctuation do not matter.

    Every word of ``reconstruction`` costs one operation on a number of as many bits as ``truth`` has words.
    """
    spans = [[match.span() for match in _WORD.finditer(text)] for text in (truth, reconstruction)]
    first, second = ([_key(text[start:end]) for start, end in found[:MAX_WORDS]] for text, found in zip((truth, reconstruction), spans))
    pairs = common_subsequence(first, second)
    sides = [
        _pieces(text, found, [pair[side] for pair in pairs], [pair[1 - side] for pair in pairs])
        for side, (text, found) in enumerate(zip((truth, reconstruction), spans))
    ]
    return Alignment(sides[0], sides[1], len(pairs), *map(len, spans))


def _key(word: str) -> str:
    return word.casefold().replace("’", "'")


def _pieces(text: str, spans: list[tuple[int, int]], places: list[int], partners: list[int]) -> tuple[Piece, ...]:
    """Cut a text at its common words; neighbours whose partners are neighbours too share one piece with what is between them."""
    runs: list[tuple[int, int]] = []
    for index, place in enumerate(places):
        start, end = spans[place]
        if index and place == places[index - 1] + 1 and partners[index] == partners[index - 1] + 1:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    pieces, position = [], 0
    for start, end in runs:
        if start > position:
            pieces.append(Piece(text[position:start], False))
        pieces.append(Piece(text[start:end], True))
        position = end
    if position < len(text):
        pieces.append(Piece(text[position:], False))
    return tuple(pieces)
