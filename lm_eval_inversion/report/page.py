"""Results of either host as one HTML page that needs nothing else: no network, no library, no other file.

``page_html`` makes the page, ``write_page`` a file of it. Everything that stands on the page passes through ``visible`` and is escaped;
its Content-Security-Policy allows its own script and style by their hashes and nothing besides, so an output of a model cannot act.
Numbers are those of ``tables``: the same intervals, rounded the same way.
"""

from __future__ import annotations

import base64
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from lm_eval_inversion.characters import count_unspaced, words_of
from lm_eval_inversion.leakage import TIERS, attacks_of_tier, worst_request
from lm_eval_inversion.outputs import OutputCounts, parse_outputs, strip_thinking
from lm_eval_inversion.queries import QuerySet, load_query_set, query_set_names
from lm_eval_inversion.queries.attacks import ATTACK_SETS, attacks_hash, load_attacks
from lm_eval_inversion.report.alignment import MAX_WORDS, Alignment, Piece, align
from lm_eval_inversion.report.compare import MUST_MATCH, differing_arguments, sampling
from lm_eval_inversion.report.defences import defence_of, handed_out_answers
from lm_eval_inversion.report.markup import page_environment
from lm_eval_inversion.report.numbers import shown, shown_estimate, shown_interval
from lm_eval_inversion.report.page_figures import (
    LENGTH_BANDS,
    AttackTable,
    Figure,
    attributes_figure,
    category_figure,
    families_figure,
    heat_figure,
    mark_of,
    metric_axis,
    metric_names,
    outputs_figure,
    union_figure,
)
from lm_eval_inversion.report.plots import strip
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.rerun import install_command, public_signature, report_command, rerun_command, run_settings, signature_line
from lm_eval_inversion.report.tables import (
    CARRIERS,
    COMPLEMENTS,
    Counted,
    complement,
    counted,
    metric_estimate,
    prompt_headline,
    unwritten,
)
from lm_eval_inversion.report.units import count_prompts, prompt_key, values_of
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.report.writing import write_file
from lm_eval_inversion.scoring.metrics import (
    CURVE_PREFIX,
    FAMILY_PREFIX,
    HEADLINES,
    OF_THE_RUN,
    RECORDS,
    WITHHELD,
    floors_of,
    is_floor,
    meaning_of,
    scale_of,
)
from lm_eval_inversion.scoring.records import FLOORS, SHARE
from lm_eval_inversion.scoring.uncertainty import Estimate, fewest_prompts

CAVEATS = ("coverage", "ability")  # what must be looked at before the headline
ROW_SCORES = (
    "bits", "token_f1", "identification_top1", "attribute_recall", "cosine",
    "recovery_max", "asr", "ability", "canary_extracted", "exposure_asked", "coverage",
)  # fmt: skip

SHOWN_CHARACTERS = 8_000  # of a truth or a reconstruction; the rest is counted, not shown
LONG_CHARACTERS, LONG_LINES = 480, 8  # a longer text is folded until it is asked for
ANSWER_CHARACTERS = 4_000  # of one answer
ANSWERS_BUDGET = 24_000_000  # characters of answers on a page; with more, every answer is cut shorter
LEAST_ANSWER_CHARACTERS = 160
BEFORE_DEFENCE = "as before the defence"  # of answers where what was handed out is not known
_MARK = "\ufdd1"  # a noncharacter, which stands in no text
HandedOut = tuple[list[str], list[bool]]  # see ``handed_out_answers``

# What must agree for two runs of a task to be comparable, and what ``compare`` does not warn of, because it may be the very thing that is
# compared: of runs that only stand on one page nobody has said so.
COMPARABLE = (*MUST_MATCH, "package_version", "num_queries", "canary_seed", "tier", "inverter_dtype", "defence")


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


@dataclass(frozen=True)
class PromptView:
    """One system prompt as a card of the page."""

    number: int
    row: Row
    epoch: int
    score: float | None
    scores: Sequence[tuple[str, str, str]]
    alignment: Alignment
    common: str
    cut: int
    answers: int

    @property
    def name(self) -> str:
        """Its id, and where the run has several epochs of the prompt, which of them it is."""
        return f"{self.row.prompt_id}, epoch {self.epoch}" if self.epoch else self.row.prompt_id

    @property
    def long_truth(self) -> bool:
        """Whether the truth is folded until it is asked for."""
        return _is_long(self.row.truth)

    @property
    def long_reconstruction(self) -> bool:
        """Whether the reconstruction is folded until it is asked for."""
        return _is_long(self.row.reconstruction)

    @property
    def unwritten(self) -> str:
        """What stands in the place of a reconstruction where there is none."""
        return unwritten(self.row)

    @property
    def share(self) -> str:
        """What came back, in a few words: in leakage tasks what was found in the worst answer, else the common words."""
        if self.row.requests:
            return _findings(self.row.requests[worst_request(self.row.requests)])
        if self.row.redacted:
            return "redacted"
        return self.common if self.row.reconstruction else ""


@dataclass(frozen=True)
class RunView:
    """One run as a section of the page."""

    key: str
    results: Results
    distinction: str
    counted: Counted
    headline: Score
    caveats: Sequence[Score]
    signature: str
    scores: Sequence[Score]
    left: Sequence[Figure]
    right: Sequence[Figure]
    wide: Sequence[Figure]
    coverage: Sequence[tuple[str, str, str]]
    score_name: str
    leakage: bool
    written: bool
    categories: Sequence[str]
    bands: Sequence[str]
    prompts: Sequence[PromptView]
    full_signature: Mapping[str, str]
    commands: str
    heat_links: Sequence[str]
    data: Markup

    @property
    def model(self) -> str:
        """The evaluated model."""
        return self.results.model or "unnamed model"

    @property
    def name(self) -> str:
        """What no other run on the page is called."""
        return ", ".join(filter(None, (self.model, self.results.task, self.results.host, self.distinction)))

    @property
    def of_epochs(self) -> str:
        """Behind the number of cards, where several are of one system prompt; "" where none are."""
        number = count_prompts(self.results.rows)
        return f", epochs of {number} system prompts" if number < len(self.results.rows) else ""

    @property
    def figures(self) -> list[Figure]:
        """All of them."""
        return [*self.left, *self.right, *self.wide]

    @property
    def floors(self) -> list[str]:
        """Kinds of floors that its scores have, in the order of ``FLOORS``."""
        return _kinds(self.scores)

    @property
    def about_scores(self) -> list[str]:
        """What their floors are, and why some have no interval, in sentences."""
        return [*self._about_floors(), *_about_dashes(self.scores, self.counted.noun)]

    def _about_floors(self) -> list[str]:
        if not self.floors:
            return []
        meanings = FLOORS | {"null": _null_of([score.name for score in self.scores if score.floor("null") is not None])}
        told = [f"{kind.capitalize()}: {meanings[kind]}." for kind in self.floors]
        references = [score.name for score in self.scores if score.name in COMPLEMENTS and score.floors]
        return [*told, "Hollow dots are floors.", *(f"Of {name} they show what it is where nothing can leak." for name in references)]


def _without_interval(name: str, found: Estimate, noun: str = "") -> str:
    """Why an estimate of a metric has a mean and no interval, in words; "" where it has one, or no mean either."""
    if not found.number or math.isfinite(found.low):
        return ""
    if name in OF_THE_RUN:
        return "one value for the whole run"
    if found.number >= fewest_prompts():
        return "too many values are the same for an interval"
    return " ".join(filter(None, (f"fewer than {fewest_prompts()}", noun, "are too few for a bootstrap")))


def _about_dashes(scores: Sequence[Score], noun: str) -> list[str]:
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


def write_page(results: Sequence[Results], output: Path, *, title: str | None = None) -> None:
    """Write one HTML file that shows all runs.

    Args:
        results: runs of either host, of any task, in the order of the page.
        output: the file, in a folder that is made where there is none; an older one is replaced.
        title: of the page; None makes one from the runs.

    Raises:
        ValueError: there are no results, no run has a system prompt with a score, or the file cannot be written.
    """
    write_file(output, page_html(results, title=title))


def page_html(results: Sequence[Results], *, title: str | None = None) -> str:
    """The page as text, without runs that have no score; arguments and errors of ``write_page``, but for those of writing."""
    if not results:
        raise ValueError("no results, no page: give at least one run")
    results = scored_runs(results)
    limit = _answer_characters(results)
    named = zip(results, distinctions(results))
    runs = [_run_view(found, f"run-{number}", limit, told) for number, (found, told) in enumerate(named, 1)]
    carriers = next((run.counted.explained for run in runs if run.counted.planted), "")
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    return page_environment().get_template("page.html.jinja").render(
        title=title or "How easily system prompts are recovered",
        runs=runs,
        comparison=_comparison(runs),
        differences=comparability(results),
        headline_floors=_kinds([run.headline for run in runs]),
        about_dashes=_about_dashes([run.headline for run in runs], f"system prompts or {CARRIERS}" if carriers else "system prompts"),
        carriers=carriers,
        shown=shown,
        shown_interval=shown_interval,
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
    )  # fmt: skip


def scored_runs(results: Sequence[Results]) -> list[Results]:
    """The runs that a page can show; those without any score are named on stderr.

    Raises:
        ValueError: there is none.
    """
    scored = [found for found in results if _score_names(found)]
    names = ", ".join(visible(str(found.source or found.task)) for found in results if not _score_names(found))
    if not scored:
        raise ValueError(f"{names}: no system prompt has a score; run the task again, or inspect score a log that holds answers")
    if names:
        print(f"warning: left off the page, because no system prompt has a score: {names}", file=sys.stderr)
    return scored


def comparability(results: Sequence[Results]) -> list[str]:
    """Per task with several runs, what they do not share: such runs cannot be compared without a thought."""
    told = []
    for runs in _by_kind(results):
        task = runs[0].task if len({found.task for found in runs}) == 1 else runs[0].kind
        if different := _differing_values(runs):
            # What differs in its full text alone, as the folder of a file, reads the same everywhere.
            named = (f"{key} ({'; '.join(dict.fromkeys(values))})" if len(set(values)) > 1 else key for key, values in different.items())
            told.append(f"{task}: the runs differ in {', '.join(named)}")
        if samplings := _differing_samplings(runs):
            told.append(f"{task}: the runs differ in sampling ({'; '.join(filter(None, samplings))}), which moves scores")
        if arguments := differing_arguments(runs):
            told.append(f"{task}: the runs differ in arguments of the model ({', '.join(arguments)})")
        if len(runs) > 1 and not all(found.signed for found in runs):
            told.append(
                f"{task}: what the runs share is not known, because some have no results_*.json of lm_eval beside their samples"
            )
    return told


def distinctions(results: Sequence[Results]) -> list[str]:
    """Per run, in words, the settings that the runs of its task do not share; "" where they share all that is known.

    Models are not looked at, because the page names them beside this. Runs that have the model, and what can be said of their settings, in
    common are told apart by their places on the page.
    """
    told: dict[int, str] = {}  # by identity: the same run may be given twice
    for runs in _by_kind(results):
        settings = _differing_values(runs) | differing_arguments(runs)
        samplings = _differing_samplings(runs) or [""] * len(runs)
        for place, found in enumerate(runs):
            own = [f"{key.replace('_', ' ')} {values[place]}" for key, values in settings.items() if len(set(values)) > 1]
            told[id(found)] = ", ".join(filter(None, (*own, samplings[place])))
    names = [(found.model, found.task, found.host, told[id(found)]) for found in results]
    number = Counter(names)
    return [", ".join(filter(None, (name[-1], f"run {place}" if number[name] > 1 else ""))) for place, name in enumerate(names, 1)]


def _by_kind(results: Sequence[Results]) -> list[list[Results]]:
    """Runs of one task of this package together, whatever their users called it."""
    return [[found for found in results if found.kind == kind] for kind in dict.fromkeys(found.kind for found in results)]


def _differing_values(runs: Sequence[Results]) -> dict[str, tuple[str, ...]]:
    """What must agree and does not -> one value per run, without keys and places."""
    known = [public_signature(found) for found in runs]
    different = [key for key in COMPARABLE if len({str(found.signature.get(key)) for found in runs}) > 1]
    return {key: tuple(values.get(key, "not given") for values in known) for key in different}


def _differing_samplings(runs: Sequence[Results]) -> list[str]:
    """How each run was sampled, "" where that is not known; empty where all that are known agree."""
    samplings = [sampling(found) for found in runs] if len(runs) > 1 else []
    return list(samplings) if len(set(filter(None, samplings))) > 1 else []


@cache
def _asset(name: str) -> str:
    return files("lm_eval_inversion.report").joinpath("templates", name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _run_view(results: Results, key: str, limit: int, distinction: str = "") -> RunView:
    scores = _scores(results)
    named = {score.name: score for score in scores}
    headline = next((named[name] for name in HEADLINES if name in named), scores[0])
    leakage = any(request.get("arm") == "attack" for row in results.rows for request in row.requests)
    written = results.writes
    queries = _queries_of(results)
    score_name = prompt_headline(results.rows) or headline.name
    table = AttackTable(results) if leakage else None
    left, curves = category_figure(results, headline.name, key), outputs_figure(results, queries, key)
    facts = attributes_figure(results, key) if written else None
    right = [families_figure(table, key), union_figure(table, key)] if table else [curves, facts]
    handed_out = _handed_out(results, queries)
    answers, shown = _answers(results, queries, handed_out, limit)
    settings, found = run_settings(results), counted(results.rows)
    categories = dict.fromkeys(row.prompt.category for row in results.rows)
    bands = {row.prompt.length_band for row in results.rows}
    return RunView(
        key=key,
        results=results,
        distinction=distinction,
        counted=found,
        headline=headline,
        caveats=[named[name] for name in CAVEATS if name in named and name != headline.name],
        signature=signature_line(results, settings),
        scores=scores,
        left=[left] if left else [],
        right=[figure for figure in right if figure is not None],
        wide=[heat_figure(table, key)] if table else [],
        coverage=_coverage(results, found, queries, handed_out, named),
        score_name=score_name,
        leakage=leakage,
        written=written,
        categories=sorted(categories),
        bands=[band for band in LENGTH_BANDS if band in bands],
        prompts=[
            _prompt_view(number, row, epoch, score_name, len(shown[number]))
            for number, (row, epoch) in enumerate(zip(results.rows, _epochs(results.rows)))
        ],
        full_signature=public_signature(results),
        commands="\n".join((install_command(results), rerun_command(results, settings), report_command(results))),
        heat_links=[f"{key}-prompt-{places[0]}" for places in table.by_length] if table else [],
        data=htmlsafe_json_dumps(
            {"requests": answers, "prompts": shown, "heat": table.for_script() if table else None}, separators=(",", ":")
        ),
    )


def _floor_label(score: str, floor: str) -> str:
    return f"1 - {floor}" if score in COMPLEMENTS else floor


def _floor_estimate(score: str, floor: str, rows: Sequence[Row]) -> Estimate:
    """A floor's metric on the scale of its score."""
    found = metric_estimate(floor, values_of(rows, floor))
    return complement(found) if score in COMPLEMENTS else found


def _kinds(scores: Sequence[Score]) -> list[str]:
    return [kind for kind in FLOORS if any(found.number for score in scores if (found := score.floor(kind)) is not None)]


def _score_names(results: Results) -> list[str]:
    """Metrics that stand for themselves: floors stand beside them, families of attacks and bits at fewer outputs have plots."""
    names = metric_names(results)
    hidden = {floor for name in names for floor in floors_of(name, names).values()}
    if results.signature.get("defence") in (None, "none"):
        hidden.add("defence_acted")
    return [name for name in names if name not in hidden and not name.startswith((CURVE_PREFIX, FAMILY_PREFIX))]


def _scores(results: Results) -> list[Score]:
    """Metrics that stand for themselves, each with its floors."""
    names = metric_names(results)
    planted = counted(results.rows).planted
    scores = []
    for name in _score_names(results):
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


def _comparison(runs: Sequence[RunView]) -> list[tuple[RunView, Markup]]:
    """Every run with its headline, drawn on one scale per metric."""
    drawn = []
    for run in runs:
        alike = [other.headline for other in runs if other.headline.name == run.headline.name]
        values = [
            value
            for score in alike
            for one in (score.found, *(floor for _, floor in score.floors))
            for value in (one.mean, one.low, one.high)
        ]
        measured = floors_of(run.headline.name, metric_names(run.results))
        floors = [(_floor_label(run.headline.name, measured[kind]), floor.mean) for kind, floor in run.headline.floors]
        drawn.append((run, strip(mark_of(run.headline.found), metric_axis(run.headline.name, values), floors)))
    return drawn


def _queries_of(results: Results) -> QuerySet | None:
    """The queries of an inversion run, if this version of the package has them unchanged."""
    known = results.signature
    if known.get("queries") not in query_set_names():
        return None
    try:
        queries = load_query_set(str(known["queries"])).first(known.get("num_queries"))
    except ValueError:
        return None
    return queries if known.get("queries_hash") in (None, queries.hash) else None


def _handed_out(results: Results, queries: QuerySet | None) -> list[HandedOut] | None:
    """Per system prompt of an inversion run what its defence handed out; None where that cannot be told from what is known of the run."""
    defence = defence_of(results)
    # Markers of a redacted run say nothing of what a guard found in the answers.
    if queries is None or defence is None or any(row.redacted for row in results.rows):
        return None
    return [handed_out_answers(results, row, queries, defence) for row in results.rows]


def _coverage(
    results: Results, found: Counted, queries: QuerySet | None, handed_out: list[HandedOut] | None, named: dict[str, Score]
) -> list[tuple[str, str, str]]:
    """(what, value, note): how much there was to score."""
    told = [("system prompts scored", f"{found.scored} of {found.prompts}", "unscored is not safe" if found.scored < found.prompts else "")]
    told += [(found.noun, str(found.units), "of planted secrets; intervals are over these")] if found.planted else []
    for name in ("coverage", "refusals", "truncated", "over_refusal", "ability"):
        if name in named:
            told.append((name.replace("_", " "), named[name].value, named[name].interval))
    states = Counter(str(request.get("state")) for row in results.rows for request in row.requests)
    if states:
        total = sum(states.values())
        told += [
            ("requests answered", f"{states['answered']} of {total}", ""),
            ("empty answers", str(states["empty"]), ""),
            ("no answer arrived", str(states["error"]), ""),
        ]
    elif queries is not None and handed_out is not None and any(row.answers for row in results.rows):
        counts = sum(
            (replace(parse_outputs(given, queries).counts, defended=sum(acted)) for given, acted in handed_out if given), OutputCounts()
        )
        told += [(WITHHELD, str(counts.defended), "answers; all below is of what was handed out")] if counts.defended else []
        told += [
            ("outputs asked for", str(counts.requested), ""),
            ("outputs kept", str(counts.lines), "distinct and not empty"),
            ("of these, bare refusals", str(counts.refusals), ""),
            ("empty", str(counts.empty), ""),
            ("repeats left out", str(counts.repeats), ""),
            ("answers that break off", str(counts.truncated), ""),
        ]
    return told


def _epochs(rows: Sequence[Row]) -> list[int]:
    """Per row, which epoch of its system prompt it is, from 1; 0 where there is only one."""
    total, met, numbers = Counter(map(prompt_key, rows)), Counter[tuple[str, str]](), []
    for key in map(prompt_key, rows):
        met[key] += 1
        numbers.append(met[key] if total[key] > 1 else 0)
    return numbers


def _prompt_view(number: int, row: Row, epoch: int, score_name: str, answers: int) -> PromptView:
    texts = [visible(text) for text in (row.truth, row.reconstruction)]
    cut_texts = [text[:SHOWN_CHARACTERS] for text in texts]
    scores = []
    for name in ROW_SCORES:
        if name in row.metrics:
            floors = [f"{kind} {shown(name, row.metrics[floor])}" for kind, floor in floors_of(name, row.metrics).items()]
            scores.append((name, shown(name, row.metrics[name]), ", ".join(floors)))
    cut = sum(map(len, texts)) - sum(map(len, cut_texts))
    # Two markers have words in common that say nothing of the texts behind them.
    alignment = Alignment((Piece(cut_texts[0], False),), (Piece(cut_texts[1], False),), 0, 0, 0) if row.redacted else align(*cut_texts)
    common = _in_common(alignment, cut_texts[0], *(len(text) > SHOWN_CHARACTERS for text in texts))
    return PromptView(number, row, epoch, row.metrics.get(score_name), scores, alignment, common, cut, answers)


def _in_common(alignment: Alignment, truth: str, truth_is_cut: bool, reconstruction_is_cut: bool) -> str:
    """How many words of a truth stand in a reconstruction too, of those that were aligned; common by chance or not."""
    aligned, unspaced = min(alignment.words, MAX_WORDS), count_unspaced("".join(words_of(truth)))
    noun = "words" if not unspaced else "characters" if unspaced >= alignment.words else "words and characters"
    first = "the first " if truth_is_cut or aligned < alignment.words else ""
    part = " with the part shown" if reconstruction_is_cut else ""
    if alignment.reconstruction_words > MAX_WORDS:
        part = f" with the first {MAX_WORDS} of the reconstruction"
    return f"{alignment.recovered} of {first}{aligned} {noun} in common{part}"


def _is_long(text: str) -> bool:
    return len(text) > LONG_CHARACTERS or text.count("\n") >= LONG_LINES


def _answer_characters(results: Sequence[Results]) -> int:
    """The longest answer that is shown whole, so that a page of many runs stays small enough to open."""
    number = sum(len(row.answers) for found in results for row in found.rows)
    return min(ANSWER_CHARACTERS, max(LEAST_ANSWER_CHARACTERS, ANSWERS_BUDGET // max(1, number)))


def _answers(
    results: Results, queries: QuerySet | None, handed_out: list[HandedOut] | None, limit: int
) -> tuple[list[list[str]], list[list[list[Any]]]]:
    """What was asked, as [id, text], and per prompt the answers, as [request, findings, before, leaked part, after, characters cut].

    The page's script writes them when a reader opens them: thousands of answers would otherwise slow the page down.
    """
    if not any(row.requests for row in results.rows):
        asked = [[visible(query.id), visible(query.text)] for query in queries.queries] if queries else []
        shown = []
        defence = defence_of(results)
        unknown = BEFORE_DEFENCE if defence is None or defence.guard else ""
        for number, row in enumerate(results.rows):
            answers = row.answers[: len(asked)] if asked else row.answers
            told = [WITHHELD if acted else "" for acted in handed_out[number][1]] if handed_out else [unknown] * len(answers)
            shown.append([[place, told[place], *_cut_answer(answer, None, limit)] for place, answer in enumerate(answers)])
        longest = max(map(len, shown), default=0)
        return asked or [[str(place + 1), ""] for place in range(longest)], shown
    ids = list(dict.fromkeys(str(request["id"]) for row in results.rows for request in row.requests))
    texts = _attack_texts(results)
    places = {name: place for place, name in enumerate(ids)}
    shown = []
    for row in results.rows:
        answers = row.answers if len(row.answers) == len(row.requests) else ("",) * len(row.requests)
        shown.append([
            [places[str(request["id"])], visible(_findings(request)), *_cut_answer(answer, request, limit, row.truth)]
            for request, answer in zip(row.requests, answers)
        ])  # fmt: skip
    return [[visible(name), visible(texts.get(name, ""))] for name in ids], shown


def _attack_texts(results: Results) -> dict[str, str]:
    """Last message of every attack of a run, of a shipped set that has not changed since; files that a result names are not opened."""
    known = results.signature
    if known.get("attacks") not in ATTACK_SETS:
        return {}
    attacks = load_attacks(str(known["attacks"]))
    if known.get("tier") in TIERS:
        attacks = attacks_of_tier(attacks, str(known["tier"]))
    if known.get("attacks_hash") not in (None, attacks_hash(attacks)):
        return {}
    return {attack.id: str(attack.turns[-1]["content"]) for attack in attacks}


def _findings(request: dict[str, Any]) -> str:
    """What was found in the answer to one request, in words."""
    if request.get("state") != "answered":
        told = [{"empty": "empty answer", "error": "no answer arrived"}.get(str(request.get("state")), "")]
        return ", ".join(told + ["leaked in its reasoning"] * bool(request.get("leaked_in_reasoning")))
    told = [WITHHELD] if request.get("defended") else []
    told += [f"recovery {shown('recovery', request['recovery'])}"] if "recovery" in request else []
    if request.get("leaked") and request.get("arm") == "attack":
        told.append("leaked")
    if request.get("decoder") not in (None, "plain"):
        told.append(f"read as {request['decoder']}")
    told += [word for key, word in (("refused", "refused"), ("truncated", "breaks off")) if request.get(key)]
    if request.get("leaked_in_reasoning"):
        told.append("leaked in its reasoning")
    return ", ".join(told)


def _cut_answer(answer: str, request: dict[str, Any] | None, limit: int, truth: str = "") -> list[Any]:
    """[before, leaked part, after, characters cut off]; the leaked part is where the detector says that it stands as it is.

    Args:
        truth: the system prompt, whose own think tags mark no reasoning.
    """
    start = end = 0
    span: Sequence[Any] = (request or {}).get("span") or ()
    # In a redacted run there is nothing in the places of the two numbers; behind a guard they are places in what was handed out instead.
    if not (request or {}).get("defended") and [type(place) for place in span] == [int, int] and (request or {}).get("decoder") == "plain":
        # The span counts from where the answer begins once its reasoning is gone.
        offset = _place_of_final(answer, truth)
        if offset >= 0:
            start, end = offset + int(span[0]), offset + int(span[1])
    shown = answer[: max(0, limit)]
    parts = [visible(part) for part in (shown[:start], shown[start:end], shown[end:])]
    return [*parts, max(0, len(answer) - limit)]


def _place_of_final(answer: str, truth: str) -> int:
    """Where in an answer begins what it says without its reasoning, which may hold the same words before or after; -1 where in one piece
    it stands nowhere."""
    final = strip_thinking(answer, truth)
    place = answer.rfind(final) if final else -1
    # A mark before the right place, and before no other, comes first in what is said.
    while place >= 0 and strip_thinking(f"{answer[:place]}{_MARK}{answer[place:]}", truth) != f"{_MARK}{final}":
        place = answer.rfind(final, 0, place + len(final) - 1)
    return place
