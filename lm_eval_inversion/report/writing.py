"""Writing what the verbs make: one way for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_file(path: Path, text: str) -> None:
    """Write a file in UTF-8, its folder too; half characters of a model are written as escapes.

    Raises:
        ValueError: it cannot be written.
    """
    with _in_a_folder(path):
        path.write_bytes(text.encode("utf-8", "backslashreplace"))


def open_file(path: Path) -> IO[str]:
    """A new file in UTF-8, its folder too, for what is written bit by bit.

    Raises:
        ValueError: it cannot be written.
    """
    with _in_a_folder(path):
        return path.open("w", encoding="utf-8", newline="\n")


@contextmanager
def _in_a_folder(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); give a file in a folder that you may write to") from error
