"""The page's scores: which metrics stand for themselves, drawn and told beside their floors, and why some have no interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lm_eval_inversion.report.estimates import COMPLEMENTS, complement, metric_estimate
from lm_eval_inversion.report.numbers import shown, shown_estimate, shown_interval
from lm_eval_inversion.report.page_figures import mark_of, metric_axis, metric_names
from lm_eval_inversion.report.plots import strip
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.tables import counted
from lm_eval_inversion.report.units import values_of
from lm_eval_inversion.scoring.metrics import (
    CURVE_PREFIX,
    FAMILY_PREFIX,
    HEADLINES,
    OF_THE_RUN,
    RECORDS,
    floors_of,
    is_floor,
    meaning_of,
    scale_of,
)
from lm_eval_inversion.scoring.records import FLOORS, SHARE
from lm_eval_inversion.scoring.uncertainty import Estimate, fewest_prompts


@dataclass(frozen=True)
class Score:
    """A metric over a run, beside its floors; ``meaning`` is one line for people, "" of metrics of other versions."""

    name: str
    meaning: str
    found: Estimate
    floors: tuple[tuple[str, Estimate], ...]
    higher_is_better: bool | None
    track: Markup

    @property
    def value(self) -> str:
        """The mean, as in the tables."""
        return shown(self.name, self.found.mean)

    @property
    def interval(self) -> str:
        """The 95 % interval, as in the tables."""
        return shown_interval(self.name, self.found.low, self.found.high)

    @property
    def without_interval(self) -> str:
        """Why it has a mean and no interval, in words; "" where it has one, or no mean either."""
        return _without_interval(self.name, self.found)

    @property
    def unit(self) -> str:
        """What it is counted in; "" of proportions, and where the name says it."""
        scale = scale_of(self.name)
        return "" if scale == SHARE or scale.unit in self.name.split("_") else scale.unit

    @property
    def direction(self) -> str:
        """What a higher value means for whoever keeps the prompt secret."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    @property
    def beside(self) -> str:
        """Its floors in words, for a complement its references; "" without any."""
        references = self.name in COMPLEMENTS
        told = [f"{FLOORS[kind] if references else kind} {shown_estimate(self.name, one)}" for kind, one in self.floors]
        return f"{'References' if references else 'Floors'}: {', '.join(told)}" if told else ""

    def floor(self, kind: str) -> Estimate | None:
        """The floor of a kind of ``FLOORS``."""
        return dict(self.floors).get(kind)


def score_names(results: Results) -> list[str]:
    """Metrics that stand for themselves: floors stand beside them, families of attacks and bits at fewer outputs have plots."""
    names = metric_names(results)
    hidden = {floor for name in names for floor in floors_of(name, names).values()}
    if results.signature.get("defence") in (None, "none"):
        hidden.add("defence_acted")
    return [name for name in names if name not in hidden and not name.startswith((CURVE_PREFIX, FAMILY_PREFIX))]


def scores_of(results: Results) -> list[Score]:
    """Metrics that stand for themselves, each with its floors."""
    names = metric_names(results)
    planted = counted(results.rows).planted
    scores = []
    for name in score_names(results):
        found = metric_estimate(name, values_of(results.rows, name))
        measured = floors_of(name, names)
        floors = [(kind, _floor_estimate(name, floor, results.rows)) for kind, floor in measured.items()]
        axis = metric_axis(name, [found.mean, found.low, found.high, *(floor.mean for _, floor in floors)])
        drawn = strip(mark_of(found), axis, [(_floor_label(name, measured[kind]), floor.mean) for kind, floor in floors])
        higher_is_better = RECORDS[name].higher_is_better if name in RECORDS and not is_floor(name) else None
        scores.append(Score(name, meaning_of(name, planted), found, tuple(floors), higher_is_better, drawn))
    # The headline first, how much there was to score last.
    first = next((name for name in HEADLINES if name in names), "")
    return sorted(scores, key=lambda score: (score.name != first, score.name == "coverage"))


def drawn_alike(scores: Sequence[tuple[Score, Results]]) -> list[Markup]:
    """Scores of several runs, each with the run that it is of, drawn on one scale per metric."""
    drawn = []
    for score, results in scores:
        alike = [other for other, _ in scores if other.name == score.name]
        values = [
            value
            for other in alike
            for one in (other.found, *(floor for _, floor in other.floors))
            for value in (one.mean, one.low, one.high)
        ]
        measured = floors_of(score.name, metric_names(results))
        floors = [(_floor_label(score.name, measured[kind]), floor.mean) for kind, floor in score.floors]
        drawn.append(strip(mark_of(score.found), metric_axis(score.name, values), floors))
    return drawn


def _floor_label(score: str, floor: str) -> str:
    return f"1 - {floor}" if score in COMPLEMENTS else floor


def _floor_estimate(score: str, floor: str, rows: Sequence[Row]) -> Estimate:
    """A floor's metric on the scale of its score."""
    found = metric_estimate(floor, values_of(rows, floor))
    return complement(found) if score in COMPLEMENTS else found


def floor_kinds(scores: Sequence[Score]) -> list[str]:
    """Kinds of floors that scores have, in the order of ``FLOORS``."""
    return [kind for kind in FLOORS if any(found.number for score in scores if (found := score.floor(kind)) is not None)]


def _without_interval(name: str, found: Estimate, noun: str = "") -> str:
    """Why an estimate of a metric has a mean and no interval, in words; "" where it has one, or no mean either."""
    if not found.number or math.isfinite(found.low):
        return ""
    if name in OF_THE_RUN:
        return "one value for the whole run"
    if found.number >= fewest_prompts():
        return "too many values are the same for an interval"
    return " ".join(filter(None, (f"fewer than {fewest_prompts()}", noun, "are too few for a bootstrap")))


def about_floors(scores: Sequence[Score]) -> list[str]:
    """What the floors of scores are, in sentences; none where there are no floors."""
    kinds = floor_kinds(scores)
    if not kinds:
        return []
    meanings = FLOORS | {"null": _null_of([score.name for score in scores if score.floor("null") is not None])}
    told = [f"{kind.capitalize()}: {meanings[kind]}." for kind in kinds]
    references = [score.name for score in scores if score.name in COMPLEMENTS and score.floors]
    return [*told, "Hollow dots are floors.", *(f"Of {name} they show what it is where nothing can leak." for name in references)]


def about_dashes(scores: Sequence[Score], noun: str) -> list[str]:
    """What the dashes in the places of intervals mean, of scores and of their floors, where there are any."""
    estimates = [(score.name, found) for score in scores for found in (score.found, *(floor for _, floor in score.floors))]
    reasons = dict.fromkeys(filter(None, (_without_interval(name, found, noun) for name, found in estimates)))
    return [f"A dash in the place of an interval: {'; or '.join(reasons)}."] if reasons else []


def _null_of(scores: Sequence[str]) -> str:
    """What these scores are measured on for the floor of the kind "null"."""
    if all(score.startswith("exposure") for score in scores):
        return "a secret that the system prompt does not hold"
    bits = "; for bits, the absolute value of what comes out between halves of those answers" if "bits" in scores else ""
    return f"{FLOORS['null']}{bits}"
