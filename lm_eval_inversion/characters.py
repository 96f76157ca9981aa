"""Texts that files and tokenizers can hold."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

# Ranges of a regular expression: scripts without spaces between words (Thai, Lao, Chinese, Japanese), where each character counts as one.
UNSPACED = "\u0e00-\u0eff\u3040-\u9fff\U00020000-\U0010ffff"
WRAPPING = " \t\r\n*_`>#\"'“”„‘«»"  # what a message may stand in: white space, signs of Markdown, quotation marks
_UNSPACED, _WORD = re.compile(f"[{UNSPACED}]"), re.compile(r"\w+")


def count_unspaced(text: str) -> int:
    """How many of its characters are of a script without spaces between words."""
    return len(_UNSPACED.findall(text))


def spaced(text: str) -> str:
    """The text with spaces around every character of a script without spaces between words; any other text as it is."""
    return _UNSPACED.sub(r" \g<0> ", text)


def words_of(text: str) -> list[str]:
    """Words in the order of the text, letters and digits; in scripts without spaces every character is one, whatever stands beside it."""
    return _WORD.findall(spaced(text))


def whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs joined where both are there, and replaced by U+FFFD where one stands alone.

    Chat servers send halves when they cut an emoji at the token limit; no tokenizer takes them, and one of them keeps a host from
    writing any of its results.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_utf8(path: Path, name: str) -> str:
    """The text of a file with "\\n" at the end of lines, whatever stood there; a byte order mark is left out.

    Args:
        name: what the error calls the file.

    Raises:
        ValueError: it is not UTF-8; the line is named.
    """
    try:
        return _plain_lines(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # ``error.object`` and not the file: places are counted behind the byte order mark.
        line = _plain_lines(error.object[: error.start].decode("utf-8")).count("\n") + 1
        wrong = f"byte {error.object[error.start]:#04x}"
        raise ValueError(f"{name} line {line}: the file is not UTF-8 ({wrong}); save it as UTF-8") from error


def _plain_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def holds_letters(text: str) -> bool:
    """Whether a text holds a letter or a digit; those in circles count."""
    return any(sign.isalnum() for sign in unicodedata.normalize("NFKC", text))
