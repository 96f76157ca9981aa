"""How numbers, intervals and Markdown tables are written for people."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Container, Iterable, Sequence

from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import scale_of
from lm_eval_inversion.scoring.records import BITS
from lm_eval_inversion.scoring.uncertainty import Estimate


def shown(metric: str, value: float | None, sign: str = "") -> str:
    """A value of a metric for people: bits with one decimal, all else with three; a dash where there is none.

    Args:
        metric: its name.
        value: None or NaN where there is none.
        sign: "+" writes that of values above 0 too.
    """
    if value is None or not math.isfinite(value):
        return "–"
    digits = _digits(metric)
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no "-0.0"


def shows_as_zero(metric: str, value: float) -> bool:
    """Whether people see 0 where a value of a metric stands."""
    return round(value, _digits(metric)) == 0


def _digits(metric: str) -> int:
    return 1 if scale_of(metric) == BITS else 3


def shown_beside(value: float, limit: float, digits: int = 3) -> str:
    """A value with at least so many decimals, and as many more as set it apart from a limit that it does not equal."""
    while digits < 15 and value != limit and round(value, digits) == round(limit, digits):
        digits += 1
    return f"{value:.{digits}f}"


def shown_interval(metric: str, low: float, high: float, sign: str = "") -> str:
    """An interval of a metric, as ``shown``; a dash where there is none."""
    return f"{shown(metric, low, sign)} to {shown(metric, high, sign)}" if math.isfinite(low) and math.isfinite(high) else "–"


def shown_estimate(metric: str, found: Estimate) -> str:
    """A mean with its interval, as ``shown``; a dash where there is none."""
    interval = f" ({shown_interval(metric, found.low, found.high)})" if math.isfinite(found.low) else ""
    return f"{shown(metric, found.mean)}{interval}"


def cut(text: str, characters: int) -> str:
    """The beginning of a text on one line, at most so many characters of it; what is invisible is shown by name."""
    return textwrap.shorten(visible(text), characters, placeholder=" …")


def markdown_table(titles: Sequence[str], numeric: Container[int], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the columns ``numeric`` stand to the right. Whatever is in a cell, a terminal does not obey it."""

    def line(cells: Sequence[str]) -> str:
        escaped = (visible(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells)
        return f"| {' | '.join(escaped)} |"

    sides = ("---:" if place in numeric else "---" for place in range(len(titles)))
    return [line(titles), f"|{'|'.join(sides)}|", *map(line, rows)]
