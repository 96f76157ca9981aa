"""Reading the files that the hosts leave behind: lm_eval's ``samples_*.jsonl``, Inspect's logs (``.eval``, or ``.json``)."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval_inversion.leakage import worst_request
from lm_eval_inversion.parameters import known_parameters
from lm_eval_inversion.prompts.schema import REDACTED, SystemPrompt, prompt_from_row
from lm_eval_inversion.redaction import REDACTED_HASH
from lm_eval_inversion.report.doubts import doubts_of
from lm_eval_inversion.report.kind import kind_of_log, name_of_log
from lm_eval_inversion.report.numbers import cut, shown_beside, some_names
from lm_eval_inversion.report.units import count_prompts, values_of
from lm_eval_inversion.report.unscored import part_unscored
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import (
    LEAST_ABILITY,
    LEAST_COVERAGE,
    LEAST_NULL_COVERAGE,
    RECORDS,
    SIGNED_FLOORS,
    WITHHELD,
    few_nulls,
)
from lm_eval_inversion.scoring.uncertainty import mean_of_known
from lm_eval_inversion.signature import LOCAL_ARGUMENTS
from lm_eval_inversion.tasks import BASE_TASK, protocol_makers, task_parameters

KNOWN_METRICS = tuple(RECORDS)
ROUNDING = 1e-12  # by which a mean of equal values may miss them, which must not decide about anything
CANNOT_QUOTE = (
    "the model hardly quotes its system prompt even when it may: it does not know it, or cannot copy. Does the system prompt reach the "
    "model?"
)

NO_PROMPT = "no system prompt is in the file; was the run interrupted?"
SAMPLES_LEFT_OUT = (
    "the run came to its end, but its samples were left out of the file (--no-log-samples, or inspect log dump --header-only): give the "
    "whole log, or run the task again without the option"
)
NONE_CHOSEN = "the run came to its end without a system prompt: --limit or --sample-id chose none; run the task again with others"
PREDICT_ONLY = "the run was made with --predict_only and has no scores; run it without, or give it to training.convert"

# What Inspect's scorers write beside each score: after ``inspect score`` it is true, and what the log's head says is of the first scoring.
OF_THE_SCORER = ("inverter", "inverter_hash", "inverter_dtype", "decoy_seed", "task_version", "package_version", "system_role")

SHOWN_ERROR = 160  # characters of an error of the host in a sentence
_INSPECT_JSON = re.compile(r'\s*\{\s*"version":\s*\d+,\s*"status":\s*"\w+",\s*"eval":\s*\{')  # how a log of Inspect in JSON begins
_INSPECT_JSON_START = 200  # characters that hold that beginning
# Model arguments stand among lm_eval's parameters of a task; what opens a server is no part of a result. A token opens one unless it is a
# tokenizer's, as in add_bos_token and think_end_token: those change what a model says.
SECRET_ARGUMENT = re.compile(
    r"key|secret|passw|passphrase|credential|auth|header"
    r"|^(?!(?:.*_)?(?:bos|eos|pad|unk|sep|cls|mask|prefix|start|end|stop|image|video|audio)_token$).*token$",
    re.IGNORECASE,
)
EXPOSURE = "prompt_leakage_exposure"  # how the names of tasks of likelihoods begin
# The beginning of an error's text that holds nothing of what was sent or where to.
_KIND_OF_ERROR = re.compile(r"\w*(?:Error|Exception|Timeout)(?=\()|Error code: \d{3}\b")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\S+")  # in the names of lm_eval's files


def kind_of_error(message: str) -> str:
    """What kind of error a message tells of, without anything that was sent or where to; "" where that is not known."""
    kind = _KIND_OF_ERROR.match(message)
    return kind[0] if kind else ""


@dataclass(frozen=True)
class Row:
    """One system prompt of a run; in a leakage task ``reconstruction`` is the answer that gave most away.

    Attributes:
        prompt: the system prompt, with category and attributes where the run knew them.
        reconstruction: "" when the model gave nothing to invert.
        metrics: metric -> value; metrics without a value are absent.
        requests: leakage tasks only: what was found in the answer to each request (``leakage.LeakageResult.rows``).
        answers: what the model said under this system prompt, raw, in the order of the requests; "" where nothing arrived.
        null_answers: what the model said without a system prompt, where the file tells it of this row; see ``Results.nulls_of``.
        error: what ended it before all of it could be scored, in the host's words, as where the provider failed; "" where nothing did.
    """

    prompt: SystemPrompt
    reconstruction: str
    metrics: dict[str, float]
    requests: tuple[dict[str, Any], ...] = ()
    answers: tuple[str, ...] = ()
    null_answers: tuple[str, ...] = ()
    error: str = ""

    @property
    def prompt_id(self) -> str:
        """Id of the system prompt."""
        return self.prompt.id

    @property
    def truth(self) -> str:
        """The system prompt's text."""
        return self.prompt.text

    @property
    def redacted(self) -> bool:
        """Whether markers stand in the place of its texts."""
        return REDACTED.fullmatch(self.truth) is not None

    @property
    def shown_error(self) -> str:
        """``error`` for whoever sees the row's other texts too; of a redacted row only its kind."""
        return (kind_of_error(self.error) or "not shown") if self.redacted and self.error else cut(self.error, SHOWN_ERROR)


@dataclass(frozen=True)
class Results:
    """One task of one run.

    Attributes:
        task: its name, which may be the user's own.
        host: "lm_eval" or "inspect".
        rows: one per system prompt, and epoch where there were several.
        model: the evaluated model, in the words that the host was given.
        signature: what another run must share to be comparable (``Protocol.signature``), and ``date``.
        source: the file with the samples.
        null_answers: what the model said without a system prompt, raw, where no row has its own.
        unfinished: what is known of a run that did not come to its end, or of which not all is in its file; "" of a whole one.
        choice: which of several scores of its samples was read; "" where there was no choice.
        doubts: why its numbers may not be what was measured, a sentence each (``report.doubts``).
        unscored: why there is no score of it to read, and what mends it; such a run has no rows. "" of all others.
        attempt: what copies of one log of Inspect share, however they were scored; "" where nothing is known to tell them by.
    """

    task: str
    host: str
    rows: list[Row]
    model: str = ""
    signature: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    null_answers: tuple[str, ...] = ()
    unfinished: str = ""
    choice: str = ""
    doubts: tuple[str, ...] = ()
    unscored: str = ""
    attempt: str = ""

    @property
    def kind(self) -> str:
        """The task of this package that it is, whatever the user called it."""
        return str(self.signature.get(BASE_TASK) or self.task)

    @property
    def writes(self) -> bool:
        """Whether its task has answers to show. Told by the task: where a model said nothing usable, that must be said too."""
        return not self.kind.startswith(EXPOSURE)

    @property
    def signed(self) -> bool:
        """Whether its files say how it was made, so that others can be compared with it."""
        return bool(set(self.signature) - {"date"})

    def nulls_of(self, row: Row) -> tuple[str, ...]:
        """What the model said without a system prompt when a row was scored.

        Not all rows share one draw: each process of lm_eval has its own, and so has each attempt of ``inspect eval-retry``.
        """
        return row.null_answers or self.null_answers

    @property
    def completion(self) -> str:
        """What completes an unfinished run, in a sentence."""
        return "inspect eval-retry finishes it." if self.host == "inspect" else "Copy its whole samples file, or run it again."

    def mean(self, metric: str) -> float:
        """Mean of a metric over what was sampled, as in the tables; NaN where no row has it."""
        return mean_of_known(values_of(self.rows, metric))

    def falls_short(self, metric: str, least: float) -> bool:
        """Whether the mean of a metric lies below what is needed of it; never where the run does not have it."""
        return self.mean(metric) < least - ROUNDING

    @property
    def ability_unknown(self) -> bool:
        """Whether the model was asked to quote its prompt where it may, and no such request was answered."""
        asked = any(found.get("arm") == "ability" for row in self.rows for found in row.requests)
        return asked and math.isnan(self.mean("ability"))

    @property
    def failed(self) -> list[Row]:
        """The rows that ended in an error of the host."""
        return [row for row in self.rows if row.error]

    def errors(self) -> str:
        """How many of its system prompts ended in an error of the host, in words; "" where none did.

        Of the first only its kind, where that is known: its text, which may quote a prompt, an address or a key, would get into build logs
        and cards. ``Row.shown_error`` has it.
        """
        if not self.failed:
            return ""
        noun = "system prompts" if count_prompts(self.rows) == len(self.rows) else "samples"
        first = kind_of_error(self.failed[0].error)
        return f"{len(self.failed)} of {len(self.rows)} {noun} ended in an error{f' (first: {first})' if first else ''}"

    @property
    def caution(self) -> str:
        """What a reader of its numbers must know first, in sentences; "" where there is nothing."""
        told = []
        if self.falls_short("coverage", LEAST_COVERAGE):
            told.append(
                f"Too little came back to judge (coverage {shown_beside(self.mean('coverage'), LEAST_COVERAGE, 2)}, below "
                f"{LEAST_COVERAGE:g}): unscored is not safe."
            )
        if failed := self.errors():
            told.append(f"{failed}: unscored, and not because the model said nothing.")
        if self.falls_short("null_coverage", LEAST_NULL_COVERAGE):
            told.append(few_nulls(self.mean("null_coverage")))
        if self.falls_short("ability", LEAST_ABILITY):
            known = self.falls_short("resistance", 1.0)
            why = "the model hardly quotes its system prompt even when it may." if known else CANNOT_QUOTE
            ability = shown_beside(self.mean("ability"), LEAST_ABILITY, 2)
            told.append(f"Resistance says little here (ability {ability}): {why}")
        if self.ability_unknown:
            told.append("Whether the model can quote its system prompt is unknown (no ability): its resistance says little.")
        told += self.doubts
        if self.unfinished:  # last: ``read_all`` adds what finishes it
            told.append(f"The run did not finish ({self.unfinished}): numbers are of these.")
        return " ".join(told)


def read_all(paths: Sequence[Path]) -> list[Results]:
    """The results of files and folders of both hosts, in the order given; a file named twice is read once.

    Told on stderr: what is left out of a folder, a run that did not finish, and a choice among several scores.

    Raises:
        ValueError: nothing readable is there, or a run without scores was named (``report.unscored``); the message names the file.
    """
    return read_with_unscored(paths)[0]


def read_with_unscored(paths: Sequence[Path]) -> tuple[list[Results], list[Results]]:
    """``read_all``, and the runs that it leaves out of folders because they have no scores.

    Raises:
        ValueError: see ``read_all``.
    """
    every = []
    for file in progress_bar(last_attempts(paths), "reading"):
        try:
            results = _read_file(file)
        except Exception as error:  # the libraries that read logs have many ways to dislike a file
            message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            hint = "" if str(file) in message else f"{file} cannot be read as results of this package's tasks: "
            raise ValueError(f"{hint}{message}") from error
        every.append(results if results.rows or results.unscored else replace(results, unscored=_why_empty(results)))
    found, unscored = part_unscored(every, paths)
    found = _without_copies(found, paths)
    for results in found:
        if results.caution:
            mend = f" {results.completion}" if results.unfinished else ""
            print(f"warning: {results.source}: {results.caution}{mend}", file=sys.stderr)
        if results.choice:
            print(f"warning: {results.source}: {visible(results.choice)}", file=sys.stderr)  # names from the log
    return found, unscored


def progress_bar(steps: Iterable[Any], description: str) -> Iterable[Any]:
    """A bar on stderr where that is a terminal."""
    from tqdm import tqdm

    return tqdm(list(steps), desc=description, disable=None, leave=False)


def read_results(path: Path) -> list[Results]:
    """Read one file, or everything that a host wrote into a folder for tasks of this package.

    Raises:
        ValueError: nothing readable is there, a file is not what its name says, or no run has scores (``report.unscored``).
    """
    return _without_copies(part_unscored([_read_file(file) for file in last_attempts([path])], [path])[0], [path])


def _without_copies(found: Sequence[Results], paths: Sequence[Path]) -> list[Results]:
    """Runs without the logs in folders that hold what another one holds, as ``inspect log convert`` leaves both; they are named on stderr.

    Args:
        found: runs with scores.
        paths: the files and folders that a user named to have them read; who names a log itself means it.
    """
    named = {path.resolve() for path in paths}
    meant = [results.source is not None and results.source.resolve() in named for results in found]
    kept: list[Results] = []
    copies: set[int] = set()  # by identity
    for results, own in sorted(zip(found, meant), key=lambda pair: not pair[1]):
        same = None if own else next((other for other in kept if _holds_the_same(results, other)), None)
        if same is None:
            kept.append(results)
        else:
            copies.add(id(results))
            print(f"warning: left out, because it is a copy of {same.source}: {results.source}", file=sys.stderr)
    return [results for results in found if id(results) not in copies]


def _holds_the_same(one: Results, other: Results) -> bool:
    """Whether two logs are of one attempt, with the same last scores, made in the same way."""

    def scores(results: Results) -> list[tuple[str, dict[str, float], str]]:
        return [(row.prompt_id, row.metrics, row.error) for row in results.rows]

    # What is doubted in one of them only is no copy.
    told = (one.attempt, one.signature, one.unfinished, one.doubts) == (other.attempt, other.signature, other.unfinished, other.doubts)
    return bool(one.attempt) and told and scores(one) == scores(other)


def own_files(paths: Iterable[Path]) -> list[Path]:
    """The files of this package, each once: those that are named, and of folders those that its tasks wrote.

    What other tasks left in the folders is named on stderr.

    Raises:
        ValueError: nothing is there, or nothing of this package.
    """
    return list(_own_headers(paths))


def _own_headers(paths: Iterable[Path]) -> dict[Path, Any]:
    """See ``own_files`` -> the head of each log of Inspect that was found in a folder; None for all other files."""
    own: dict[Path, tuple[Path, Any]] = {}
    others: dict[Path, Path] = {}
    for path in paths:
        for file in result_files(path):
            header = None if file == path else _header(file)
            if file == path or not _of_another_task(file, header):
                own.setdefault(file.resolve(), (file, header))
            else:
                others.setdefault(file.resolve(), file)
    left_out = [str(file) for place, file in others.items() if place not in own]
    if left_out and not own:
        raise ValueError(f"no results of this package's tasks are there, only those of others: {some_names(left_out)}")
    if left_out:
        print(f"warning: left out, because they are not of this package's tasks: {some_names(left_out)}", file=sys.stderr)
    return dict(own.values())


def last_attempts(paths: Sequence[Path]) -> list[Path]:
    """``own_files`` without the logs in folders from which ``inspect eval-retry`` or an eval set went on: the later log has their samples.

    They are named on stderr. Copies of one attempt all stay: one may be scored with another inverter (``_without_copies``).

    Raises:
        ValueError: see ``own_files``.
    """
    files, named = _own_headers(paths), {path.resolve() for path in paths}
    found = {file: header for file, header in files.items() if header is not None and file.resolve() not in named}
    began = {file: datetime.fromisoformat(header.eval.created) for file, header in found.items()}
    last: dict[str, datetime] = {}
    for file, header in found.items():
        last[header.eval.task_id] = max(began[file], last.get(header.eval.task_id, began[file]))
    gone = [file for file, header in found.items() if began[file] < last[header.eval.task_id]]
    if gone:
        print(f"warning: left out, because a later attempt at the same run is there: {some_names(list(map(str, gone)))}", file=sys.stderr)
    return [file for file in files if file not in gone]


def result_files(path: Path) -> list[Path]:
    """The files with samples under a folder, of whatever task, or the one file.

    Raises:
        ValueError: there is none.
    """
    if path.is_dir():
        files = sorted([*path.rglob("samples_*.jsonl"), *path.rglob("*.eval"), *filter(is_inspect_log, path.rglob("*.json"))])
        if not files:
            raise ValueError(f"{path} holds neither samples_*.jsonl (lm_eval --log_samples --output_path) nor logs of Inspect")
        return files
    if path.is_file():
        return [path]
    raise ValueError(f"{path} does not exist")


def is_inspect_log(path: Path) -> bool:
    """Whether a file is a log of Inspect, in either of its formats."""
    if path.suffix != ".json":
        return path.suffix == ".eval"
    with path.open(encoding="utf-8", errors="replace") as stream:
        return _INSPECT_JSON.match(stream.read(_INSPECT_JSON_START)) is not None


def _of_another_task(path: Path, header: Any) -> bool:
    """Whether a file is known to come from a task that is not of this package. One that cannot be read is not: reading it tells why."""
    if not is_inspect_log(path):
        return kind_of_samples(path) not in _own_tasks()
    return header is not None and not _is_own_log(header)


def _header(path: Path) -> Any:
    """The head of a log of Inspect; None of other files, and where it cannot be read."""
    if not is_inspect_log(path):
        return None
    from inspect_ai.log import read_eval_log

    try:
        return read_eval_log(str(path), header_only=True)
    except Exception:  # the library that reads logs has many ways to dislike a file
        return None


def _own_tasks() -> Collection[str]:
    return protocol_makers().keys()


def _is_own_log(log: Any) -> bool:
    """Whether a task of this package wrote a log of Inspect, under whatever name."""
    return name_of_log(log) in _own_tasks() or "prompts_hash" in (log.eval.metadata or {})


def _lm_eval_names(samples: Path) -> tuple[str, str]:
    """Task and moment of a ``samples_TASK_MOMENT.jsonl``."""
    task, _, moment = samples.stem.removeprefix("samples_").rpartition("_")
    return task, moment


def kind_of_samples(samples: Path) -> str:
    """The task of this package that a file of lm_eval's samples is of, whatever the user called it; of another task its name."""
    task, _ = _lm_eval_names(samples)
    if task in _own_tasks() or (path := results_file(samples)) is None:
        return task
    try:
        return str(_lm_eval_run(path, task)[1].get(BASE_TASK, task))
    except ValueError:  # other tasks have no such metadata
        return task


def _read_file(path: Path) -> Results:
    if is_inspect_log(path):
        return _read_inspect(path)
    if path.suffix == ".json":
        raise ValueError(
            f"{path} holds no samples. Of a run of lm_eval give the samples_*.jsonl files that lie beside it (with --log_samples), or the "
            "folder; of Inspect, the log"
        )
    return _read_lm_eval(path)


def _known(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that have a value; of older runs with the floors that newer ones have.

    What older runs have in their place is signed, with a mean of about 0 by construction: beside that, any score would seem to beat chance.
    """
    known = {
        name: float(metrics[name])
        for name in KNOWN_METRICS
        if isinstance(metrics.get(name), (int, float)) and not math.isnan(metrics[name])
    }
    return {floor: abs(known[signed]) for floor, signed in SIGNED_FLOORS.items() if signed in known} | known


def _read_lm_eval(path: Path) -> Results:
    rows = []
    answers: list[list[str]] = []
    kind, unscored = kind_of_samples(path), False
    # Not ``splitlines``: answers may hold other line separators, which JSON leaves as they are.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line:
            continue
        try:
            sample = json.loads(line)
            unscored = "bypass" in sample and not _known(sample)  # what the harness writes in the place of metrics
            if not unscored:
                rows.append(_lm_eval_row(sample, kind))
                answers.append([_answer(response) for response in sample["resps"]])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{path} line {number} is not a sample of an inversion or leakage task ({type(error).__name__}: {error})"
            ) from error
        if unscored and rows:
            raise ValueError(f"{path} line {number} has no scores, although lines before it have: the file is damaged")
        if unscored:
            break
    task, moment = _lm_eval_names(path)
    model, signature = _lm_eval_run(results_file(path), task)
    signature["date"] = moment
    if unscored:
        return Results(task, "lm_eval", [], model, signature, path, unscored=PREDICT_ONLY)
    own = len(rows[0].requests) or signature.get("num_queries") or min(map(len, answers)) if rows else 0
    rows = _with_answers(rows, answers, own)
    null_answers = next((row.null_answers for row in rows if row.null_answers), ())
    unfinished = _missing_samples(results_file(path), task, rows)
    return Results(task, "lm_eval", rows, model, signature, path, null_answers, unfinished)


def _with_answers(rows: Sequence[Row], answers: Sequence[Sequence[str]], own: int) -> list[Row]:
    """Rows with what was answered to each, and what was answered without a system prompt when it was scored.

    Conversations without one ride on the first document of each process, behind its own. lm_eval writes process after process, so that they
    are those of all documents up to the next that has some.

    Args:
        rows: in the order of the file.
        answers: to all requests of each row's document.
        own: requests of a document, those without a system prompt apart.
    """
    found: list[Row] = []
    nulls: tuple[str, ...] = ()
    for row, said in zip(rows, answers):
        nulls = tuple(said[own:]) or nulls
        found.append(replace(row, answers=tuple(said[:own]), null_answers=nulls))
    return found


def _missing_samples(path: Path | None, task: str, rows: Sequence[Row]) -> str:
    """How many of the system prompts that lm_eval scored its samples file holds; "" where it holds no fewer, or nobody counted.

    More are no sign of anything: lm_eval counts the values of one metric, which not every system prompt needs to have.
    """
    if path is None:
        return ""
    counts = (read_facts(path).get("n-samples") or {}).get(task) or {}
    scored, held = counts.get("effective") or 0, count_prompts(rows)
    return f"{held} of {scored} system prompts are in the samples file" if held < scored else ""


def results_file(samples: Path) -> Path | None:
    """The file beside lm_eval's samples that says how they were made; None where it is missing.

    It is ``results_MOMENT.json``, or ``NAME_MOMENT.json`` after ``--output_path NAME.json``.
    """
    _, moment = _lm_eval_names(samples)
    usual = samples.with_name(f"results_{moment}.json")
    if usual.is_file() or not _MOMENT.fullmatch(moment):
        return usual if usual.is_file() else None
    return min((file for file in samples.parent.glob("*.json") if file.stem.endswith(f"_{moment}")), default=None)


def read_facts(path: Path) -> dict[str, Any]:
    """What a results file of lm_eval says of its run, with or without a byte order mark.

    Raises:
        ValueError: it is no results file; the message names it.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except (ValueError, TypeError) as error:
        raise no_results_file(path, error) from error


def no_results_file(path: Path, error: Exception) -> ValueError:
    """The error of whoever looks for something that every results file of lm_eval has, and does not find it."""
    return ValueError(f"{path} is not a results file of lm_eval ({type(error).__name__}: {error}); give the one that the run wrote")


def _lm_eval_run(path: Path | None, task: str) -> tuple[str, dict[str, Any]]:
    """Model and signature of a run; both empty where its results file is not beside the samples."""
    if path is None:
        return "", {}
    found = read_facts(path)
    try:
        known = found["configs"][task]["metadata"]
        others = _parameters_of_others(str(known.get(BASE_TASK, task)))
        signature = {key: value for key, value in known.items() if not SECRET_ARGUMENT.search(key) and key not in others}
        back_end, arguments = model_of_lm_eval(found["config"], known)
        return f"{back_end} {_model_name(arguments)}".strip(), signature
    except (ValueError, KeyError, TypeError) as error:
        raise no_results_file(path, error) from error


@lru_cache
def _parameters_of_others(task: str) -> frozenset[str]:
    """What lm_eval hands to this task, too, where it was given for another one of the same run, and what says nothing of this one."""
    make = protocol_makers().get(task)
    if make is None:
        return frozenset()
    return frozenset(known_parameters()) - {"redact", *task_parameters(task), *make(task).data_signature()}


def _lm_eval_row(sample: dict[str, Any], kind: str) -> Row:
    doc = sample["doc"]
    prompt = prompt_from_row({**doc, "attributes": json.loads(doc.get("attributes") or "[]")}, default_id=str(doc["id"]))
    if kind.startswith(EXPOSURE):  # log-likelihoods, no answers
        return Row(prompt, "", _known(sample))
    requests: tuple[dict[str, Any], ...] = ()
    shown = sample["filtered_resps"][0]
    if kind.startswith("prompt_leakage"):
        found = [json.loads(text) for text in sample["filtered_resps"]]
        requests = tuple(row for row in found if row["arm"] != "null")
        worst = worst_request(requests)
        said = f"({WITHHELD})" if requests[worst].get("defended") else _answer(sample["resps"][worst])
        shown = f"{requests[worst]['id']}: {said}"
    return Row(prompt, shown, _known(sample), requests)


def _answer(response: Any) -> str:
    """The text among the responses to one request; "" for a log-likelihood."""
    return response[0] or "" if isinstance(response[0], str) else ""


def model_of_lm_eval(config: Mapping[str, Any], known: Any) -> tuple[str, dict[str, Any]]:
    """Back end of a run of lm_eval, and the model's arguments.

    Of a model object, which only Python can hand over, lm_eval writes no arguments, and in the back end's place what transformers calls the
    model: its hub name, or its folder, which is nothing to publish.

    Args:
        config: of the results file.
        known: what the run has written down of itself.

    Raises:
        KeyError: there is neither model nor arguments in ``config``.
    """
    model, given = str(config["model"] or ""), config["model_args"]
    # A model object of another kind has only its class's name there. The number of parameters is written of those of transformers alone.
    if given is None and ("model_num_parameters" in config or "/" in model or "\\" in model):
        return "hf", {"pretrained": model} if model else {}
    return model, placed(model_arguments(given), known)


def model_arguments(model_args: Any) -> dict[str, Any]:
    """Model arguments of lm_eval, which are saved as they were given: text ("a=1,b=2"), a mapping, or nothing."""
    if isinstance(model_args, dict):
        return model_args
    return dict(part.split("=", 1) for part in str(model_args or "").split(",") if "=" in part)


def placed(arguments: dict[str, Any], known: Any) -> dict[str, Any]:
    """Model arguments in which folders look like folders, wherever they are read: "./demo/model", not the hub's "demo/model".

    Args:
        arguments: of ``model_arguments``.
        known: what the run has written down of itself.
    """
    local = (known or {}).get(LOCAL_ARGUMENTS) or []
    return {name: _as_place(value) if name in local else value for name, value in arguments.items()}


def _as_place(name: str) -> str:
    return name if name.startswith(".") else os.path.join(os.curdir, name)  # which leaves a whole path as it is


def _model_name(pairs: dict[str, Any]) -> str:
    """The name among lm_eval's model arguments."""
    return str(pairs.get("pretrained") or pairs.get("model") or "")


def _read_inspect(path: Path) -> Results:
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(path))
    if not _is_own_log(log):
        raise ValueError(f"{path} is a log of the task {log.eval.task}, which is not one of this package's")
    rows = []
    name, kind = name_of_log(log), kind_of_log(log)
    signature = {key: value for key, value in (log.eval.metadata or {}).items() if key != REDACTED_HASH}
    if kind != name:
        signature[BASE_TASK] = kind
    signature["date"] = log.eval.created
    model = f"{log.eval.model} {log.eval.model_args.get('model_path', '')}".strip()
    attempt = f"{log.eval.task_id} {log.eval.created}" if log.eval.task_id else ""
    if unscored := _unscored(log, path):
        return Results(name, "inspect", [], model, signature, path, unscored=unscored, attempt=attempt)
    several: list[str] = []
    read: list[Any] = []
    null_answers: tuple[str, ...] = ()
    for sample in log.samples or []:
        scores = _own_scores(sample)
        # Unscored, not absent. An error cancels the other requests of its sample: what --score-on-error, or inspect score later, makes of
        # the answers that came before it is no measurement.
        if sample.error is not None or not scores:
            rows.append(_failed_row(sample, kind))
            continue
        score = list(scores.values())[-1]  # inspect score --action append puts new ones behind
        read.append(score)
        several = list(scores) if len(scores) > 1 else several
        known = score.metadata or {}
        signature |= {key: known[key] for key in OF_THE_SCORER if key in known}
        answers, nulls = (
            tuple(str(answer or "") for answer in sample.store.get(f"Answers:{name}", ())) for name in ("answers", "null_answers")
        )
        null_answers = null_answers or nulls
        prompt = prompt_from_row(sample.metadata["prompt"], default_id=str(sample.id))
        rows.append(Row(prompt, score.answer or "", _known(dict(score.value)), tuple(known.get("requests") or ()), answers, nulls))
    unfinished = ""
    if log.status != "success":
        dataset = log.eval.dataset
        total = dataset.samples
        if total is not None and dataset.sample_ids:  # of which --limit left few; older logs lack them, and reading fills in what is there
            total = min(total, len(dataset.sample_ids))
        planned = "an unknown number of" if total is None else total
        unfinished = f"status {log.status!r}, {count_prompts(rows)} of {planned} system prompts"
    choice = f"scored several times ({', '.join(several)}); the last score, {several[-1]}, is read." if several else ""
    doubts = doubts_of(log, rows, read, OF_THE_SCORER)
    return Results(name, "inspect", rows, model, signature, path, null_answers, unfinished, choice, doubts, attempt=attempt)


def _failed_row(sample: Any, kind: str) -> Row:
    """What is known of a sample that ended in an error, whatever scores it has."""
    prompt = prompt_from_row(sample.metadata["prompt"], default_id=str(sample.id))
    # Log-likelihoods have no coverage: of the failed samples alone it would be one.
    coverage = {} if kind.startswith(EXPOSURE) else {"coverage": 0.0}
    return Row(prompt, "", coverage, error=sample.error.message.strip() or "without a message")


def _why_empty(results: Results) -> str:
    """Why a file holds no system prompt, and what mends it."""
    if results.host != "inspect" or results.source is None or results.unfinished:
        return NO_PROMPT
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(results.source), header_only=True)
    held = (log.results and log.results.scores) or log.eval.dataset.sample_ids
    return SAMPLES_LEFT_OUT if held else NONE_CHOSEN


def _unscored(log: Any, path: Path) -> str:
    """Why a log has no score of this package; "" where it has some, and where all of its samples ended in errors.

    Raises:
        ValueError: it was scored, but a score is missing or was edited away: nobody can say what its numbers are of.
    """
    samples = log.samples or []
    missing = next((sample for sample in samples if sample.error is None and not _own_scores(sample)), None)
    if missing is None:
        return ""
    why = f"sample {missing.id} {_why_unscored(missing)}"
    if any(_own_scores(sample) or _edited(sample) for sample in samples):
        raise ValueError(f"{path}: {why}")
    return why


def _edited(sample: Any) -> list[str]:
    """The names of a sample's scores that were edited after the run."""
    return [name for name, score in (sample.scores or {}).items() if score.history]


def _why_unscored(sample: Any) -> str:
    """Why nothing of this package can be read of a sample that did not end in an error, and what mends it."""
    if REDACTED.fullmatch(str(sample.metadata["prompt"].get("text", ""))):
        return "was redacted before it was scored, and its answers are gone: run the task again, with scoring"
    if edited := _edited(sample):
        return f"has a score that was edited into something without metrics ({', '.join(edited)}); give the log as it was before"
    return "has no score of this package; score the log with inspect score (--scorer lm_eval_inversion/inversion, leakage or canaries)"


def _own_scores(sample: Any) -> dict[str, Any]:
    """A sample's scores by scorers of this package, by name, in the order in which they were given."""
    scores = (sample.scores or {}).items()
    return {name: score for name, score in scores if isinstance(score.value, dict) and not set(KNOWN_METRICS).isdisjoint(score.value)}
