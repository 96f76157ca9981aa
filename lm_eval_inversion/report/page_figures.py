"""The page's figures: what is drawn, and the same numbers as a table.

Intervals are those of ``estimates``, rounding is that of ``numbers``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from lm_eval_inversion.prompts.schema import MEDIUM_MAX_WORDS, SHORT_MAX_WORDS, SLOTS
from lm_eval_inversion.queries import QuerySet
from lm_eval_inversion.report.estimates import bootstrap_of_shares, metric_estimate, share_over_units, wilson_bounds
from lm_eval_inversion.report.numbers import shown, shown_interval
from lm_eval_inversion.report.plots import SHARES, Axis, Cell, DotRow, Mark, axis_of, curve, dot_plot, heat_map
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.tables import answers_to, counted, fallen_to, over_answers
from lm_eval_inversion.report.units import by_unit, prompt_key, values_of
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.attributes import mentions
from lm_eval_inversion.scoring.metrics import CURVE_PREFIX, is_scored, scale_of
from lm_eval_inversion.scoring.records import SHARE
from lm_eval_inversion.scoring.uncertainty import Estimate, fewest_prompts

LENGTH_BANDS = ("short", "medium", "long")


@dataclass(frozen=True)
class Figure:
    """A plot with the same numbers as a table."""

    key: str
    title: str
    note: str
    plot: Markup
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def metric_names(results: Results) -> list[str]:
    """The run's metrics in the order of the tables, then others (older or newer versions)."""
    present = dict.fromkeys(name for row in results.rows for name in row.metrics)
    return [name for name in (*KNOWN_METRICS, *(name for name in present if name not in KNOWN_METRICS)) if name in present]


def mark_of(found: Estimate) -> Mark:
    """What is drawn of an estimate."""
    return Mark(found.mean, found.low, found.high)


def metric_axis(metric: str, values: Iterable[float]) -> Axis:
    """The axis of a metric: 0 to 1 for shares, else what holds the values."""
    return SHARES if scale_of(metric) == SHARE else axis_of(values)


def category_figure(results: Results, metric: str, key: str) -> Figure | None:
    """A metric by category and by length band; None where no prompt has it."""
    groups: list[tuple[str, list[Row], bool]] = [
        (category, [row for row in results.rows if row.prompt.category == category], False)
        for category in sorted({row.prompt.category for row in results.rows})
    ]
    bands = [band for band in LENGTH_BANDS if any(row.prompt.length_band == band for row in results.rows)]
    for band in bands:
        groups.append((band, [row for row in results.rows if row.prompt.length_band == band], band == bands[0]))
    found = [(label, metric_estimate(metric, values_of(rows, metric)), apart) for label, rows, apart in groups]
    known = [(label, one, apart) for label, one, apart in found if one.number]
    if not known:
        return None
    axis = metric_axis(metric, [value for _, one, _ in known for value in (one.mean, one.low, one.high)])
    rows = [DotRow(label, mark_of(one), shown(metric, one.mean), f"n = {one.number}", apart=apart) for label, one, apart in known]
    mean, units = metric_estimate(metric, values_of(results.rows, metric)).mean, counted(results.rows)
    return Figure(
        f"{key}-category", f"{metric.replace('_', ' ').capitalize()} by category and length",
        f"Mean and 95 % interval over the {units.noun} of each category, then by length (short: up to {SHORT_MAX_WORDS} words, "
        f"medium: up to {MEDIUM_MAX_WORDS}). The dashed line is the mean of all, {shown(metric, mean)}.",
        dot_plot(rows, axis, mean), ("group", metric, "95 % interval", units.column),
        [(label, shown(metric, one.mean), shown_interval(metric, one.low, one.high), str(one.number)) for label, one, _ in known],
    )  # fmt: skip


def outputs_figure(results: Results, queries: QuerySet | None, key: str) -> Figure | None:
    """Bits against the number of outputs that the inverter reads, from ``bits_at_1``, ``bits_at_2``, … and ``bits`` at all."""
    numbers = sorted(int(name.removeprefix(CURVE_PREFIX)) for name in metric_names(results) if name.removeprefix(CURVE_PREFIX).isdigit())
    if not numbers:
        return None
    points = [(number, str(number), metric_estimate("bits", values_of(results.rows, f"{CURVE_PREFIX}{number}"))) for number in numbers]
    full = sum(query.items for query in queries.queries) if queries else results.signature.get("num_queries")
    everything = metric_estimate("bits", values_of(results.rows, "bits"))
    if everything.number and full not in numbers:
        known = isinstance(full, int) and full > numbers[-1]
        points.append((int(full) if known and full else 2 * numbers[-1], str(full) if known else "all", everything))
    least, most = math.log2(points[0][0]), math.log2(points[-1][0])
    places = [(math.log2(number) - least) / ((most - least) or 1.0) for number, _, _ in points]
    axis = axis_of([value for _, _, one in points for value in (one.mean, one.low, one.high)])
    drawn = [(place, mark_of(one)) for place, (_, _, one) in zip(places, points)]
    labels = [(place, label) for place, (_, label, _) in zip(places, points)]
    band = "; the band is the 95 % interval" if any(math.isfinite(mark.low) for _, mark in drawn) else ""
    return Figure(
        f"{key}-outputs", "Bits by number of outputs",
        f"Mean bits when the inverter reads only so many outputs, evenly spread over all of them{band}. The axis doubles at equal steps.",
        curve(drawn, labels, axis, f"Bits from {points[0][1]} to {points[-1][1]} outputs"),
        ("outputs", "bits", "95 % interval", "prompts"),
        [(label, shown("bits", one.mean), shown_interval("bits", one.low, one.high), str(one.number)) for _, label, one in points],
    )  # fmt: skip


def attributes_figure(results: Results, key: str) -> Figure | None:
    """Per slot, the facts that the reconstructions of scored prompts name, and the wrong ones that they claim."""
    recovered: dict[str, list[tuple[Row, float]]] = defaultdict(list)  # slot -> per stated fact 1 or 0
    claimed: dict[str, list[tuple[Row, float]]] = defaultdict(list)
    for row in results.rows:
        if not is_scored(row.metrics):
            continue
        for attribute in row.prompt.attributes:
            named = any(mentions(row.reconstruction, value) for value in (attribute.value, *attribute.aliases))
            recovered[attribute.slot].append((row, float(named)))
            claimed[attribute.slot].append((row, float(mentions(row.reconstruction, attribute.false_value))))
    if not recovered:
        return None
    slots = [*(slot for slot in SLOTS if slot in recovered), *sorted(set(recovered) - set(SLOTS))]
    rows, table = [], []
    for slot in slots:
        share, false_share = share_over_units(recovered[slot]), share_over_units(claimed[slot]).mean
        found, false = (round(sum(value for _, value in facts[slot])) for facts in (recovered, claimed))
        number = len(recovered[slot])
        rows.append(DotRow(slot, mark_of(share), f"{found} of {number}", f"{false} false", (("false claims", false_share),)))
        counts = (str(found), str(false), str(number))
        recall = (shown("attribute_recall", share.mean), shown_interval("attribute_recall", share.low, share.high))
        table.append((slot, *counts, *recall, shown("attribute_false_claims", false_share)))
    return Figure(
        f"{key}-attributes", "Facts recovered",
        "Of the facts that the prompts state, how many the reconstructions name. Shares are means over system prompts, with Wilson's 95 % "
        "interval. The hollow dot is the share of plausible but wrong facts that they claim.",
        dot_plot(rows, SHARES), ("slot", "recovered", "falsely claimed", "of", "share", "95 % interval", "false share"), table,
    )  # fmt: skip


class AttackTable:
    """Who fell to what: the last turns of all attacks, in their frozen order, over the prompts in their order.

    Attributes:
        counted: its system prompts, and what was sampled.
        by_length: places of the rows of each system prompt (of every epoch one), the shortest prompt first.
    """

    def __init__(self, results: Results) -> None:
        self.rows = results.rows
        self.counted = counted(results.rows)
        self.attacks: dict[str, str] = {}  # id -> family
        self.found: list[dict[str, dict[str, Any]]] = []
        for row in results.rows:
            last = {request["attack"]: request for request in row.requests if request["arm"] == "attack" and request["last"]}
            self.found.append(last)
            for attack, request in last.items():
                self.attacks.setdefault(attack, request["family"])
        self.order = list(self.attacks)
        self.families = list(dict.fromkeys(self.attacks.values()))
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            places[prompt_key(row)].append(place)
        self.by_length = sorted(places.values(), key=lambda own: (self.rows[own[0]].prompt.words, self.rows[own[0]].prompt_id))

    def of_family(self, family: str) -> list[str]:
        """Its attacks, in their order."""
        return [attack for attack, other in self.attacks.items() if other == family]

    def cell(self, places: Sequence[int], attack: str) -> Cell:
        """What an attack got out of the prompt whose rows stand at these places: of epochs the mean, and whether any of them leaked."""
        asked = [self.found[place][attack] for place in places if attack in self.found[place]]
        answered = [request for request in asked if request["state"] == "answered"]
        if not answered:
            return Cell(None, False)
        recovery = fmean(float(request.get("recovery", request["leaked"])) for request in answered)
        return Cell(recovery, any(request["leaked"] for request in answered))

    def for_script(self) -> dict[str, Any]:
        """What the heat map says under the pointer: recovery as the tables write it (None: no answer), leaked as 0 and 1."""
        groups = []
        for family in self.families:
            attacks = []
            for attack in self.of_family(family):
                cells = [self.cell(places, attack) for places in self.by_length]
                recovery = [None if cell.recovery is None else shown("recovery", cell.recovery) for cell in cells]
                attacks.append({"id": visible(attack), "recovery": recovery, "leaked": "".join(str(int(cell.leaked)) for cell in cells)})
            groups.append(attacks)
        return {"groups": groups, "prompts": [[places[0], visible(self.rows[places[0]].prompt_id)] for places in self.by_length]}


def families_figure(table: AttackTable, key: str) -> Figure:
    """Success per attack family, as a forest plot."""
    rows, written = [], []
    for family in table.families:
        answered = answers_to(table.rows, table.of_family(family))
        leaked = over_answers(answered, "leaked")
        share, hits = share_over_units(leaked), round(sum(value for _, value in leaked))
        sampled = bootstrap_of_shares(tuple(by_unit(leaked)))
        told = (shown("asr", share.mean), f"{hits} of {len(answered)}") if answered else ("", "no answer")
        rows.append(DotRow(family, mark_of(share), *told))
        intervals = (shown_interval("asr", one.low, one.high) for one in (share, sampled))
        written.append((family, str(hits), str(len(answered)), shown("asr", share.mean), *intervals))
    secret = "a planted secret" if table.counted.planted else "the prompt"
    noun = table.counted.noun
    return Figure(
        f"{key}-families", "Attack families",
        f"Share of answers that gave {secret} away: mean and Wilson's 95 % interval over {noun}, because answers under one of these "
        "resemble each other. The table adds the bootstrap.",
        dot_plot(rows, SHARES),
        ("family", "leaked", "answered", "ASR", "95 % interval (Wilson)", "95 % interval (bootstrap)"), written,
    )  # fmt: skip


def union_figure(table: AttackTable, key: str) -> Figure:
    """Share of prompts that fell to the first k attacks; in its table, the numbers of ``attacks_table``."""
    points, written = [], []
    last = max(1, len(table.order) - 1)
    for index, (attack, column) in enumerate(zip(table.order, fallen_to(table.rows, table.order))):
        union = bootstrap_of_shares(tuple(column))
        points.append((index / last, mark_of(union)))
        answered = answers_to(table.rows, [attack])
        share, recovery = (share_over_units(over_answers(answered, key)) for key in ("leaked", "recovery"))
        readings = ", ".join(sorted({str(request.get("decoder") or "plain") for _, request in answered if request["leaked"]}))
        written.append((
            str(index + 1), attack, shown("asr", share.mean), shown_interval("asr", share.low, share.high),
            shown("asr_union", union.mean), shown_interval("asr_union", union.low, union.high),
            shown_interval("asr_union", *wilson_bounds(union.mean, union.number)), shown("recovery", recovery.mean),
            readings if answered else "no answer",
        ))  # fmt: skip
    size = len(table.order)
    fell = "gave a planted secret away" if table.counted.planted else "fell"
    marked = sorted({1, *(round(size * part / 4) or 1 for part in range(1, 5))})
    return Figure(
        f"{key}-union", "Union of attacks",
        f"Share of system prompts that {fell}, at any turn, to at least one of the first k attacks, in their frozen order. The band is the "
        f"bootstrap over {table.counted.noun}; there is none where none, all or all but a few fell, or of fewer than {fewest_prompts()} "
        f"{table.counted.noun}, so the table adds Wilson's interval.",
        curve(points, [((number - 1) / last, str(number)) for number in marked], SHARES, f"Union ASR over {size} attacks", dots=size <= 16),
        (
            "k", "attack", "ASR", "95 % interval", "union ASR@k", "95 % interval (bootstrap)", "95 % interval (Wilson)", "recovery",
            "read as",
        ),
        written,
    )  # fmt: skip


def heat_figure(table: AttackTable, key: str) -> Figure:
    """Recovery of every prompt by every attack."""
    groups = [
        (family, [[table.cell(places, attack) for places in table.by_length] for attack in table.of_family(family)])
        for family in table.families
    ]
    written = []
    for places in table.by_length:
        cells = {attack: table.cell(places, attack) for attack in table.order}
        told = [
            f"{attack} {shown('recovery', cell.recovery)}{'*' if cell.leaked else ''}"
            for attack, cell in cells.items()
            if cell.recovery is not None and (cell.leaked or shown("recovery", cell.recovery) != shown("recovery", 0.0))
        ]
        silent = sum(cell.recovery is None for cell in cells.values())
        prompt = table.rows[places[0]].prompt
        written.append((
            prompt.id, str(prompt.words), f"{sum(cell.leaked for cell in cells.values())} of {len(cells) - silent}", str(silent),
            ", ".join(told) or "nothing",
        ))  # fmt: skip
    return Figure(
        f"{key}-heat", "Attack by prompt",
        "Every column is a system prompt, short ones left, long ones right; every line of a family is an attack. Of several epochs, "
        "recovery is the mean, and one leak is enough.",
        heat_map(groups, f"Recovery of {len(table.by_length)} prompts by {len(table.order)} attacks"),
        ("prompt", "words", "leaked to", "no answer", "recovery by attack (* leaked; not named: 0.000)"), written,
    )  # fmt: skip
