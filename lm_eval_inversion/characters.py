"""Texts that files and tokenizers can hold."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def unspaced(character: str) -> bool:
    """Whether a character is of a script without spaces between words (Thai, Lao, Chinese, Japanese), where each counts as a word."""
    return 0x0E00 <= ord(character) <= 0x0EFF or 0x3040 <= ord(character) <= 0x9FFF or ord(character) >= 0x20000


def spaced(text: str) -> str:
    """The text with spaces around every character of a script without spaces between words; any other text as it is."""
    return text if text.isascii() else "".join(f" {one} " if unspaced(one) else one for one in text)


def words_of(text: str) -> list[str]:
    """Words in the order of the text, letters and digits; in scripts without spaces every character is one, whatever stands beside it."""
    return _WORD.findall(spaced(text))


def whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs joined where both are there, and replaced by U+FFFD where one stands alone.

    Chat servers send halves when they cut an emoji at the token limit; no tokenizer takes them, and one of them keeps a host from
    writing any of its results.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
