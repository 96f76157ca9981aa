"""Texts that files and tokenizers can hold."""

from __future__ import annotations


def whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs joined where both are there, and replaced by U+FFFD where one stands alone.

    Chat servers send halves when they cut an emoji at the token limit; no tokenizer takes them, and one of them keeps a host from
    writing any of its results.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
