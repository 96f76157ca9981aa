"""Longest common subsequence of words, all words of one text at once as bits of one number (Crochemore et al. 2001)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


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
    full = (1 << number) - 1
    state = full
    for word in words:
        matches = places.get(word)
        if matches:
            both = state & matches
            state = ((state + both) | (state - both)) & full
    return number - state.bit_count()
