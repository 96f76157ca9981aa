"""What is known of a metric, whichever it is; all of them are in ``metrics``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

ROUNDING = 1e-4  # by which a value may lie outside its range
# Kind of floor, with which its name ends -> what is scored in its place. Floors and controls say how good the measurement is, not which
# model keeps its prompt better.
FLOORS = {
    "null": "without a system prompt",
    "swap": "against another prompt",
    "constant": "of the constant guess “You are a helpful assistant”",
    "control": "of secrets that stand nowhere",
}


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


@dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    Attributes:
        meaning: one line for people.
        higher_is_better: for the evaluated model; recovery is bad news for its releaser. Floors have the direction of their metric.
        scale: unit and range.
        floors: metrics to read it beside.
    """

    meaning: str
    higher_is_better: bool = False
    scale: Scale = SHARE
    floors: tuple[str, ...] = ()

    def floor(self, kind: str) -> Metric:
        """Its floor of a kind of ``FLOORS``."""
        return replace(self, meaning=f"floor, {FLOORS[kind]}: {self.meaning}", floors=())

    def part(self, which: str) -> Metric:
        """The same over a part of what it counts."""
        return replace(self, meaning=f"{self.meaning}, {which}", floors=())
