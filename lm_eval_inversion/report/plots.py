"""Plots as SVG, without a library: places in per cent, so that a plot fits a phone and its text keeps its size.

Nothing here draws with inline styles, which the page's Content-Security-Policy forbids; colours come from classes of ``page.css``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from lm_eval_inversion.report.numbers import shown
from lm_eval_inversion.report.visible import visible

TRACK_HEIGHT = 26  # pixels of one row of a dot plot
STRIP_HEIGHT = TRACK_HEIGHT + 12  # of a row that has an axis of its own
CURVE_HEIGHT, CURVE_TOP, CURVE_BOTTOM = 240, 14, 208
CURVE_LEFT, CURVE_RIGHT = 0.07, 0.97  # shares of the width between which a curve runs; its axis labels stand left of it
HEAT_ROW_HEIGHT = 10
MOST_APART = 200  # prompts whose cells a heat map draws apart; those of more would be nothing but the lines between them
NEAR_SHARE = 0.2  # recovery from which a cell of the heat map is drawn darker; it marks nothing else


@dataclass(frozen=True)
class Axis:
    """A linear axis from ``low`` to ``high``."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies, in [0, 1]; values outside lie at the ends."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, at most ``most`` and one."""
        step = round_step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) + 0.0 for index in range(first, last + 1)]


SHARES = Axis(0.0, 1.0)
SMALLEST_SPAN = 1e-290  # of an axis of its own; a smaller one cannot be divided into steps


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def axis_of(values: Iterable[float]) -> Axis:
    """An axis with round ends that holds 0 and all values; NaN is left out."""
    known = [0.0, *(value for value in values if math.isfinite(value))]
    low, high = min(known), max(known)
    if high - low < SMALLEST_SPAN:
        return SHARES
    step = round_step((high - low) / 6)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


@dataclass(frozen=True)
class Mark:
    """A mean with its interval; NaN where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class DotRow:
    """One row of a dot plot.

    Attributes:
        label: what the row is.
        mark: drawn as a dot on its interval.
        value: the same as text.
        note: small text behind the value, as the interval or the number of prompts.
        floors: (name, mean) of the floors, drawn as hollow dots.
        apart: a little room above, where a new group of rows begins.
    """

    label: str
    mark: Mark
    value: str
    note: str = ""
    floors: Sequence[tuple[str, float]] = field(default_factory=tuple)
    apart: bool = False


def track(mark: Mark, axis: Axis, floors: Sequence[tuple[str, float]] = (), reference: float | None = None) -> Markup:
    """One row of a dot plot: interval, dot, floors."""
    lines = [_line(axis.share(tick), "grid") for tick in axis.ticks()]
    if reference is not None and math.isfinite(reference):
        lines.append(_line(axis.share(reference), "reference"))
    return _tag("svg", *lines, *_marks(mark, axis, floors), class_="track", height=TRACK_HEIGHT, aria_hidden="true")


def strip(mark: Mark, axis: Axis, floors: Sequence[tuple[str, float]] = ()) -> Markup:
    """A row of a dot plot that stands alone: its gridlines are the ends of its axis, which are written below them."""
    first, *_, last = axis.ticks()
    lines = [_line(axis.share(tick), "grid", end=str(TRACK_HEIGHT)) for tick in (first, last)]
    labels = [_axis_label(axis.share(tick), f"{tick:g}", STRIP_HEIGHT - 1, anchor) for tick, anchor in ((first, "start"), (last, "end"))]
    return _tag("svg", *lines, *_marks(mark, axis, floors), *labels, class_="track", height=STRIP_HEIGHT, aria_hidden="true")


def _marks(mark: Mark, axis: Axis, floors: Sequence[tuple[str, float]]) -> list[Markup]:
    """Interval, floors, dot."""
    middle = TRACK_HEIGHT / 2
    marks = []
    if math.isfinite(mark.low) and math.isfinite(mark.high):
        ends = {"x1": _percent(axis.share(mark.low)), "x2": _percent(axis.share(mark.high))}
        marks.append(_tag("line", y1=middle, y2=middle, class_="interval", **ends))
    for name, value in floors:
        if math.isfinite(value):
            title = _tag("title", escape(visible(f"{name} {shown(name, value)}")))
            marks.append(_tag("circle", title, cx=_percent(axis.share(value)), cy=middle, r=3.5, class_="floor"))
    if math.isfinite(mark.mean):
        marks.append(_tag("circle", cx=_percent(axis.share(mark.mean)), cy=middle, r=5, class_="dot"))
    return marks


def dot_plot(rows: Sequence[DotRow], axis: Axis, reference: float | None = None) -> Markup:
    """Rows of label, dot on its interval, value; an axis below. A forest plot when the rows are shares."""
    drawn = [
        _tag(
            "div", _tag("span", breakable(row.label), class_="dot-label"), track(row.mark, axis, row.floors, reference),
            _tag("span", escape(row.value), _tag("small", escape(visible(row.note))), class_="dot-value"),
            class_="dot-row apart" if row.apart else "dot-row",
        )
        for row in rows
    ]  # fmt: skip
    labels = [_axis_label(axis.share(tick), f"{tick:g}", 14) for tick in axis.ticks()]
    below = _tag("svg", *labels, class_="track axis", height=18, aria_hidden="true")
    return _tag("div", *drawn, _tag("div", _tag("span"), below, _tag("span"), class_="dot-row axis-row"), class_="dots")


def curve(points: Sequence[tuple[float, Mark]], labels: Sequence[tuple[float, str]], axis: Axis, title: str, dots: bool = True) -> Markup:
    """A line through means, in a band of their intervals.

    Args:
        points: (place from left to right in [0, 1], mark); places increase.
        labels: (place, text) below the axis.
        axis: of the marks.
        title: what a screen reader says of the picture.
        dots: whether every point is marked.
    """
    width = 1000  # of the stretched inner drawing; strokes are not stretched with it

    def x(place: float) -> float:
        return CURVE_LEFT + place * (CURVE_RIGHT - CURVE_LEFT)

    def y(value: float) -> float:
        return CURVE_BOTTOM - axis.share(value) * (CURVE_BOTTOM - CURVE_TOP)

    grid = [
        part
        for tick in axis.ticks(4)
        for part in (
            _tag("line", x1="0", x2="100%", y1=_number(y(tick)), y2=_number(y(tick)), class_="grid" if tick else "grid zero"),
            _tag("text", f"{tick:g}", x="0", y=_number(y(tick) - 4), class_="axis-label"),
        )
    ]
    known = [(x(place) * width, mark) for place, mark in points if math.isfinite(mark.mean)]
    banded = [(place, mark) for place, mark in known if math.isfinite(mark.low) and math.isfinite(mark.high)]
    upper = [f"{_number(place)},{_number(y(mark.high))}" for place, mark in banded]
    lower = [f"{_number(place)},{_number(y(mark.low))}" for place, mark in reversed(banded)]
    line = " ".join(f"{_number(place)},{_number(y(mark.mean))}" for place, mark in known)
    drawing = _tag(
        "svg", _tag("polygon", points=" ".join(upper + lower), class_="band"), _tag("polyline", points=line, class_="line"),
        viewBox=f"0 0 {width} {CURVE_HEIGHT}", preserveAspectRatio="none", width="100%", height=CURVE_HEIGHT,
        aria_hidden="true",
    )  # fmt: skip
    marks = [_tag("circle", cx=_percent(place / width), cy=_number(y(mark.mean)), r=4.5, class_="dot") for place, mark in known if dots]
    below = [_axis_label(x(place), text, CURVE_BOTTOM + 20) for place, text in labels]
    return _tag("svg", *grid, drawing, *marks, *below, class_="curve", height=CURVE_HEIGHT, role="img", aria_label=visible(title))


@dataclass(frozen=True)
class Cell:
    """What one attack got out of one prompt; ``recovery`` None where nothing was answered."""

    recovery: float | None
    leaked: bool

    @property
    def level(self) -> str:
        """The class that colours it; "" for nothing."""
        if self.recovery is None:
            return "no-answer"
        if self.leaked:
            return "leaked"
        return "near" if self.recovery >= NEAR_SHARE else "some" if self.recovery >= 0.005 else ""


def heat_map(groups: Sequence[tuple[str, Sequence[Sequence[Cell]]]], title: str) -> Markup:
    """Attacks down, prompts across, as (label of a group, its rows of cells); cells of a level are one path, however many they are."""
    drawn = []
    for index, (label, rows) in enumerate(groups):
        columns = max(map(len, rows), default=0)
        paths: dict[str, list[str]] = {"no-answer": [], "some": [], "near": [], "leaked": []}
        for down, row in enumerate(rows):
            for across, cell in enumerate(row):
                if cell.level:
                    paths[cell.level].append(f"M{across} {down}h1v1h-1z")
        shapes = [_tag("path", d="".join(parts), class_=f"heat-{level}") for level, parts in paths.items() if parts]
        picture = _tag(
            "svg", *shapes, class_="heat apart" if columns <= MOST_APART else "heat",
            viewBox=f"0 0 {columns} {len(rows)}", preserveAspectRatio="none",
            height=HEAT_ROW_HEIGHT * len(rows), data_group=index, data_rows=len(rows), data_columns=columns, aria_hidden="true",
        )  # fmt: skip
        drawn.append(_tag("div", _tag("span", breakable(label), class_="dot-label"), picture, class_="heat-row"))
    return _tag("div", *drawn, class_="heat-map", role="img", aria_label=visible(title))


def breakable(text: str) -> Markup:
    """A name that may be broken behind its underscores where there is little room."""
    return escape(visible(text)).replace("_", Markup("_<wbr>"))


def _axis_label(share: float, text: str, y: float, anchor: str = "middle") -> Markup:
    return _tag("text", escape(visible(text)), x=_percent(share), y=_number(y), text_anchor=anchor, class_="axis-label")


def _line(share: float, kind: str, end: str = "100%") -> Markup:
    return _tag("line", x1=_percent(share), x2=_percent(share), y1="0", y2=end, class_=kind)


def _percent(share: float) -> str:
    return f"{_number(100 * share)}%"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """An element; ``class_`` is "class", other underscores are hyphens; children that are not markup are escaped."""
    written = "".join(f' {key.strip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items())
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")  # noqa: S704
