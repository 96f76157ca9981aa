"""How numbers, intervals and Markdown tables are written for people."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Container, Iterable, Sequence

from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import scale_of
from lm_eval_inversion.scoring.records import BITS, SHARE
from lm_eval_inversion.scoring.uncertainty import Estimate

SHOWN_NAMES = 5  # of many files

_BY_ROUNDING = 1e-9  # by which a mean of zeros or ones may miss them
_OPENS_A_TAG = re.compile("<(?=[A-Za-z/!?])")  # whatever else follows "<", it is text to Markdown and to a browser


def shown(metric: str, value: float | None, sign: str = "", *, difference: bool = False) -> str:
    """A value of a metric for people: bits with one decimal, all else with three; a dash where there is none.

    A share that only rounds to 0 or 1 is "<0.001" or ">0.999": next to nothing is other news than nothing.

    Args:
        metric: its name.
        value: None or NaN where there is none.
        sign: "+" writes that of values above 0 too.
        difference: of two values, which is no share where they are.
    """
    if value is None or not math.isfinite(value):
        return "–"
    digits = _digits(metric)
    rounded = round(value, digits) + 0.0  # + 0.0: no "-0.0"
    if scale_of(metric) == SHARE and not difference:
        if rounded == 0 and value > _BY_ROUNDING:
            return "<0.001"
        if rounded == 1 and value < 1 - _BY_ROUNDING:
            return ">0.999"
    return f"{rounded:{sign}.{digits}f}"


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


def shown_interval(metric: str, low: float, high: float, sign: str = "", *, difference: bool = False) -> str:
    """An interval of a metric, as ``shown``; a dash where there is none."""
    if not math.isfinite(low) or not math.isfinite(high):
        return "–"
    return " to ".join(shown(metric, end, sign, difference=difference) for end in (low, high))


def shows_alike(metric: str, low: float, high: float) -> bool:
    """Whether people see an interval of no width, which reads as certainty."""
    return shown(metric, low) == shown(metric, high)


def shown_estimate(metric: str, found: Estimate) -> str:
    """A mean with its interval, as ``shown``; a dash where there is none."""
    interval = f" ({shown_interval(metric, found.low, found.high)})" if math.isfinite(found.low) else ""
    return f"{shown(metric, found.mean)}{interval}"


def cut(text: str, characters: int) -> str:
    """The beginning of a text on one line, at most so many characters of it; what is invisible is shown by name."""
    return textwrap.shorten(visible(text), characters, placeholder=" …")


def some_names(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def on_one_line(text: str) -> str:
    """The text without line breaks, which in Markdown would begin something else."""
    return re.sub(r"[ \t]*[\r\n]+[ \t]*", " ", text)


def code_span(text: str) -> str:
    """Code within a line of Markdown, which no backtick in it ends."""
    line, ticks = on_one_line(text), "`" * (_longest_ticks(text) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""  # Markdown takes it off again
    return f"{ticks}{padding}{line}{padding}{ticks}"


def code_block(text: str, language: str) -> list[str]:
    """Lines of a block of code in Markdown, as it is: no backtick in it ends the block."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return [f"{fence}{language}", text, fence]


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def markdown_table(titles: Sequence[str], numeric: Container[int], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the columns ``numeric`` stand to the right. Whatever is in a cell, a terminal does not obey it."""

    def line(cells: Sequence[str]) -> str:
        escaped = (visible(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells)
        escaped = (_OPENS_A_TAG.sub("&lt;", cell) for cell in escaped)
        return f"| {' | '.join(escaped)} |"

    sides = ("---:" if place in numeric else "---" for place in range(len(titles)))
    return [line(titles), f"|{'|'.join(sides)}|", *map(line, rows)]
