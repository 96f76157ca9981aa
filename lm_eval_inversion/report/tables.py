"""Markdown tables: metrics with intervals, truths beside reconstructions."""

from __future__ import annotations

import math
import textwrap

from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.scoring.metrics import METRICS
from lm_eval_inversion.scoring.uncertainty import estimate


def metrics_table(results: Results) -> str:
    """Mean and bootstrap 95 % interval over system prompts of every metric, as a Markdown table."""
    lines = ["| metric | mean | 95 % interval | prompts |", "|---|---:|---:|---:|"]
    for metric in METRICS:
        found = estimate([row.metrics.get(metric, math.nan) for row in results.rows])
        if found.number:
            lines.append(f"| {metric} | {found.mean:.3f} | {found.low:.3f} to {found.high:.3f} | {found.number} |")
    return "\n".join(lines)


def examples_table(results: Results, number: int, characters: int = 300) -> str:
    """Truths beside reconstructions of ``number`` prompts, evenly spread over the run, cut to ``characters``."""
    step = max(1, len(results.rows) // max(1, number))
    lines = ["| id | true system prompt | reconstruction | bits |", "|---|---|---|---:|"]
    for row in results.rows[::step][:number]:
        truth, guess = (_cell(text, characters) for text in (row.truth, row.reconstruction or "(no usable output: unscored)"))
        bits = f"{row.metrics['bits']:.1f}" if "bits" in row.metrics else "–"
        lines.append(f"| {row.prompt_id} | {truth} | {guess} | {bits} |")
    return "\n".join(lines)


def _cell(text: str, characters: int) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return textwrap.shorten(escaped, characters, placeholder=" …")
