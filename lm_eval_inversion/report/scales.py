"""Unit and range of every metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUNDING = 1e-4  # by which a value may lie outside its range


@dataclass(frozen=True)
class Scale:
    """Unit of a metric and the range of its values; infinite where it has no bound."""

    unit: str
    low: float
    high: float

    def held(self, value: float) -> float:
        """The value; within the range where only rounding took it out."""
        inside = min(max(value, self.low), self.high)
        return inside if abs(inside - value) <= ROUNDING else value


SHARE = Scale("proportion", 0.0, 1.0)
BITS = Scale("bits", -math.inf, math.inf)
SCALES = {
    "bits": BITS,
    "bits_swap": BITS,
    "bits_null": BITS,
    "bits_spread_null": BITS,
    "bits_per_token": Scale("bits per word", -math.inf, math.inf),
    "token_f1_lift": Scale("difference of proportions", -1.0, 1.0),
    "bleu": Scale("points", 0.0, 100.0),
    "cosine": Scale("cosine", -1.0, 1.0),
    "cosine_null": Scale("cosine", -1.0, 1.0),
}


def scale_of(metric: str) -> Scale:
    """Unit and range of a metric; a proportion unless ``SCALES`` says otherwise."""
    if metric.startswith("exposure_"):
        return Scale("bits", 0.0, math.inf)
    if metric.startswith("bits_at_"):
        return BITS
    return SCALES.get(metric, SHARE)
