"""Longest common subsequence of words, all words of one text at once as bits of one number (Crochemore et al. 2001, Hyyrö 2004)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence


def word_places(words: Sequence[str]) -> dict[str, int]:
    """Word -> a number whose bits are its places."""
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    return places


def common_length(places: Mapping[str, int], number: int, words: Iterable[str]) -> int:
    """Length of the longest common subsequence of two texts.

    Args:
        places: ``word_places`` of one text.
        number: of its words.
        words: the other text.
    """
    (last,) = deque(_rows(places, number, words), maxlen=1)
    return number - last.bit_count()


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Places (in ``first``, in ``second``) of one longest common subsequence, increasing in both.

    The rows are kept to walk back along the match.
    """
    places = word_places(first)
    shared = [other for other, word in enumerate(second) if word in places]
    rows = list(_rows(places, len(first), second))
    pairs: list[tuple[int, int]] = []
    place, met = len(first) - 1, len(shared)  # so many shared words of the second text are still to be walked over
    while place >= 0 and met:
        if rows[met] >> place & 1:
            place -= 1
        elif not rows[met - 1] >> place & 1:
            met -= 1
        else:
            pairs.append((place, shared[met - 1]))
            place, met = place - 1, met - 1
    return pairs[::-1]


def _rows(places: Mapping[str, int], number: int, words: Iterable[str]) -> Iterator[int]:
    """A row of the table before any word, and one after every word that the first text holds, too; the other words change nothing.

    A zero at a place says that the subsequence up to this place of the first text is longer by one word than that up to the place before.
    """
    every = row = (1 << number) - 1
    yield row
    for matches in filter(None, map(places.get, words)):
        both = row & matches
        row = ((row + both) | (row - both)) & every
        yield row
