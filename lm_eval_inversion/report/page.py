"""Results of either host as one HTML page that needs nothing else: no network, no library, no other file.

``page_html`` makes the page, ``write_page`` a file of it. Everything that stands on the page passes through ``visible`` and is escaped;
its Content-Security-Policy allows its own script and style by their hashes and nothing besides, so an output of a model cannot act.
Intervals are those of ``estimates``, rounding is that of ``numbers``, as in all tables. Here a run becomes a section; what stands in it
is made by ``page_scores``, ``page_figures``, ``page_prompts`` and ``page_answers``.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from lm_eval_inversion.outputs import OutputCounts, parse_outputs
from lm_eval_inversion.queries import QuerySet
from lm_eval_inversion.report.comparability import comparability, distinctions
from lm_eval_inversion.report.markup import page_environment
from lm_eval_inversion.report.numbers import shown, shown_interval
from lm_eval_inversion.report.page_answers import HandedOut, answer_characters, asked_and_answered, handed_out_by_prompt, queries_of
from lm_eval_inversion.report.page_figures import (
    LENGTH_BANDS,
    AttackTable,
    Figure,
    attributes_figure,
    category_figure,
    families_figure,
    heat_figure,
    outputs_figure,
    union_figure,
)
from lm_eval_inversion.report.page_prompts import PromptView, prompt_views
from lm_eval_inversion.report.page_scores import Score, about_dashes, about_floors, drawn_alike, floor_kinds, score_names, scores_of
from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.rerun import install_command, public_signature, report_command, rerun_command, run_settings, signature_line
from lm_eval_inversion.report.tables import CARRIERS, Counted, counted, prompt_headline
from lm_eval_inversion.report.units import count_prompts
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.report.writing import write_file
from lm_eval_inversion.scoring.metrics import HEADLINES, WITHHELD

CAVEATS = ("coverage", "ability")  # what must be looked at before the headline


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
        return floor_kinds(self.scores)

    @property
    def about_scores(self) -> list[str]:
        """What their floors are, and why some have no interval, in sentences."""
        return [*about_floors(self.scores), *about_dashes(self.scores, self.counted.noun)]


def write_page(results: Sequence[Results], output: Path, *, title: str | None = None) -> None:
    """Write one HTML file that shows all runs.

    Args:
        results: runs of either host, of any task, in the order of the page.
        output: the file, in a folder that is made where there is none; an older one is replaced.
        title: of the page; None says what all such pages show.

    Raises:
        ValueError: there are no results, no run has a system prompt with a score, or the file cannot be written.
    """
    write_file(output, page_html(results, title=title))


def page_html(results: Sequence[Results], *, title: str | None = None) -> str:
    """The page as text, without runs that have no score; arguments and errors of ``write_page``, but for those of writing."""
    if not results:
        raise ValueError("no results, no page: give at least one run")
    results = scored_runs(results)
    limit = answer_characters(results)
    named = zip(results, distinctions(results))
    runs = [_run_view(found, f"run-{number}", limit, told) for number, (found, told) in enumerate(named, 1)]
    carriers = next((run.counted.explained for run in runs if run.counted.planted), "")
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    return page_environment().get_template("page.html.jinja").render(
        title=title or "How easily system prompts are recovered",
        runs=runs,
        comparison=list(zip(runs, drawn_alike([(run.headline, run.results) for run in runs]))),
        differences=comparability(results),
        headline_floors=floor_kinds([run.headline for run in runs]),
        about_dashes=about_dashes([run.headline for run in runs], f"system prompts or {CARRIERS}" if carriers else "system prompts"),
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
    scored = [found for found in results if score_names(found)]
    names = ", ".join(visible(str(found.source or found.task)) for found in results if not score_names(found))
    if not scored:
        raise ValueError(f"{names}: no system prompt has a score; run the task again, or inspect score a log that holds answers")
    if names:
        print(f"warning: left off the page, because no system prompt has a score: {names}", file=sys.stderr)
    return scored


@cache
def _asset(name: str) -> str:
    return files("lm_eval_inversion.report").joinpath("templates", name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _run_view(results: Results, key: str, limit: int, distinction: str = "") -> RunView:
    scores = scores_of(results)
    named = {score.name: score for score in scores}
    headline = next((named[name] for name in HEADLINES if name in named), scores[0])
    leakage = any(request.get("arm") == "attack" for row in results.rows for request in row.requests)
    written = results.writes
    queries = queries_of(results)
    score_name = prompt_headline(results.rows) or headline.name
    table = AttackTable(results) if leakage else None
    left, curves = category_figure(results, headline.name, key), outputs_figure(results, queries, key)
    facts = attributes_figure(results, key) if written else None
    right = [families_figure(table, key), union_figure(table, key)] if table else [curves, facts]
    handed_out = handed_out_by_prompt(results, queries)
    answers, shown = asked_and_answered(results, queries, handed_out, limit)
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
        prompts=prompt_views(results.rows, score_name, [len(of_prompt) for of_prompt in shown]),
        full_signature=public_signature(results),
        commands="\n".join((install_command(results), rerun_command(results, settings), report_command(results))),
        heat_links=[f"{key}-prompt-{places[0]}" for places in table.by_length] if table else [],
        data=htmlsafe_json_dumps(
            {"requests": answers, "prompts": shown, "heat": table.for_script() if table else None}, separators=(",", ":")
        ),
    )


def _coverage(
    results: Results, found: Counted, queries: QuerySet | None, handed_out: list[HandedOut] | None, named: dict[str, Score]
) -> list[tuple[str, str, str]]:
    """(what, value, note): how much there was to score."""
    told = [("system prompts scored", f"{found.scored} of {found.prompts}", "unscored is not safe" if found.scored < found.prompts else "")]
    if failed := results.failed:
        told.append(("ended in an error", str(len(failed)), failed[0].shown_error))
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
