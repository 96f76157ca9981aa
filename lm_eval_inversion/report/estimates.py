"""The one rule for means and intervals over system prompts: which metric has a bootstrap, which has Wilson's, and which none.

Table, page, export, card and gate ask here, so that one run has one interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from statistics import fmean

from lm_eval_inversion.prompts.canaries import KINDS
from lm_eval_inversion.queries.attacks import FAMILIES
from lm_eval_inversion.report.numbers import shows_alike
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.units import by_unit, values_of
from lm_eval_inversion.scoring.metrics import FAMILY_PREFIX, OF_THE_RUN, scale_of
from lm_eval_inversion.scoring.records import ROUNDING, SHARE
from lm_eval_inversion.scoring.uncertainty import LEVEL, Estimate, estimate, fewest_prompts, of_one_value, wilson

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
        return _within(found, widest.low, widest.high) if widest else found
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
def bootstrap(values: tuple[float, ...], level: float, lowest: float, highest: float) -> Estimate:
    """``estimate``, remembered: a page asks for a headline in several places, and a union curve has long level stretches."""
    return estimate(values, level=level, lowest=lowest, highest=highest)


def bootstrap_of_shares(values: tuple[float, ...]) -> Estimate:
    """Mean of shares with a bootstrap interval that is never wider than Wilson's, and none where it would claim certainty."""
    found = bootstrap(values, LEVEL, 0.0, 1.0)
    return _within(found, *wilson_bounds(found.mean, found.number))


def _within(found: Estimate, low: float, high: float) -> Estimate:
    """The estimate with an interval that ends inside these bounds; none where it has none."""
    return replace(found, low=max(found.low, low), high=min(found.high, high))


def summarise(results: Results) -> dict[str, Estimate]:
    """Metric -> its mean with 95 % interval, the same for table, export and card; metrics without any value are left out."""
    found = {metric: metric_estimate(metric, values_of(results.rows, metric)) for metric in KNOWN_METRICS}
    return {metric: one for metric, one in found.items() if one.number}
