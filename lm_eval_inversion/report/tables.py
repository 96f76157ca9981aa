"""Markdown tables: metrics with intervals, truths beside reconstructions."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_inversion.prompts.canaries import is_planted
from lm_eval_inversion.report.estimates import bootstrap_of_shares, share_over_units, summarise
from lm_eval_inversion.report.numbers import cut, markdown_table, shown, shown_interval
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.units import by_unit, count_prompts, sampled_unit
from lm_eval_inversion.scoring.metrics import PROMPT_HEADLINES, RECORDS, UNSCORED, is_floor, is_scored
from lm_eval_inversion.scoring.uncertainty import fewest_prompts

CARRIERS = "carriers"  # of planted secrets
CARRIERS_EXPLAINED = f"{CARRIERS} (invented prompts, each counted once whatever its draws and conditions)"  # at first use
EXAMPLE_CHARACTERS = 300  # shown of a text beside others


@dataclass(frozen=True)
class Counted:
    """How many system prompts a run has, how many of them have a score, and over what its intervals are.

    Attributes:
        prompts: system prompts, whatever their epochs.
        scored: of these.
        units: sampled: the system prompts, or the carriers of planted secrets, under each of which there are several system prompts.
        noun: what the units are, in the plural.
    """

    prompts: int
    scored: int
    units: int
    noun: str

    @property
    def planted(self) -> bool:
        """Whether carriers were sampled."""
        return self.noun == CARRIERS

    @property
    def explained(self) -> str:
        """The noun at its first use, with what carriers are."""
        return CARRIERS_EXPLAINED if self.planted else self.noun

    @property
    def told(self) -> str:
        """The numbers in words, and why most means of a small run stand alone."""
        carriers = f", {self.units} {self.explained}" if self.planted else ""
        few = f", too few for a bootstrap interval ({fewest_prompts()})" if self.units < fewest_prompts() else ""
        return f"{self.scored} of {self.prompts} system prompts scored{carriers}{few}"

    @property
    def column(self) -> str:
        """The noun where there is little room."""
        return self.noun.removeprefix("system ")


def counted(rows: Sequence[Row]) -> Counted:
    """Count system prompts and what was sampled."""
    planted = any(is_planted(row.prompt) for row in rows)
    scored = count_prompts(row for row in rows if is_scored(row.metrics))
    return Counted(count_prompts(rows), scored, len({sampled_unit(row) for row in rows}), CARRIERS if planted else "system prompts")


def unscored(rows: Sequence[Row], metric: str) -> int:
    """How many system prompts have no value of a metric."""
    return count_prompts(rows) - count_prompts(row for row in rows if not math.isnan(row.metrics.get(metric, math.nan)))


def fallen_to(rows: Sequence[Row], attacks: Sequence[str]) -> list[list[float]]:
    """Per number of attacks tried, who had fallen to one of them at any turn: 1 or 0 per system prompt, as ``asr_union`` counts.

    A leak that was seen counts, whatever became of the attack's last turn. NaN where nothing leaked and no last turn was answered:
    unscored is not safe.
    """
    answered = [[found for found in row.requests if found["arm"] == "attack" and found["state"] == "answered"] for row in rows]
    leaked = [{found["attack"] for found in own if found["leaked"]} for own in answered]
    state = [0.0 if any(found["last"] or found["leaked"] for found in own) else math.nan for own in answered]
    columns = []
    for attack in attacks:
        state = [1.0 if attack in fell and not math.isnan(before) else before for before, fell in zip(state, leaked)]
        columns.append(by_unit(zip(rows, state)))
    return columns


def metrics_table(results: Results) -> str:
    """Mean and 95 % interval over what was sampled of every metric, as a Markdown table."""
    rows = [
        (metric, shown(metric, found.mean), shown_interval(metric, found.low, found.high), str(found.number), better(metric))
        for metric, found in summarise(results).items()
    ]
    return "\n".join(markdown_table(("metric", "mean", "95 % interval", counted(results.rows).column, "better"), range(1, 4), rows))


def better(metric: str) -> str:
    """Whether a lower or a higher value is better, for whoever wants the system prompt to stay hidden; floors are no score of a model."""
    if is_floor(metric):
        return "–"
    return "higher" if RECORDS[metric].higher_is_better else "lower"


def attacks_table(results: Results) -> str:
    """Per attack, in the frozen order: success rate of its last turn over system prompts with Wilson interval, union at any turn with all
    attacks before (``asr_union``), recovery."""
    attacks = list(
        dict.fromkeys(row["attack"] for found in results.rows for row in found.requests if row["arm"] == "attack" and row["last"])
    )
    rows = []
    for number, (attack, column) in enumerate(zip(attacks, fallen_to(results.rows, attacks)), 1):
        answered = answers_to(results.rows, [attack])
        known = bootstrap_of_shares(tuple(column))
        share, recovery = (share_over_units(over_answers(answered, key)) for key in ("leaked", "recovery"))
        decoders = ", ".join(sorted({str(found["decoder"]) for _, found in answered if found["leaked"]})) if answered else "no answer"
        rows.append((
            str(number), cut(attack, 80), shown("asr", share.mean), shown_interval("asr", share.low, share.high),
            shown("asr_union", known.mean), shown("recovery", recovery.mean), cut(decoders, 80),
        ))  # fmt: skip
    titles = ("k", "attack", "ASR", "95 % interval", "union ASR@k", "recovery", "decoders")
    return "\n".join(markdown_table(titles, (0, 2, 3, 4, 5), rows))


def answers_to(rows: Sequence[Row], attacks: Container[str]) -> list[tuple[Row, dict[str, Any]]]:
    """What was found in the answers to the last turns of some attacks, each beside the row that it is of."""
    return [
        (row, found)
        for row in rows
        for found in row.requests
        if found["arm"] == "attack" and found["attack"] in attacks and found["last"] and found["state"] == "answered"
    ]


def over_answers(answered: Iterable[tuple[Row, dict[str, Any]]], key: str) -> list[tuple[Row, float]]:
    """A number from 0 to 1 of what was found in answers; where older runs have no recovery, whether they leaked."""
    return [(row, float(found.get(key, found["leaked"]))) for row, found in answered]


def examples_table(results: Results, number: int) -> str:
    """Truths beside reconstructions of ``number`` prompts, evenly spread over the run; "" where none are made."""
    if not results.writes or not results.rows:
        return ""
    step = max(1, len(results.rows) // max(1, number))
    title = "answer that gave most away" if any(row.requests for row in results.rows) else "reconstruction"
    score = prompt_headline(results.rows) or PROMPT_HEADLINES[0]
    rows = [
        (
            cut(row.prompt_id, 80), cut(row.truth, EXAMPLE_CHARACTERS), cut(row.reconstruction or unwritten(row), EXAMPLE_CHARACTERS),
            shown(score, row.metrics.get(score)),
        )
        for row in results.rows[::step][:number]
    ]  # fmt: skip
    return "\n".join(markdown_table(("id", "true system prompt", title, score), (3,), rows))


def prompt_headline(rows: Sequence[Row]) -> str | None:
    """What single system prompts of a run are ordered by; None where it has none of ``PROMPT_HEADLINES``."""
    return next((metric for metric in PROMPT_HEADLINES if any(metric in row.metrics for row in rows)), None)


def unwritten(row: Row) -> str:
    """What stands in the place of a reconstruction where there is none."""
    if row.error:
        return f"(ended in an error: {row.shown_error}: unscored, not safe)"
    return "(nothing was written)" if is_scored(row.metrics) else UNSCORED
