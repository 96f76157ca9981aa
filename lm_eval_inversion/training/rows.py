"""Collected answers as rows of a file: written in the order of the plan, continued after a kill.

One JSON object a line::

    {"place": 4, "prompt": "Act as a lighthouse keeper.", "answers": [["weekend", "Ah, the weekend! ..."], ...], "model": "...",
     "temperatures": [0.31, ...], "max_tokens": [64, ...], "model_hash": "0123456789ab"}

``model_hash`` tells local models of one name apart (``training.collect.model_hash``); rows of endpoints and older rows have none.
``prompt`` is null for conversations without a system prompt; ``"secret": "user"`` says that it is a user's message; ``defence`` is there
when a line followed the prompt; ``missing`` lists queries that got no answer, each with the reason, and they are absent from ``answers``.
"""

from __future__ import annotations

import codecs
import json
import lzma
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval_inversion.training.asking import Place

if sys.platform != "win32":
    import fcntl


def read_pairs(path: Path) -> list[dict[str, Any]]:
    """Rows written so far, see ``numbered_rows``."""
    return [row for _, row in numbered_rows(path)]


def numbered_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and row of every line (of a ``.jsonl`` file, or a finished ``.jsonl.xz``); a last line cut off by a kill is dropped.

    Raises:
        ValueError: a line before the last is not JSON in UTF-8, the file is damaged, or it is a folder.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the .jsonl files in it")
    data = path.read_bytes()
    try:
        lines = (lzma.decompress(data) if path.suffix == ".xz" else data).removeprefix(codecs.BOM_UTF8).split(b"\n")
    except lzma.LZMAError as error:
        raise ValueError(f"{path} is not compressed as its name says, or damaged ({error}); get it again, or rename it") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            if number == len(lines):
                return
            raise ValueError(f"{path} line {number} is not JSON in UTF-8 ({error}); remove the line and start again") from error
        yield number, row


def repeated_place(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of a row that stands there twice, asked in the same way, as two collectors leave it that wrote one file at a time."""
    seen = set()
    for row in rows:
        asked = json.dumps({**row, "answers": [query for query, _ in row["answers"]]}, sort_keys=True)
        if "place" in row and asked in seen:
            return int(row["place"])
        seen.add(asked)
    return None


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other collectors away from a file, until the block or the process ends; Windows has no such lock, and nobody is kept away.

    Raises:
        ValueError: another collector writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        if sys.platform != "win32":
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"another collector writes {path}; wait until it has ended, or choose another --output") from error
            except OSError:  # some network file systems know no locks
                pass
        yield


def row_of(
    place: Place,
    model: str,
    answers: Sequence[str | None],
    reasons: Mapping[int, str] | None = None,
    model_hash: str | None = None,
) -> dict[str, Any]:
    """The row of one place.

    Args:
        place: what was asked.
        model: the answering model's name.
        answers: one per conversation; None where none arrived.
        reasons: index of a missing answer -> why it is missing.
        model_hash: which of the models of this name answered; None where that is not known.
    """
    came = [index for index, answer in enumerate(answers) if answer is not None]
    row: dict[str, Any] = {
        "place": place.number,
        "prompt": place.prompt,
        "answers": [[place.asked[index].query.id, _writable(answers[index] or "")] for index in came],
        "model": model,
        "temperatures": [place.asked[index].temperature for index in came],
        "max_tokens": [place.asked[index].max_tokens for index in came],
    }
    if model_hash:
        row["model_hash"] = model_hash
    if place.secret != "system":
        row["secret"] = place.secret
    if place.defence:
        row["defence"] = place.defence
    if len(came) < len(answers):
        row["missing"] = [
            [place.asked[index].query.id, _writable((reasons or {}).get(index, "no answer"))]
            for index in range(len(answers))
            if index not in came
        ]
    return row


def as_line(row: Mapping[str, Any]) -> str:
    """A row as it stands in the file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def resume(path: Path, places: Sequence[Place], model: str, step: int = 1, model_hash: str | None = None) -> int:
    """Cut a file to the rows that are whole, and say how many of the places are done.

    Args:
        path: need not exist; its folder is created.
        places: the plan of the run that goes on.
        model: its model, by the name that stands in rows.
        step: rows are kept in multiples of so many (the batch of a local model), unless all are there.
        model_hash: which of the models of that name, as of ``row_of``; compared where the row has one too.

    Raises:
        ValueError: the file was written with another plan, or by something else; it is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    *lines, rest = path.read_bytes().split(b"\n")
    for number, (line, place) in enumerate(zip(lines, places), 1):
        try:
            row = json.loads(line)
            same = (row["place"], row["prompt"], row.get("defence")) == (place.number, place.prompt, place.defence)
            same = same and row.get("secret", "system") == place.secret
            asked = {query for query, _ in [*row["answers"], *row.get("missing", [])]}
            same = same and asked == {asked.query.id for asked in place.asked} and row["model"] == model
            same = same and (model_hash is None or row.get("model_hash", model_hash) == model_hash)
            came = {query for query, _ in row["answers"]}
            planned = [asked for asked in place.asked if asked.query.id in came]
            same = same and row["temperatures"] == [asked.temperature for asked in planned]
            same = same and row["max_tokens"] == [asked.max_tokens for asked in planned]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(_foreign(path, number)) from error
        if not same and number == len(lines) > 1 and row["prompt"] is None and row["place"] == place.number:
            lines.pop()  # with it a shorter plan ended, see ``with_nulls``
            break
        if not same:
            raise ValueError(
                f"{path} line {number} was written with other arguments (model, prompts, seed, shard, queries, temperature or lengths); "
                "give the same ones to go on, or choose another --output"
            )
    if len(lines) > len(places):
        raise ValueError(f"{path} has {len(lines)} rows, the plan only {len(places)} places; choose another --output")
    # Behind the last line's end stands nothing, or what a kill left of the next row; anything else is somebody else's, and stays.
    if rest and not (len(lines) < len(places) and _begins_row(rest, places[len(lines)])):
        raise ValueError(_foreign(path, len(lines) + 1))
    done = len(lines)
    if done < len(places):
        done -= done % step
    with path.open("r+b") as stream:
        stream.truncate(sum(len(line) + 1 for line in lines[:done]))
    return done


def _foreign(path: Path, number: int) -> str:
    return f"{path} line {number} is no row of this command; choose another --output"


def _begins_row(part: bytes, place: Place) -> bool:
    """Whether the row of a place may have been cut off to this part."""
    beginning = as_line({"place": place.number, "prompt": place.prompt}).removesuffix("}\n").encode("utf-8", "replace")
    return part.startswith(beginning) or beginning.startswith(part)


def _writable(text: str) -> str:
    """A text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
