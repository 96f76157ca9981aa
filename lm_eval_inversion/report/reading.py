"""Reading the files that the hosts leave behind: lm_eval's ``samples_*.jsonl``, Inspect's ``.eval`` logs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_inversion.scoring.metrics import LEAKAGE_HIGHER_IS_BETTER, METRICS

KNOWN_METRICS = tuple(dict.fromkeys((*METRICS, *LEAKAGE_HIGHER_IS_BETTER)))


@dataclass(frozen=True)
class Row:
    """One system prompt of a run; in a leakage task ``reconstruction`` is the answer that gave most away.

    Attributes:
        prompt_id: of the system prompt.
        truth: the system prompt.
        reconstruction: "" when the model gave nothing to invert.
        metrics: metric -> value; metrics without a value are absent.
        requests: leakage tasks only: what was found in the answer to each request (``leakage.LeakageResult.rows``).
    """

    prompt_id: str
    truth: str
    reconstruction: str
    metrics: dict[str, float]
    requests: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Results:
    """One task of one run."""

    task: str
    host: str
    rows: list[Row]


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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            sample = json.loads(line)
            shown = sample["filtered_resps"][0]
            requests: tuple[dict[str, Any], ...] = ()
            if path.name.startswith("samples_prompt_leakage"):
                found = [json.loads(text) for text in sample["filtered_resps"]]
                requests = tuple(row for row in found if row["arm"] != "null")
            if requests:
                worst = max(range(len(requests)), key=lambda place: (requests[place]["arm"] == "attack", requests[place]["recovery"]))
                shown = f"{requests[worst]['id']}: {sample['resps'][worst][0]}"
            rows.append(Row(sample["doc"]["id"], sample["target"], shown, _known(sample), requests))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{path} line {number} is not a sample of an inversion or leakage task ({type(error).__name__}: {error})"
            ) from error
    return Results(path.stem.removeprefix("samples_").rpartition("_")[0], "lm_eval", rows)


def _read_inspect(path: Path) -> Results:
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(path))
    rows = []
    for sample in log.samples or []:
        score = next(iter((sample.scores or {}).values()), None)
        if score is None or not isinstance(score.value, dict):
            raise ValueError(f"{path}: sample {sample.id} has no score of this package; score the log with inspect score")
        requests = tuple((score.metadata or {}).get("requests") or ())
        rows.append(Row(str(sample.id), str(sample.metadata["prompt"]["text"]), score.answer or "", _known(dict(score.value)), requests))
    return Results(log.eval.task.rpartition("/")[2], "inspect", rows)
