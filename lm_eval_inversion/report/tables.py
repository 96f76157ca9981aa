"""Markdown tables: metrics with intervals, truths beside reconstructions."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import Any

from lm_eval_inversion.prompts.canaries import KINDS, is_planted
from lm_eval_inversion.queries.attacks import FAMILIES
from lm_eval_inversion.report.numbers import cut, markdown_table, shown, shown_interval, shows_alike
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.units import by_unit, count_prompts, sampled_unit, values_of
from lm_eval_inversion.scoring.metrics import FAMILY_PREFIX, OF_THE_RUN, PROMPT_HEADLINES, RECORDS, UNSCORED, is_floor, is_scored, scale_of
from lm_eval_inversion.scoring.records import ROUNDING, SHARE
from lm_eval_inversion.scoring.uncertainty import LEVEL, Estimate, estimate, fewest_prompts, of_one_value, wilson

CARRIERS = "carriers"  # of planted secrets
CARRIERS_EXPLAINED = f"{CARRIERS} (invented prompts, each counted once whatever its draws and conditions)"  # at first use
COMPLEMENTS = ("resistance",)  # scores that count what the attacker misses; what stands beside them counts what the attacker gets

# One yes or no per system prompt: a bootstrap of nothing but zeros would claim certainty, Wilson's interval does not.
PER_PROMPT_SHARES = (
    "resistance", "asr_union", "asr_union_null", "asr_union_swap", "canary_any", *(f"canary_extracted_{kind}" for kind in KINDS),
    "top1_asked", "top1_ordinary", "identification_top1", "identification_top1_null", "exact_match",
)  # fmt: skip
# One yes or no per secret, of which a carrier holds several: over carriers, as if all secrets of one came out together or not at all.
PER_CARRIER_SHARES = (
    *(f"canary_{how}{condition}" for how in ("extracted", "volunteered") for condition in ("", "_plain", "_secrecy")),
    "canary_partial", "canary_encoded_only", "canary_in_reasoning", "canary_control", "canary_null",
)  # fmt: skip
# One yes or no per answer: over system prompts, as if all attacks of a family succeeded under a prompt or none, as the page draws them.
PER_FAMILY_SHARES = tuple(f"{FAMILY_PREFIX}{family}" for family in FAMILIES)
# All others have a bootstrap, but where it would claim certainty, and none where ``OF_THE_RUN`` has them: see ``metric_estimate``.
WILSON_METRICS = frozenset((*PER_PROMPT_SHARES, *PER_CARRIER_SHARES, *PER_FAMILY_SHARES))


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


def metric_estimate(metric: str, values: Iterable[float], level: float = LEVEL) -> Estimate:
    """Mean and interval of a metric over system prompts, the one rule for table, page, export and gate.

    ``WILSON_METRICS`` have Wilson's interval, all others a bootstrap, which never goes beyond Wilson's over the range of its metric. It
    knows only what was observed: where all values are equal it claims certainty, and where all but a few are, one leak would look surer
    than none. There a metric of finite range has Wilson's interval over that range, and a metric without one has none. What is one value
    per run has none either.

    Args:
        metric: its name.
        values: one per system prompt, NaN where it has none.
        level: of the interval.
    """
    known = tuple(values)
    found = bootstrap(known, level, *_range_of(metric, known))
    if metric in WILSON_METRICS:
        return _with_wilson(metric, found, level)
    if metric in OF_THE_RUN:
        return replace(found, stderr=math.nan, low=math.nan, high=math.nan)
    widest = _with_wilson(metric, found, level) if _has_wilson(metric, found, level) else None
    if not _claims_certainty(metric, known, found, level):
        return replace(found, low=max(found.low, widest.low), high=min(found.high, widest.high)) if widest else found
    return widest or replace(found, low=math.nan, high=math.nan)


def _range_of(metric: str, values: Iterable[float]) -> tuple[float, float]:
    """Lowest and highest value that the metric can have; none of one that is not known here and shows that it is no share."""
    scale = scale_of(metric)
    inside = all(scale.low - ROUNDING <= value <= scale.high + ROUNDING for value in values if not math.isnan(value))
    return (scale.low, scale.high) if inside else (-math.inf, math.inf)


def _claims_certainty(metric: str, values: Iterable[float], found: Estimate, level: float) -> bool:
    """Whether more than a tail of a bootstrap knows of one value only, so few are the others, or a share has no width that is seen."""
    return of_one_value(values) > (1 - level) / 2 or (scale_of(metric) == SHARE and shows_alike(metric, found.low, found.high))


def _has_wilson(metric: str, found: Estimate, level: float) -> bool:
    """Whether Wilson's interval stands in where a bootstrap would claim certainty.

    Below the fewest prompts of a bootstrap only shares that are all 0 or all 1 have it. A metric that is not known here counts as a share,
    unless its mean shows that it is none.
    """
    scale = scale_of(metric)
    if found.number < fewest_prompts(level):
        return scale == SHARE and found.mean in (0.0, 1.0)
    return math.isfinite(scale.low) and math.isfinite(scale.high) and scale.low - ROUNDING <= found.mean <= scale.high + ROUNDING


def _with_wilson(metric: str, found: Estimate, level: float) -> Estimate:
    """The mean with Wilson's interval over the range of its metric, as if every value were one of its ends.

    That is on the safe side: of all values from ``low`` to ``high`` with mean m, those that are only ``low`` or ``high`` vary most, by
    (m - low) * (high - m), and Wilson's interval holds all means from which so much variance leaves the observed one within reach. So it
    is as wide as it would be for a yes or no per prompt, and never narrower than other values of that mean need.
    """
    scale = scale_of(metric)
    width = scale.high - scale.low
    low, high = wilson_bounds((found.mean - scale.low) / width, found.number, level)
    return replace(found, low=scale.low + width * low, high=scale.low + width * high, wilson=True)


def complement(found: Estimate) -> Estimate:
    """Of a share that counts what the attacker gets, the same of what the attacker misses."""
    return replace(found, mean=1.0 - found.mean, low=1.0 - found.high, high=1.0 - found.low)


def share_over_units(values: Iterable[tuple[Row, float]]) -> Estimate:
    """Mean of shares of rows with Wilson's interval over sampled units, not over rows: epochs and draws are no independent evidence.

    Args:
        values: rows with their shares, from 0 to 1; NaN where a row has none.

    Returns:
        Mean, bounds and number of units that have a share; all but the number are NaN where none has, and the standard error always is.
    """
    known = [value for value in by_unit(values) if not math.isnan(value)]
    mean = fmean(known) if known else math.nan
    return Estimate(mean, math.nan, *wilson_bounds(mean, len(known)), len(known), wilson=True)


def wilson_bounds(share: float, number: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of the mean share of ``number`` units; NaN where there are none."""
    # A mean of ones may exceed 1 by a rounding error, and one on another range fall below 0.
    return wilson(min(number, max(0.0, share * number)), number, level) if number else (math.nan, math.nan)


@lru_cache(maxsize=256)
def bootstrap(values: tuple[float, ...], level: float = LEVEL, lowest: float = 0.0, highest: float = 1.0) -> Estimate:
    """``estimate`` of shares, remembered: a page asks for a headline in several places, and a union curve has long level stretches."""
    return estimate(values, level=level, lowest=lowest, highest=highest)


def summarise(results: Results) -> dict[str, Estimate]:
    """Metric -> its mean with 95 % interval, the same for table, export and card; metrics without any value are left out."""
    found = {metric: metric_estimate(metric, values_of(results.rows, metric)) for metric in KNOWN_METRICS}
    return {metric: one for metric, one in found.items() if one.number}


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
        known = bootstrap(tuple(column))
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


def examples_table(results: Results, number: int, characters: int = 300) -> str:
    """Truths beside reconstructions of ``number`` prompts, evenly spread over the run, cut to ``characters``; "" where none are made."""
    if not results.writes or not results.rows:
        return ""
    step = max(1, len(results.rows) // max(1, number))
    title = "answer that gave most away" if any(row.requests for row in results.rows) else "reconstruction"
    score = prompt_headline(results.rows) or PROMPT_HEADLINES[0]
    rows = [
        (
            cut(row.prompt_id, 80), cut(row.truth, characters), cut(row.reconstruction or unwritten(row), characters),
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
    return "(nothing was written)" if is_scored(row.metrics) else UNSCORED
