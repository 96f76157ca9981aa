"""Markdown tables: metrics with intervals, truths beside reconstructions."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from statistics import fmean

from lm_eval_inversion.prompts.canaries import KINDS
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.uncertainty import Estimate, estimate, wilson

_PLANTING = re.compile(r"(?:-\d+)?/(?:plain|secrecy)$")
LEVEL = 0.95  # of intervals, unless another is asked for

# One yes or no per system prompt: a bootstrap of nothing but zeros would claim certainty, Wilson's interval does not.
PER_PROMPT_SHARES = (
    "resistance", "asr_union", "asr_union_null", "asr_union_swap", "canary_any", *(f"canary_extracted_{kind}" for kind in KINDS),
    "top1_asked", "top1_ordinary", "identification_top1", "identification_top1_null", "exact_match",
)  # fmt: skip


def values_of(rows: Iterable[Row], metric: str) -> list[float]:
    """A metric of some system prompts; NaN where a prompt has no value."""
    units: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        units.setdefault(_unit(row), []).append(row.metrics.get(metric, math.nan))
    known = [[value for value in values if not math.isnan(value)] for values in units.values()]
    return [fmean(values) if values else math.nan for values in known]


def _unit(row: Row) -> tuple[str, str]:
    """What was sampled: a prompt, whatever its epochs; of planted secrets the carrier, whatever its draws and its secrecy line."""
    if row.prompt.category == "canary":
        return _PLANTING.sub("", row.prompt_id), ""
    return row.prompt_id, row.truth


def metric_estimate(metric: str, values: Iterable[float], level: float = LEVEL) -> Estimate:
    """Mean and interval of a metric over system prompts, the one rule for table, page, export and gate.

    Args:
        metric: its name; ``PER_PROMPT_SHARES`` have Wilson's interval, all others a bootstrap.
        values: one per system prompt, NaN where it has none.
        level: of the interval.
    """
    found = bootstrap(tuple(values), level)
    if found.number and metric in PER_PROMPT_SHARES:
        # A mean of ones may exceed 1 by a rounding error.
        low, high = wilson(min(found.number, found.mean * found.number), found.number, level)
        return replace(found, low=low, high=high)
    return found


@lru_cache(maxsize=256)
def bootstrap(values: tuple[float, ...], level: float = LEVEL) -> Estimate:
    """``estimate``, remembered: a page asks for a headline in several places, and a union curve has long level stretches."""
    return estimate(values, level=level)


def metrics_table(results: Results) -> str:
    """Mean and 95 % interval over system prompts of every metric, as a Markdown table."""
    lines = ["| metric | mean | 95 % interval | prompts |", "|---|---:|---:|---:|"]
    for metric in KNOWN_METRICS:
        found = metric_estimate(metric, values_of(results.rows, metric))
        if found.number:
            interval = f"{found.low:.3f} to {found.high:.3f}" if found.number > 1 or metric in PER_PROMPT_SHARES else "–"
            lines.append(f"| {metric} | {found.mean:.3f} | {interval} | {found.number} |")
    return "\n".join(lines)


def attacks_table(results: Results) -> str:
    """Per attack, in the frozen order: success rate over system prompts with Wilson interval, union with all attacks before, recovery."""
    attacks = list(
        dict.fromkeys(row["attack"] for found in results.rows for row in found.requests if row["arm"] == "attack" and row["last"])
    )
    lines = ["| k | attack | ASR | 95 % interval | union ASR@k | recovery | decoders |", "|---:|---|---:|---:|---:|---:|---|"]
    fallen: set[str] = set()
    prompts = len({found.prompt_id for found in results.rows})
    for number, attack in enumerate(attacks, 1):
        answered = [
            (found.prompt_id, row)
            for found in results.rows
            for row in found.requests
            if row["attack"] == attack and row["last"] and row["state"] == "answered"
        ]
        hits = [(prompt, row) for prompt, row in answered if row["leaked"]]
        fallen |= {prompt for prompt, _ in hits}
        if not answered:
            lines.append(f"| {number} | {attack} | – | – | {len(fallen) / prompts:.3f} | – | no answer |")
            continue
        low, high = wilson(len(hits), len(answered))
        recovery = sum(row["recovery"] for _, row in answered) / len(answered)
        decoders = ", ".join(sorted({str(row["decoder"]) for _, row in hits}))
        lines.append(
            f"| {number} | {attack} | {len(hits) / len(answered):.3f} | {low:.3f} to {high:.3f} | {len(fallen) / prompts:.3f} "
            f"| {recovery:.3f} | {decoders} |"
        )
    return "\n".join(lines)


def examples_table(results: Results, number: int, characters: int = 300) -> str:
    """Truths beside reconstructions of ``number`` prompts, evenly spread over the run, cut to ``characters``; "" where none are made."""
    if not any(row.reconstruction or any(row.answers) for row in results.rows):
        return ""
    step = max(1, len(results.rows) // max(1, number))
    leakage = any(row.requests for row in results.rows)
    score, title = ("recovery_max", "answer that gave most away") if leakage else ("bits", "reconstruction")
    lines = [f"| id | true system prompt | {title} | {score} |", "|---|---|---|---:|"]
    for row in results.rows[::step][:number]:
        truth, guess = (_cell(text, characters) for text in (row.truth, row.reconstruction or "(no usable output: unscored)"))
        value = f"{row.metrics[score]:.{2 if leakage else 1}f}" if score in row.metrics else "–"
        lines.append(f"| {_cell(row.prompt_id, 80)} | {truth} | {guess} | {value} |")
    return "\n".join(lines)


def _cell(text: str, characters: int) -> str:
    # ``visible``: a terminal would obey the escape codes of an answer.
    escaped = visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return textwrap.shorten(escaped, characters, placeholder=" …")
