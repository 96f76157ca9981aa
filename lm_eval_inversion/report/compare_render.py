"""A comparison as Markdown tables, JSON or a page in HTML. Both tables show the same cells; JSON has the same numbers in full."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import lm_eval_inversion
from lm_eval_inversion.report.compare import LEAST_DIFFERING, POWER, Comparison, MetricComparison, PromptChange, Side
from lm_eval_inversion.report.markup import page_environment
from lm_eval_inversion.report.numbers import cut, markdown_table, shown, shown_interval
from lm_eval_inversion.report.tables import CARRIERS_EXPLAINED, better
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import is_floor
from lm_eval_inversion.scoring.uncertainty import LEVEL, fewest_prompts

FORMATS = ("text", "json", "html")
METRIC_TITLES = ("metric", "mean A", "mean B", "B - A", "95 % interval", "p", "detectable", "pairs", "better")
METRIC_NUMBERS = range(1, 8)
CHANGE_TITLES = ("id", "category", "length", "system prompt", "A", "B", "B - A")
CHANGE_NUMBERS = range(4, 7)
CHANGE_TEXTS = (3,)  # may be of any script
NOTES = (
    f"Paired by system prompt, planted secrets by {CARRIERS_EXPLAINED}. Interval: studentised bootstrap, of {fewest_prompts()} pairs at "
    "least that do not nearly all differ by the same. p: sign-flip permutation test of the runs being alike for every prompt, one per "
    "metric, not corrected for their number; of few pairs that differ much in one direction it says little of the mean. "
    f"Detectable: smallest true difference that so many pairs find with probability {POWER:g}, where {LEAST_DIFFERING} pairs differ. "
    "Better: for whoever wants the system prompt to stay hidden, where p is below "
    f"{1 - LEVEL:.2g}, no interval holds 0 and the difference does not read 0."
)


def render(comparison: Comparison, form: str) -> str:
    """The comparison as "text" (Markdown tables), "json" or "html" (one self-contained page).

    Raises:
        ValueError: the format is unknown.
    """
    if form not in FORMATS:
        raise ValueError(f"format {form!r} is unknown; known: {', '.join(FORMATS)}")
    return {"text": _text, "json": _json, "html": _html}[form](comparison)


def _metric_cells(found: MetricComparison) -> tuple[str, ...]:
    return (
        _with_direction(found.metric),
        shown(found.metric, found.mean_a),
        shown(found.metric, found.mean_b),
        shown(found.metric, found.difference, difference=True),
        shown_interval(found.metric, found.low, found.high, difference=True),
        "–" if math.isnan(found.p_value) else f"{found.p_value:.4f}",
        shown(found.metric, found.minimal_detectable_effect, difference=True),
        str(found.pairs),
        "–" if found.better == "neither" else found.better,
    )


def _with_direction(metric: str) -> str:
    """A metric with what is good news of it; the column "better" says that floors have none."""
    return metric if is_floor(metric) else f"{metric} ({better(metric)} is better)"


def _change_cells(change: PromptChange) -> tuple[str, ...]:
    numbers = (shown(change.metric, change.a), shown(change.metric, change.b), shown(change.metric, change.difference, difference=True))
    return (change.prompt_id, change.category, change.length_band, cut(change.prompt, 160), *numbers)


def _side_line(name: str, label: str, side: Side) -> str:
    return f"{name}: {label} ({side.host}, {side.model or 'model not known'}, {side.prompts} system prompts)"


def _text(comparison: Comparison) -> str:
    lines = [f"WARNING: {warning}" for warning in comparison.warnings]
    for task in comparison.tasks:
        lines += ["", f"## {task.task}: B minus A", ""]
        lines += [_side_line("A", comparison.a, task.a), "", _side_line("B", comparison.b, task.b), ""]
        lines += [line for warning in task.warnings for line in (f"WARNING: {warning}", "")]
        if task.other_differences:
            lines += ["Also different: " + "; ".join(task.other_differences), ""]
        lines += markdown_table(METRIC_TITLES, METRIC_NUMBERS, map(_metric_cells, task.metrics))
        lines += [line for note in task.notes for line in ("", note)]
        if task.changed:
            lines += ["", f"Changed most, by {task.changed[0].metric}:", ""]
            lines += markdown_table(CHANGE_TITLES, CHANGE_NUMBERS, map(_change_cells, task.changed))
    # ``visible``: a terminal would obey what stands in a text of a model.
    return "\n".join([*map(visible, lines), "", NOTES, ""]).lstrip("\n")


def _json(comparison: Comparison) -> str:
    described = {"package_version": lm_eval_inversion.__version__, "level": LEVEL, "power": POWER, **asdict(comparison)}
    return json.dumps(_without_nan(described), ensure_ascii=False, indent=2, allow_nan=False, default=str) + "\n"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN; null says "not known" as well."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _html(comparison: Comparison) -> str:
    environment = page_environment()
    environment.filters |= {"metric_cells": _metric_cells, "change_cells": _change_cells}
    return environment.get_template("compare.html.jinja").render(
        title=f"{comparison.b} against {comparison.a}",
        comparison=comparison,
        metric_titles=METRIC_TITLES,
        metric_numbers=METRIC_NUMBERS,
        change_titles=CHANGE_TITLES,
        change_numbers=CHANGE_NUMBERS,
        change_texts=CHANGE_TEXTS,
        side_line=_side_line,
        signature_text=_signature_text,
        notes=NOTES,
        version=lm_eval_inversion.__version__,
    )


def _signature_text(side: Side) -> str:
    return json.dumps(side.signature, ensure_ascii=False, indent=2, default=str)
