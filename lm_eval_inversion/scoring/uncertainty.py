"""Error bars over prompts, the unit that was sampled: a bootstrap of means, and what holds of shares of which none or all were seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

LEVEL = 0.95  # of intervals, unless another is asked for
RESAMPLES = 10_000
LEAST_SPREAD = 0.25  # of the observed standard error that a resample's may have; moves no coverage by more than a hundredth (docs/LOG.md)
EQUAL_DECIMALS = 9  # to which values count as equal; differences of equal values may have a spread of rounding errors
DRAWN_AT_ONCE = 2_000_000  # values; bounds memory, changes no draw


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN where there are none."""
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and interval; NaN where it cannot be known.

    Attributes:
        number: prompts that had a value.
        wilson: whether the bounds are Wilson's; else they are a bootstrap's.
    """

    mean: float
    stderr: float
    low: float
    high: float
    number: int
    wilson: bool = False


def fewest_prompts(level: float = LEVEL) -> int:
    """Prompts below which no interval of a mean is given: 6 at 95 %.

    Of fewer, no test that lets the signs of differences decide can tell any mean from 0: all signs alike has a p value of
    ``2 ** (1 - prompts)``. Resamples are few and often hold one value only.
    """
    return 1 + math.ceil(math.log2(1 / (1 - level)))


def of_one_value(values: Iterable[float]) -> float:
    """Share of all bootstrap resamples that hold nothing but the commonest value: 1 where all values are equal, NaN where there are none.

    Where it is more than a tail, resamples do not tell how far the mean may be on the other side.
    """
    known = Counter(round(value, EQUAL_DECIMALS) for value in values if not math.isnan(value))
    number = known.total()
    return (max(known.values()) / number) ** number if number else math.nan


def estimate(
    values: Sequence[float], seed: int = 0, level: float = LEVEL, lowest: float = -math.inf, highest: float = math.inf
) -> Estimate:
    """Mean over prompts, whatever their order, with a studentised bootstrap interval (Efron 1981, "bootstrap-t").

    It asks how far means of resamples lie from the observed one, in their own standard errors. So it is wide where prompts are few, and
    wider on the side to which values are skewed, as bits and leaks are: a percentile interval ends too low there (docs/LOG.md, "Intervals
    of skewed values").

    NaN values (unscored prompts) are left out and counted by their absence. There are no bounds where there are fewer than
    ``fewest_prompts``, and none where all values are equal, or so many that more than a tail of the resamples would hold one value only:
    no width is not certainty.

    Args:
        values: one per prompt.
        seed: of the resamples.
        level: of the interval.
        lowest: value that there can be; no interval goes below it.
        highest: likewise.
    """
    import numpy as np  # here, so that a command that only needs ``LEVEL`` starts fast

    known = np.asarray(sorted(value for value in values if not math.isnan(value)), dtype=float)
    if not known.size:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(known.mean())
    if known.size == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    stderr = float(known.std(ddof=1) / math.sqrt(known.size))
    tail = (1 - level) / 2
    if known.size < fewest_prompts(level) or of_one_value(known.tolist()) > tail:
        return Estimate(mean, stderr, math.nan, math.nan, int(known.size))
    generator = np.random.default_rng(seed)
    rows = max(1, DRAWN_AT_ONCE // known.size)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    centred = known - mean
    distances = np.concatenate([_distances(centred[generator.integers(0, known.size, (size, known.size))], stderr) for size in sizes])
    below, above = np.quantile(distances, [tail, 1 - tail])
    low, high = mean - stderr * max(0.0, float(above)), mean - stderr * min(0.0, float(below))  # the mean is always inside
    return Estimate(mean, stderr, max(lowest, low), min(highest, high), int(known.size))


def _distances(resamples: Any, stderr: float) -> Any:
    """Distance of the mean of each resample (row) of values around 0 from 0, in its own standard errors.

    None counts as less than ``LEAST_SPREAD`` of the observed one: a resample that holds nothing of the one value that sticks out would lie
    thousands of them away.
    """
    import numpy as np

    number = resamples.shape[1]
    means = resamples.mean(axis=1)
    variances = (np.einsum("ij,ij->i", resamples, resamples) / number - means * means) / (number - 1)
    return means / np.sqrt(np.maximum(variances, (LEAST_SPREAD * stderr) ** 2))


def wilson(successes: float, number: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share: honest at 0 and 1 too, where it ends near the rule of three (3 / number at 95 %).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if number < 1 or not 0 <= successes <= number:
        raise ValueError(f"{successes} successes of {number} trials give no share")
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / number
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return max(0.0, middle - half), min(1.0, middle + half)


def rule_of_three(number: int) -> float:
    """Upper end of a one-sided 95 % interval when none of ``number`` trials succeeded (exact: 1 - 0.05 ** (1 / number)).

    Raises:
        ValueError: there are no trials.
    """
    if number < 1:
        raise ValueError("no trials, no bound")
    return float(1 - 0.05 ** (1 / number))
