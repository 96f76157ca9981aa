"""Text -> stream: the letters and digits of a text in one canonical form.

Case, white space, punctuation, separators between letters, zero-width characters, Unicode forms (full width, mathematical,
circled), look-alike letters of other scripts, accents and invisible tag characters all vanish here, so that none of them hides a
leak. Prompt and output go through the same function, whatever their language.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

# Cyrillic and Greek letters, small capitals and other signs that look like a Latin letter, after case folding.
_LOOKALIKES = str.maketrans({
    sign: letter
    for letter, signs in {
        "a": "аαɑᴀ", "b": "ʙьв", "c": "сᴄϲ", "d": "ԁᴅ", "e": "еєᴇ", "f": "ꜰ", "g": "ɡɢ", "h": "һнʜ", "i": "іιɪı", "j": "јᴊ",
        "k": "кκᴋ", "l": "ӏʟⅼℓ", "m": "мᴍ", "n": "ɴ", "o": "оοᴏ", "p": "рρᴘ", "q": "ԛ", "r": "гʀ", "s": "ѕꜱ", "t": "тτᴛ",
        "u": "υᴜ", "v": "νᴠ", "w": "ԝᴡ", "x": "хχ", "y": "уʏ", "z": "ᴢ",
    }.items()
    for sign in signs
})  # fmt: skip
INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad")  # characters that part letters and are not seen
TAG_CHARACTERS = range(0xE0020, 0xE007F)  # invisible copies of ASCII
_BITS_LATIN, _BITS_SYLLABLE, _BITS_IDEOGRAPH = 1.7, 3.5, 6.0  # what one more equal character says; calibrated, see docs/detector.md


def fold_character(character: str) -> str:
    """The canonical letters and digits of one character; "" for everything else."""
    if ord(character) in TAG_CHARACTERS:
        character = chr(ord(character) - 0xE0000)
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold()).translate(_LOOKALIKES)
    return "".join(part for part in folded if part.isalnum())


class _Folding(dict[int, str]):
    """A translation table that learns characters as they come: ``str.translate`` then runs at the speed of C."""

    def __missing__(self, point: int) -> str:
        self[point] = fold_character(chr(point))
        return self[point]


_FOLDING = _Folding()


def stream_of(text: str) -> str:
    """The canonical letters and digits of a text, in linear time."""
    return text.translate(_FOLDING)


def places_of(text: str) -> list[int]:
    """Per character of ``stream_of(text)``, its index in the text."""
    return [place for place, character in enumerate(text) for _ in _FOLDING[ord(character)]]


@lru_cache(maxsize=1 << 16)
def character_bits(character: str) -> float:
    """How many bits one equal character adds to a common run: an ideograph says more than a letter."""
    point = ord(character)
    if 0x3400 <= point <= 0x9FFF or 0xF900 <= point <= 0xFAFF or point >= 0x20000:
        return _BITS_IDEOGRAPH
    if 0x3040 <= point <= 0x30FF or 0xAC00 <= point <= 0xD7A3:
        return _BITS_SYLLABLE
    # Folding takes Korean syllables apart into two or three of these, which therefore count like letters.
    return _BITS_LATIN
