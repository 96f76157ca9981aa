"""Markdown tables: metrics with intervals, truths beside reconstructions."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

from lm_eval_inversion.prompts.canaries import KINDS
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import is_scored
from lm_eval_inversion.scoring.uncertainty import Estimate, estimate, wilson

_PLANTING = re.compile(r"(?:-\d+)?/(?:plain|secrecy)$")
PLANTED = "canary"  # category of system prompts that hold planted secrets
LEVEL = 0.95  # of intervals, unless another is asked for

# One yes or no per system prompt: a bootstrap of nothing but zeros would claim certainty, Wilson's interval does not.
PER_PROMPT_SHARES = (
    "resistance", "asr_union", "asr_union_null", "asr_union_swap", "canary_any", *(f"canary_extracted_{kind}" for kind in KINDS),
    "top1_asked", "top1_ordinary", "identification_top1", "identification_top1_null", "exact_match",
)  # fmt: skip


def values_of(rows: Iterable[Row], metric: str) -> list[float]:
    """A metric of some system prompts; NaN where a prompt has no value."""
    return by_unit((row, row.metrics.get(metric, math.nan)) for row in rows)


def by_unit(values: Iterable[tuple[Row, float]]) -> list[float]:
    """Values of rows, averaged over the rows of each sampled unit; NaN where none of them has a value."""
    units: dict[tuple[str, str], list[float]] = {}
    for row, value in values:
        units.setdefault(sampled_unit(row), []).append(value)
    known = [[value for value in own if not math.isnan(value)] for own in units.values()]
    return [fmean(own) if own else math.nan for own in known]


@dataclass(frozen=True)
class Counted:
    """How many units were sampled, and how many of them have a score.

    Attributes:
        units: sampled.
        scored: of these.
        noun: what they are, in the plural.
    """

    units: int
    scored: int
    noun: str


def counted(rows: Sequence[Row]) -> Counted:
    """Count what was sampled: system prompts, or the carriers of planted secrets."""
    scored = by_unit((row, 1.0 if is_scored(row.metrics) else math.nan) for row in rows)
    planted = any(row.prompt.category == PLANTED for row in rows)
    return Counted(len(scored), sum(not math.isnan(value) for value in scored), "carriers" if planted else "system prompts")


def fallen_to(rows: Sequence[Row], attacks: Sequence[str]) -> list[list[float]]:
    """Per number of attacks tried, who had fallen to one of them at any turn: 1 or 0 per system prompt, as ``asr_union`` counts.

    NaN where nothing that was asked of a prompt was answered: unscored is not safe.
    """
    answered = [[found for found in row.requests if found["arm"] == "attack" and found["state"] == "answered"] for row in rows]
    leaked = [{found["attack"] for found in own if found["leaked"]} for own in answered]
    state = [0.0 if any(found["last"] for found in own) else math.nan for own in answered]
    columns = []
    for attack in attacks:
        state = [1.0 if attack in fell and not math.isnan(before) else before for before, fell in zip(state, leaked)]
        columns.append(by_unit(zip(rows, state)))
    return columns


def sampled_unit(row: Row) -> tuple[str, str]:
    """What was sampled: a prompt, whatever its epochs; of planted secrets the carrier, whatever its draws and its secrecy line."""
    if row.prompt.category == PLANTED:
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
    """Per attack, in the frozen order: success rate of its last turn over system prompts with Wilson interval, union at any turn with all
    attacks before (``asr_union``), recovery."""
    attacks = list(
        dict.fromkeys(row["attack"] for found in results.rows for row in found.requests if row["arm"] == "attack" and row["last"])
    )
    lines = ["| k | attack | ASR | 95 % interval | union ASR@k | recovery | decoders |", "|---:|---|---:|---:|---:|---:|---|"]
    for number, (attack, column) in enumerate(zip(attacks, fallen_to(results.rows, attacks)), 1):
        answered = [
            row
            for found in results.rows
            for row in found.requests
            if row["attack"] == attack and row["last"] and row["state"] == "answered"
        ]
        hits = [row for row in answered if row["leaked"]]
        known = bootstrap(tuple(column))
        union = f"{known.mean:.3f}" if known.number else "–"
        if not answered:
            lines.append(f"| {number} | {attack} | – | – | {union} | – | no answer |")
            continue
        low, high = wilson(len(hits), len(answered))
        recovery = sum(row["recovery"] for row in answered) / len(answered)
        decoders = ", ".join(sorted({str(row["decoder"]) for row in hits}))
        lines.append(
            f"| {number} | {attack} | {len(hits) / len(answered):.3f} | {low:.3f} to {high:.3f} | {union} | {recovery:.3f} | {decoders} |"
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
        truth, guess = (_cell(text, characters) for text in (row.truth, row.reconstruction or unwritten(row)))
        value = f"{row.metrics[score]:.{2 if leakage else 1}f}" if score in row.metrics else "–"
        lines.append(f"| {_cell(row.prompt_id, 80)} | {truth} | {guess} | {value} |")
    return "\n".join(lines)


def unwritten(row: Row) -> str:
    """What stands in the place of a reconstruction where there is none."""
    return "(nothing was written)" if is_scored(row.metrics) else "(no usable output: unscored, not safe)"


def _cell(text: str, characters: int) -> str:
    # ``visible``: a terminal would obey the escape codes of an answer.
    escaped = visible(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return textwrap.shorten(escaped, characters, placeholder=" …")
