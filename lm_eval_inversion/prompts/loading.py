"""Loading system prompts: the shipped sets by name, users' own files by path."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.prompts.schema import SystemPrompt, prompt_from_row

PROMPT_SETS = ("v1",)
FILE_TYPES = (".txt", ".jsonl", ".csv")


def load_prompts(source: str | Path = "v1", split: str | None = "test") -> list[SystemPrompt]:
    """Load system prompts.

    Args:
        source: the name of a shipped set ("v1"), or a path: ``.txt`` (prompts separated by blank lines), ``.jsonl`` (objects with
            a "text"), ``.csv`` (with a "text" column). Files are UTF-8.
        split: "test", "dev" or None for both; files of your own have no split and are loaded whole.

    Raises:
        FileNotFoundError: no shipped set and no file of this name.
        ValueError: the file has an empty, duplicate or malformed row; the message names file, line and mend.
    """
    name = str(source)
    if name in PROMPT_SETS:
        text = files(__package__).joinpath("data", f"{name}.jsonl").read_text(encoding="utf-8")
        prompts = _read_rows(f"prompt set {name}", _jsonl_rows(f"prompt set {name}", text))
        if split is not None:
            prompts = [prompt for prompt in prompts if prompt.split == split]
            if not prompts:
                raise ValueError(f"prompt set {name!r} has no split {split!r}; splits: test, dev")
        return prompts
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"prompts={name!r} is neither a shipped set ({', '.join(PROMPT_SETS)}) nor a file; check the path ({path.absolute()})"
        )
    if path.suffix.lower() not in FILE_TYPES:
        raise ValueError(f"{path}: prompts are read from {', '.join(FILE_TYPES)}; rename or convert the file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path} line {line}: the file is not UTF-8 (byte {error.object[error.start]:#04x}); save it as UTF-8") from error
    rows: Iterable[tuple[int, Any]]
    if path.suffix.lower() == ".jsonl":
        rows = _jsonl_rows(str(path), text)
    elif path.suffix.lower() == ".csv":
        rows = _csv_rows(str(path), text)
    else:
        rows = _text_blocks(text)
    return _read_rows(str(path), rows)


def prompts_hash(prompts: Sequence[SystemPrompt]) -> str:
    """Twelve hex digits over everything that a score depends on: ids, texts and attributes, in order."""
    return content_hash([prompt.to_dict() for prompt in prompts])


def _jsonl_rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name} line {number}: not JSON ({error}); write one object a line") from error


def _csv_rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    if "text" not in (reader.fieldnames or []):
        raise ValueError(f"{name} line 1: column 'text' is missing (found: {', '.join(reader.fieldnames or []) or 'nothing'}); add it")
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key and key != "attributes"}


def _text_blocks(text: str) -> Iterable[tuple[int, Any]]:
    line = 1
    for index, part in enumerate(re.split(r"(\n[^\S\n]*\n\s*)", text.replace("\r\n", "\n"))):
        if index % 2 == 0 and part.strip():
            yield line, {"text": part}
        line += part.count("\n")


def _read_rows(name: str, rows: Iterable[tuple[int, Any]]) -> list[SystemPrompt]:
    prompts: list[SystemPrompt] = []
    first_line: dict[str, int] = {}
    for number, row in rows:
        where = f"{name} line {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {type(row).__name__} instead of an object with a 'text'")
        try:
            prompt = prompt_from_row(row, default_id=f"own-{len(prompts) + 1:04d}")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        for kind, key in (("text", f"text:{prompt.text}"), ("id", f"id:{prompt.id}")):
            if key in first_line:
                raise ValueError(f"{where}: same {kind} as line {first_line[key]}; remove one of the two rows")
            first_line[key] = number
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{name} holds no prompts; write at least one")
    return prompts
