"""Defences side by side: what comes out behind each, and what the assistant still does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lm_eval_inversion.protocol import TASKS
from lm_eval_inversion.queries import QuerySet, load_query_set, user_turn
from lm_eval_inversion.queries.defences import DEFENCES, Defence, defence_hash, defend_answers, load_defence
from lm_eval_inversion.report.comparability import signature_differences
from lm_eval_inversion.report.compare import REDACTED_HINT
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import markdown_table, shown_estimate
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.units import by_unit, count_prompts, values_of
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.utility import answer_similarity

COLUMNS = ("bits", "token_f1_lift", "asr", "asr_union", "over_refusal", "utility", "defence_acted")
SIMILARITY = "similarity"


def defences_table(runs: Sequence[Results]) -> str:
    """One row a run: means over system prompts with 95 % intervals. ``similarity`` is that of its answers to those without a defence.

    Below it, what makes a run hard to compare with the one without a defence, or with the first of its task and model if there is none,
    and how many system prompts have no ``similarity``.

    Raises:
        ValueError: two runs of one task and model have the same defence, so that a row would be ambiguous.
    """
    known: dict[tuple[str, str, str, str], Results] = {}
    for run in runs:
        key = (run.task, run.host, run.model, _defence(run))
        if key in known:
            raise ValueError(
                f"{run.source} and {known[key].source} are both {run.task} of {run.model or 'one model'} with defence={key[-1]}; give one"
            )
        known[key] = run
    rows: list[Sequence[str]] = []
    warnings: list[str] = []
    firsts: dict[tuple[str, str, str], Results] = {}
    for (task, host, model, defence), run in known.items():
        undefended = known.get((task, host, model, "none")) or _undefended(run, runs)
        reference = undefended or firsts.setdefault((run.kind, host, model), run)
        if run.caution:
            warnings.append(f"{task}, defence={defence}: {run.caution}")
        if run is not reference:
            pair = f"defence={defence} (B) against {_defence(reference)} (A)"
            warnings += [f"{task}, {pair}: {told}" for told in _incomparable(run, reference)]
        cells = [shown_estimate(metric, metric_estimate(metric, values_of(run.rows, metric))) for metric in COLUMNS]
        alike = similarities(run, undefended) if undefended else []
        if left_out := sum(map(math.isnan, alike)):
            warnings.append(
                f"{task}, defence={defence}: {left_out} of {len(alike)} system prompts have no similarity, because answers to the same "
                "messages are missing in one of the runs"
            )
        cells += [shown_estimate(SIMILARITY, metric_estimate(SIMILARITY, alike)), str(count_prompts(run.rows))]
        rows.append((task, model, defence, *cells))
    titles = ("task", "model", "defence", *COLUMNS, SIMILARITY, "prompts")
    lines = markdown_table(titles, range(3, len(titles)), rows)
    lines += [line for warning in dict.fromkeys(warnings) for line in ("", f"WARNING: {warning}")]
    return "\n".join(map(visible, lines))


def _undefended(run: Results, runs: Sequence[Results]) -> Results | None:
    """The first run without a defence of the same task of this package, host and model, whatever its user called the task."""
    wanted = (run.kind, run.host, run.model, "none")
    return next((other for other in runs if (other.kind, other.host, other.model, _defence(other)) == wanted), None)


def _incomparable(run: Results, reference: Results) -> list[str]:
    """What makes a run hard to compare with another, as a rule the one without a defence."""
    found, _ = signature_differences(reference, run)
    prompts, others = ({row.truth for row in results.rows} for results in (run, reference))
    if prompts != others and all(row.redacted for results in (run, reference) for row in results.rows):
        # Each has markers of its own, which say nothing of whether the prompts behind them are the same.
        found = [told for told in found if not told.startswith("prompts_hash")]
        return [*found, f"whether their prompts are the same is not known{REDACTED_HINT}"]
    return [*found, *(["their system prompts are not the same"] if prompts != others else [])]


def similarities(run: Results, undefended: Results) -> list[float]:
    """Per system prompt of an inversion task, how similar the answers handed out are to those of the undefended run.

    NaN where there is nothing to compare, as after a sample that ended in an error: no answers, or fewer than the other run has to the
    same messages. Leakage tasks are left out: an attack should be answered otherwise behind a defence. So are redacted runs.
    """
    if run.kind not in TASKS or any(row.redacted for row in run.rows):  # markers say nothing of how alike the answers are
        return []
    # Of several epochs any will do that has answers.
    others = {row.truth: row.answers for row in sorted(undefended.rows, key=lambda row: len(row.answers))}
    queries, defence = load_query_set(TASKS[run.kind].query_set), load_defence(_defence(run))
    values = []
    for row in run.rows:
        if row.truth in others:
            given, _ = handed_out_answers(run, row, queries, defence)
            undefended_answers = others[row.truth][: len(given)]
            similarity = answer_similarity(given, undefended_answers) if len(undefended_answers) == len(given) else None
            values.append((row, math.nan if similarity is None else similarity))
    return by_unit(values)


def handed_out_answers(run: Results, row: Row, queries: QuerySet, defence: Defence) -> tuple[list[str], list[bool]]:
    """What the defence of an inversion run handed out under one system prompt, and where it acted: one each per query and answer."""
    turns = [tuple(user_turn(query.text)) for query in queries.queries][: len(row.answers)]
    answers = row.answers[: len(turns)]
    given, acted = defend_answers(defence, row.truth, turns, answers, run.nulls_of(row)[: len(turns)])
    return [text or "" for text in given], acted


def defence_of(run: Results) -> Defence | None:
    """The defence of a run; None where this version does not have it, or has changed it since the run."""
    name, known = _defence(run), run.signature.get("defence_hash")
    defence = DEFENCES.get(name)
    return defence if defence is not None and known in (None, defence_hash(defence)) else None


def _defence(run: Results) -> str:
    return str(run.signature.get("defence") or "none")
