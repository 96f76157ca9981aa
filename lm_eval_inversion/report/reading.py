"""Reading the files that the hosts leave behind: lm_eval's ``samples_*.jsonl``, Inspect's ``.eval`` logs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lm_eval_inversion.leakage import worst_request
from lm_eval_inversion.prompts.schema import REDACTED, SystemPrompt, prompt_from_row
from lm_eval_inversion.scoring.metrics import CANARY_HIGHER_IS_BETTER, EXPOSURE_HIGHER_IS_BETTER, LEAKAGE_HIGHER_IS_BETTER, METRICS

KNOWN_METRICS = tuple(dict.fromkeys((*METRICS, *LEAKAGE_HIGHER_IS_BETTER, *CANARY_HIGHER_IS_BETTER, *EXPOSURE_HIGHER_IS_BETTER)))

# What Inspect's scorers write beside each score: after ``inspect score`` it is true, and what the log's head says is of the first scoring.
OF_THE_SCORER = ("inverter", "inverter_hash", "inverter_dtype", "decoy_seed", "task_version", "package_version", "system_role")


@dataclass(frozen=True)
class Row:
    """One system prompt of a run; in a leakage task ``reconstruction`` is the answer that gave most away.

    Attributes:
        prompt: the system prompt, with category and attributes where the run knew them.
        reconstruction: "" when the model gave nothing to invert.
        metrics: metric -> value; metrics without a value are absent.
        requests: leakage tasks only: what was found in the answer to each request (``leakage.LeakageResult.rows``).
        answers: what the model said under this system prompt, raw, in the order of the requests; "" where nothing arrived.
    """

    prompt: SystemPrompt
    reconstruction: str
    metrics: dict[str, float]
    requests: tuple[dict[str, Any], ...] = ()
    answers: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class Results:
    """One task of one run.

    Attributes:
        task: its name.
        host: "lm_eval" or "inspect".
        rows: one per system prompt.
        model: the evaluated model, in the words that the host was given.
        signature: what another run must share to be comparable (``Protocol.signature``), and ``date``.
        source: the file with the samples.
        null_answers: what the model said without a system prompt, raw.
        unfinished: what is known of a run that did not come to its end; "" of one that did.
    """

    task: str
    host: str
    rows: list[Row]
    model: str = ""
    signature: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    null_answers: tuple[str, ...] = ()
    unfinished: str = ""

    @property
    def signed(self) -> bool:
        """Whether its files say how it was made, so that others can be compared with it."""
        return bool(set(self.signature) - {"date"})

    @property
    def caution(self) -> str:
        """What a reader of its numbers must know first, in a sentence; "" where there is nothing."""
        return f"The run did not finish ({self.unfinished}): numbers are of these." if self.unfinished else ""


def read_all(paths: Sequence[Path]) -> list[Results]:
    """The results of files and folders of both hosts, in the order given; a file named twice is read once.

    A run that did not finish is told of on stderr.

    Raises:
        ValueError: nothing readable is there; the message names the file.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        for file in result_files(path):
            files.setdefault(file.resolve(), file)
    found = []
    for file in progress_bar(files.values(), "reading"):
        try:
            found += read_results(file)
        except Exception as error:  # the libraries that read logs have many ways to dislike a file
            message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            hint = "" if str(file) in message else f"{file} cannot be read as results of this package's tasks: "
            raise ValueError(f"{hint}{message}") from error
    empty = [str(results.source) for results in found if not results.rows]
    if empty:
        raise ValueError(f"{', '.join(empty)}: no system prompt is in the file; was the run interrupted?")
    for results in found:
        if results.caution:
            print(f"warning: {results.source}: {results.caution} inspect eval-retry finishes it.", file=sys.stderr)
    return found


def progress_bar(steps: Iterable[Any], description: str) -> Iterable[Any]:
    """A bar on stderr where that is a terminal."""
    from tqdm import tqdm

    return tqdm(list(steps), desc=description, disable=None, leave=False)


def read_results(path: Path) -> list[Results]:
    """Read one file, or everything that a host wrote into a folder.

    Raises:
        ValueError: nothing readable is there, or a file is not what its name says.
    """
    return [_read_inspect(file) if file.suffix == ".eval" else _read_lm_eval(file) for file in result_files(path)]


def result_files(path: Path) -> list[Path]:
    """The files with samples under a folder, or the one file.

    Raises:
        ValueError: there is none.
    """
    if path.is_dir():
        files = sorted([*path.rglob("samples_*.jsonl"), *path.rglob("*.eval")])
        if not files:
            raise ValueError(f"{path} holds neither samples_*.jsonl (lm_eval --log_samples --output_path) nor *.eval files (Inspect)")
        return files
    if path.is_file():
        return [path]
    raise ValueError(f"{path} does not exist")


def _known(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(metrics[name])
        for name in KNOWN_METRICS
        if isinstance(metrics.get(name), (int, float)) and not math.isnan(metrics[name])
    }


def _read_lm_eval(path: Path) -> Results:
    rows = []
    answers: list[list[str]] = []
    # Not ``splitlines``: answers may hold other line separators, which JSON leaves as they are.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            sample = json.loads(line)
            rows.append(_lm_eval_row(sample, path.name))
            answers.append([_answer(response) for response in sample["resps"]])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{path} line {number} is not a sample of an inversion or leakage task ({type(error).__name__}: {error})"
            ) from error
    task, _, moment = path.stem.removeprefix("samples_").rpartition("_")
    model, signature = _lm_eval_run(path.with_name(f"results_{moment}.json"), task)
    # The conversations without a system prompt ride on the first document, behind its own.
    own = len(rows[0].requests) or signature.get("num_queries") or min(map(len, answers)) if rows else 0
    rows = [replace(row, answers=tuple(found[:own])) for row, found in zip(rows, answers)]
    null_answers = tuple(answers[0][own:]) if answers else ()
    return Results(task, "lm_eval", rows, model, {**signature, "date": moment}, path, null_answers)


def _lm_eval_run(path: Path, task: str) -> tuple[str, dict[str, Any]]:
    """Model and signature of a run; both empty where its results file is not beside the samples."""
    if not path.is_file():
        return "", {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"{found['config']['model']} {_model_name(found['config']['model_args'])}".strip(), dict(found["configs"][task]["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a results file of lm_eval ({type(error).__name__}: {error})") from error


def _lm_eval_row(sample: dict[str, Any], name: str) -> Row:
    doc = sample["doc"]
    prompt = prompt_from_row({**doc, "attributes": json.loads(doc.get("attributes") or "[]")}, default_id=str(doc["id"]))
    if name.startswith("samples_prompt_leakage_exposure"):  # log-likelihoods, no answers
        return Row(prompt, "", _known(sample))
    requests: tuple[dict[str, Any], ...] = ()
    shown = sample["filtered_resps"][0]
    if name.startswith("samples_prompt_leakage"):
        found = [json.loads(text) for text in sample["filtered_resps"]]
        requests = tuple(row for row in found if row["arm"] != "null")
        worst = worst_request(requests)
        said = "(withheld by the defence)" if requests[worst].get("defended") else _answer(sample["resps"][worst])
        shown = f"{requests[worst]['id']}: {said}"
    return Row(prompt, shown, _known(sample), requests)


def _answer(response: Any) -> str:
    """The text among the responses to one request; "" for a log-likelihood."""
    return response[0] or "" if isinstance(response[0], str) else ""


def model_arguments(model_args: Any) -> dict[str, Any]:
    """Model arguments of lm_eval, which are saved as they were given: text ("a=1,b=2"), a mapping, or nothing."""
    if isinstance(model_args, dict):
        return model_args
    return dict(part.split("=", 1) for part in str(model_args or "").split(",") if "=" in part)


def _model_name(model_args: Any) -> str:
    """The name among lm_eval's model arguments."""
    pairs = model_arguments(model_args)
    return str(pairs.get("pretrained") or pairs.get("model") or "")


def _read_inspect(path: Path) -> Results:
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(path))
    rows = []
    signature = dict(log.eval.metadata or {})
    null_answers: tuple[str, ...] = ()
    for sample in log.samples or []:
        score = next(iter((sample.scores or {}).values()), None)
        if score is None and sample.error is not None:  # unscored, not absent
            rows.append(Row(prompt_from_row(sample.metadata["prompt"], default_id=str(sample.id)), "", {"coverage": 0.0}))
            continue
        if score is None or not isinstance(score.value, dict):
            raise ValueError(f"{path}: sample {sample.id} has no score of this package; score the log with inspect score")
        known = score.metadata or {}
        signature |= {key: known[key] for key in OF_THE_SCORER if key in known}
        answers = tuple(str(answer or "") for answer in sample.store.get("Answers:answers", ()))
        null_answers = null_answers or tuple(str(answer or "") for answer in sample.store.get("Answers:null_answers", ()))
        prompt = prompt_from_row(sample.metadata["prompt"], default_id=str(sample.id))
        rows.append(Row(prompt, score.answer or "", _known(dict(score.value)), tuple(known.get("requests") or ()), answers))
    arguments = log.eval.model_args.get("model_path", "")
    model = f"{log.eval.model} {arguments}".strip()
    unfinished = ""
    if log.status != "success":
        planned = log.eval.dataset.samples
        unfinished = f"status {log.status!r}, {len(rows)} of {planned if planned is not None else 'an unknown number of'} system prompts"
    return Results(
        log.eval.task.rpartition("/")[2], "inspect", rows, model, {**signature, "date": log.eval.created}, path, null_answers, unfinished
    )  # fmt: skip
