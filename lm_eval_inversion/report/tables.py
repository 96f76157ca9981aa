"""Markdown tables: metrics with intervals, truths beside reconstructions."""

from __future__ import annotations

import math
import textwrap

from lm_eval_inversion.report.reading import KNOWN_METRICS, Results
from lm_eval_inversion.scoring.uncertainty import estimate, wilson

# One yes or no per system prompt: a bootstrap of nothing but zeros would claim certainty, Wilson's interval does not.
PER_PROMPT_SHARES = ("resistance", "asr_union", "asr_union_null", "asr_union_swap")


def metrics_table(results: Results) -> str:
    """Mean and bootstrap 95 % interval over system prompts of every metric, as a Markdown table."""
    lines = ["| metric | mean | 95 % interval | prompts |", "|---|---:|---:|---:|"]
    for metric in KNOWN_METRICS:
        found = estimate([row.metrics.get(metric, math.nan) for row in results.rows])
        if found.number and metric in PER_PROMPT_SHARES:
            share = found.mean * found.number
            low, high = wilson(share, found.number)
            lines.append(f"| {metric} | {found.mean:.3f} | {low:.3f} to {high:.3f} | {found.number} |")
        elif found.number:
            lines.append(f"| {metric} | {found.mean:.3f} | {found.low:.3f} to {found.high:.3f} | {found.number} |")
    return "\n".join(lines)


def attacks_table(results: Results) -> str:
    """Per attack, in the frozen order: success rate over system prompts with Wilson interval, union with all attacks before, recovery."""
    attacks = list(
        dict.fromkeys(row["attack"] for found in results.rows for row in found.requests if row["arm"] == "attack" and row["last"])
    )
    lines = ["| k | attack | ASR | 95 % interval | union ASR@k | recovery | decoders |", "|---:|---|---:|---:|---:|---:|---|"]
    fallen: set[str] = set()
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
            lines.append(f"| {number} | {attack} | – | – | {len(fallen) / len(results.rows):.3f} | – | no answer |")
            continue
        low, high = wilson(len(hits), len(answered))
        recovery = sum(row["recovery"] for _, row in answered) / len(answered)
        decoders = ", ".join(sorted({str(row["decoder"]) for _, row in hits}))
        lines.append(
            f"| {number} | {attack} | {len(hits) / len(answered):.3f} | {low:.3f} to {high:.3f} | {len(fallen) / len(results.rows):.3f} "
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
        lines.append(f"| {row.prompt_id} | {truth} | {guess} | {value} |")
    return "\n".join(lines)


def _cell(text: str, characters: int) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return textwrap.shorten(escaped, characters, placeholder=" …")
