"""Loading system prompts: the shipped sets by name, users' own files by path, datasets on the hub at a pinned revision."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from lm_eval_inversion.characters import holds_letters, read_utf8, whole_characters
from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.prompts.canaries import PLANTED
from lm_eval_inversion.prompts.schema import SPLITS, SystemPrompt, prompt_from_row, shown_names

PROMPT_SETS = {"v1": "v1.jsonl", "user-v1": "user_v1.jsonl"}  # system prompts; requests of users
SEPARATOR = "---"  # a line of a .txt file, between prompts that hold blank lines
SPLITS_TOGETHER = "+"  # between splits that are taken together
FILE_TYPES = (".txt", ".jsonl", ".csv")
HUB_PREFIX = "hub:"
HUB_FORM = "hub:org/name@REVISION[:split[:column]]"
HUB_COLUMNS = ("system_prompt", "text", "prompt", "instruction")  # the first that a dataset has, unless a column is named

_HUB_NAME = re.compile(r"hub:(?P<dataset>[\w.-]+/[\w.-]+)@(?P<revision>[^:@\s]+)(?::(?P<split>[^:\s]+)(?::(?P<column>[^:]+))?)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

logger = logging.getLogger(__name__)


def load_prompts(source: str | Path = "v1", split: str | None = "test") -> list[SystemPrompt]:
    """Load system prompts; those of a shipped set mixed, so that any first N are a fair sample of it.

    Args:
        source: the name of a shipped set ("v1", or "user-v1": requests of users); a path: ``.txt`` (prompts separated by blank
            lines), ``.jsonl`` (objects with a "text"), ``.csv`` (with a "text" column), in UTF-8; or a dataset on the hub,
            ``hub:org/name@REVISION[:split[:column]]``,
            REVISION being a full commit hash.
        split: "test", "dev", or "dev+test" or None for both, of a shipped set; files of your own and hub datasets are loaded whole, in
            their own order.

    Raises:
        FileNotFoundError: no shipped set and no file of this name.
        ValueError: no source is named; or the file has an empty, duplicate or malformed row; the message names file, line and mend. Or
            the dataset is not pinned, cannot be reached, or has no such split or column.
    """
    name = str(source)
    if not name.strip():
        raise ValueError(
            f"prompts={name!r} names no prompts; give a shipped set ({', '.join(PROMPT_SETS)}) or a file, or leave the parameter out"
        )
    if name in PROMPT_SETS:
        wanted = SPLITS if split is None else str(split).split(SPLITS_TOGETHER)
        if not set(wanted) <= set(SPLITS):
            raise ValueError(f"prompt set {name!r} has no split {split!r}; splits: test, dev, dev{SPLITS_TOGETHER}test")
        # By a hash of the id, because the file is sorted by category: its first prompts are all of one.
        return sorted((prompt for prompt in _shipped(name) if prompt.split in wanted), key=lambda prompt: content_hash(prompt.id))
    if name.startswith(HUB_PREFIX):
        return _hub_prompts(name)
    path = Path(name)
    if not is_file(path):
        raise FileNotFoundError(
            f"prompts={name!r} is neither a shipped set ({', '.join(PROMPT_SETS)}) nor a file; check the path ({path.absolute()})"
        )
    if path.suffix.lower() not in FILE_TYPES:
        raise ValueError(f"{path}: prompts are read from {', '.join(FILE_TYPES)}; rename or convert the file")
    text = read_utf8(path, str(path))
    rows: Iterable[tuple[int, Any]]
    if path.suffix.lower() == ".jsonl":
        rows = _jsonl_rows(str(path), text)
    elif path.suffix.lower() == ".csv":
        rows = _csv_rows(str(path), text)
    else:
        rows = _text_blocks(text)
    return _read_rows(str(path), rows)


@lru_cache
def _shipped(name: str) -> tuple[SystemPrompt, ...]:
    """All prompts of a shipped set in the order of its file."""
    text = files(__package__).joinpath("data", PROMPT_SETS[name]).read_text(encoding="utf-8")
    return tuple(_read_rows(f"prompt set {name}", _jsonl_rows(f"prompt set {name}", text)))


@lru_cache
def _shipped_places() -> dict[SystemPrompt, int]:
    """Place of every prompt of the shipped sets in its file."""
    return {prompt: place for name in PROMPT_SETS for place, prompt in enumerate(_shipped(name))}


def source_signature(source: str | Path, prompts: Sequence[SystemPrompt]) -> str:
    """Source and split of loaded prompts, as results name them: "v1/test"; "v1/dev+test" where they are of both splits."""
    return f"{source}/{SPLITS_TOGETHER.join(sorted({prompt.split for prompt in prompts}))}"


def is_file(path: Path) -> bool:
    """``path.is_file()``, also False for names that the file system cannot hold."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def prompts_hash(prompts: Sequence[SystemPrompt]) -> str:
    """Twelve hex digits over everything that a score depends on: ids, texts and attributes, in the order of their file."""
    places = _shipped_places()
    shipped = all(prompt in places for prompt in prompts)  # else a file of the user's own, whose order is kept
    in_order = sorted(prompts, key=places.__getitem__) if shipped else prompts
    return content_hash([prompt.to_dict() for prompt in in_order])


def _jsonl_rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{name} line {number}: not JSON ({error.msg} at column {error.colno}); write one object a line"
                ) from error
            except (ValueError, RecursionError) as error:  # a number too long, nesting too deep
                raise ValueError(f"{name} line {number}: not JSON that can be read ({error}); write one object a line") from error


def _csv_rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    records = _csv_records(name, text)
    header_line, columns = next(records, (1, []))
    header = [column.strip() for column in columns]
    if "text" not in header:
        raise ValueError(
            f"{name} line {header_line}: column 'text' is missing (found: {shown_names(header)}); add it, and "
            "separate columns by commas"
        )
    if repeated := sorted({column for column in header if column and header.count(column) > 1}):
        raise ValueError(f"{name} line {header_line}: column {shown_names(repeated[:1])!r} stands there twice; remove one of the two")
    for line, fields in records:
        if any(field.strip() for field in fields[len(header) :]):
            # Reading on would cut the prompt at its first comma.
            raise ValueError(
                f"{name} line {line}: {len(fields)} fields, and the header has {len(header)}; put texts with commas into double quotes"
            )
        row = dict(zip(header, [*fields, *[""] * (len(header) - len(fields))]))
        yield line, {key: value for key, value in row.items() if key and key != "attributes"}


def _csv_records(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the line that it starts in: fields in quotes may go over several lines."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the module's own limit is 128 KiB a field
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{name} line {line}: not CSV ({error}); close every double quote, and write a quote inside a text as two"
            ) from error
        if fields:
            yield line, fields


def _text_blocks(text: str) -> Iterable[tuple[int, Any]]:
    """Prompts between lines of ``SEPARATOR``, or between blank lines in a file that has none."""
    lines = text.split("\n")
    separated = any(line.strip() == SEPARATOR for line in lines)
    block: list[str] = []
    first = 1
    for number, line in enumerate([*lines, SEPARATOR if separated else ""], 1):
        if line.strip() != SEPARATOR if separated else line.strip():
            first = first if any(map(str.strip, block)) else number
            block.append(line)
        else:
            if any(map(str.strip, block)):
                yield first, {"text": "\n".join(block)}
            block = []


def _hub_prompts(name: str) -> list[SystemPrompt]:
    """The prompts of one column of a dataset; empty rows and repeats are left out with a warning, as nobody can mend a pinned dataset.

    Raises:
        ValueError: see ``load_prompts``.
    """
    match = _HUB_NAME.fullmatch(name)
    if not match or not _COMMIT.fullmatch(match["revision"]):
        found = f"{match['revision']!r} is not one" if match else "there is none, or the name has another form"
        raise ValueError(
            f"prompts={name!r}: a dataset on the hub needs the full commit hash of 40 hex digits ({found}), as in {HUB_FORM}: branches and "
            "tags move, and the same name would then stand for other prompts. The dataset's page shows it under Files, History"
        )
    rows = _hub_split(name, match["dataset"], match["revision"], match["split"])
    columns = list(rows.column_names)
    column = match["column"] or next((column for column in HUB_COLUMNS if column in columns), None)
    if column not in columns:
        wanted = f"no column {column!r}" if column else f"none of the columns {', '.join(HUB_COLUMNS)}"
        raise ValueError(f"prompts={name!r} has {wanted} (found: {', '.join(columns)}); name one: {HUB_FORM}")
    prompts: list[SystemPrompt] = []
    seen: set[str] = set()
    left_out: list[int] = []
    for number, value in enumerate(rows[column], 1):
        if value is not None and not isinstance(value, str):
            raise ValueError(
                f"prompts={name!r} row {number}: column {column!r} holds {type(value).__name__}, not text; name another column: {HUB_FORM}"
            )
        text = (value or "").strip()
        if not text or text in seen:
            left_out.append(number)
            continue
        seen.add(text)
        prompts.append(prompt_from_row({"text": text}, default_id=f"row-{number:04d}"))
    if not prompts:
        raise ValueError(f"prompts={name!r}: column {column!r} holds no prompts; name another column: {HUB_FORM}")
    if left_out:
        logger.warning(
            "%s: %d of %d rows are empty or repeat an earlier one and are left out (the first is row %d).",
            name, len(left_out), len(left_out) + len(prompts), left_out[0],
        )  # fmt: skip
    return prompts


def _check_new(prompt: SystemPrompt) -> None:
    """What a prompt must keep beside its schema to be measured; results of earlier versions may break it, and are read all the same.

    Raises:
        ValueError: a field cannot be written to a file, the text or an attribute could never be found, or the prompt would pass for one
            with planted secrets.
    """
    if not holds_letters(prompt.text):  # the leak detector would end the run over it
        raise ValueError(
            "'text' holds no letter or digit, so there is nothing to recover; a separator in a .txt file is a line of exactly "
            f"{SEPARATOR!r}"
        )
    if prompt.category == PLANTED:  # reports would count prompts of one carrier as one
        raise ValueError(
            f"prompt {prompt.id!r} has the category {PLANTED!r}, by which this package knows its planted secrets; give it another one"
        )
    for key in ("id", "category", "split"):
        if whole_characters(getattr(prompt, key)) != getattr(prompt, key):
            raise ValueError(f"{key!r} holds half a surrogate pair, which is no character; remove it")
    for number, attribute in enumerate(prompt.attributes, 1):
        named = [("'value'", attribute.value), ("'false_value'", attribute.false_value)]
        for key, value in (*named, *(("one of the 'aliases'", alias) for alias in attribute.aliases)):
            if not re.search(r"\w", value):
                raise ValueError(
                    f"{key} of attribute {number} holds no letter or digit, so nobody can be found to say it; name it in words"
                )


def _hub_split(name: str, dataset: str, revision: str, split: str | None) -> Any:
    """One split of a dataset: the named one, the only one, or "test"."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        found = datasets.load_dataset(dataset, split=split, revision=revision)
    except DatasetNotFoundError as error:
        raise ValueError(
            f"prompts={name!r}: the hub has no dataset {dataset!r} at this revision, or does not show it to you; check both, and log in "
            "(huggingface-cli login) if it is private or gated"
        ) from error
    except ConnectionError as error:
        raise ValueError(
            f"prompts={name!r}: the hub cannot be reached ({error}); go online once (and unset HF_HUB_OFFLINE) to fill the cache, or save "
            "the prompts as a .jsonl file and give its path"
        ) from error
    except Exception as error:  # the library raises many kinds, and none of them names the parameter
        raise ValueError(
            f"prompts={name!r} could not be loaded ({type(error).__name__}: {error}); check split and revision, or save the prompts as a "
            ".jsonl file and give its path"
        ) from error
    if not isinstance(found, Mapping):
        return found
    chosen = next(iter(found)) if len(found) == 1 else "test"
    if chosen not in found:
        raise ValueError(f"prompts={name!r} has the splits {', '.join(found)}; name one: {HUB_FORM}")
    return found[chosen]


def _read_rows(name: str, rows: Iterable[tuple[int, Any]]) -> list[SystemPrompt]:
    prompts: list[SystemPrompt] = []
    first_line: dict[str, int] = {}
    for number, row in rows:
        where = f"{name} line {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {type(row).__name__} instead of an object with a 'text'")
        try:
            prompt = prompt_from_row(row, default_id=f"own-{len(prompts) + 1:04d}")
            prompt.text.encode("utf-8")
            _check_new(prompt)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where}: 'text' holds half a surrogate pair (\\u{ord(error.object[error.start]):04x}), which is no character; write "
                "both halves, or the character itself"
            ) from error
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
