"""Writing what the verbs make: one way for all of them."""

from __future__ import annotations

from pathlib import Path


def write_file(path: Path, text: str) -> None:
    """Write a file in UTF-8, its folder too; half characters of a model are written as escapes.

    Raises:
        ValueError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); give a file in a folder that you may write to") from error
