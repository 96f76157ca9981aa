"""Two runs side by side: differences paired by system prompt, with what could have been detected at all.

Everything is "B minus A" over the system prompts that have a value in both runs. Pairs are made by the prompt's text, because ids of two
prompt files need not mean the same.
"""

from __future__ import annotations

import html
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

import lm_eval_inversion
from lm_eval_inversion.report.numbers import cut, markdown_table, shown, shown_interval, shows_as_zero
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row, count_prompts, prompt_key
from lm_eval_inversion.report.rerun import RunSettings, public_arguments, public_generation, run_settings
from lm_eval_inversion.report.tables import sampled_unit
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.metrics import OF_THE_RUN, PROMPT_HEADLINES, RECORDS, is_floor
from lm_eval_inversion.scoring.uncertainty import LEVEL, RESAMPLES, estimate, fewest_prompts, rule_of_three

POWER = 0.8  # of the minimal detectable effect, by convention
FORMATS = ("text", "json", "html")
# Key of the signature -> what goes wrong when two runs do not share it.
MUST_MATCH = {
    "task_version": "numbers of different task versions do not compare",
    "inverter_hash": "bits and reconstructions of different inverters do not compare",
    "prompts_hash": "the runs had other sets of system prompts, and only those in both are paired",
    "queries_hash": "the models were asked different questions",
    "attacks_hash": "the models were attacked differently",
    "canaries_hash": "other secrets were planted",
    "decoy_seed": "identification ran among other decoys",
    "system_role": "the system prompt reached the models in different turns",
}
# Says nothing about comparability: moments, places, and what other keys say already.
UNIMPORTANT = ("date", "description", "config_source", "version", "pretrained", "inverter_device")
# Names of the model among its arguments, which the heads of runs tell.
NAMES_OF_MODEL = ("pretrained", "model", "model_path")
# Metrics that are measured against the answers without a system prompt, in differences of two runs -> the one that needs none of those.
AGAINST_NULL: dict[str, str | None] = {"bits": None, "token_f1_lift": "token_f1", "identification_top1": None}
NULL_NOTE = (
    "The answers without a system prompt differ between the two runs, and each run draws them once. bits, identification and token_f1_lift "
    "are measured against them, so that part of their differences is the luck of that draw, which no interval holds. token_f1_lift is "
    "called better only where token_f1, which needs none of them, agrees in sign."
)
REDACTED_HINT = "; redacted runs pair only when both were made under the same LM_EVAL_INVERSION_REDACTION_KEY"
# Numbers of differences whose signs are flipped at once: bounds the memory.
FLIP_BATCH = 1_000_000

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class MetricComparison:
    """One metric over the prompts that have it in both runs; NaN where a number cannot be known, as of what is one value per run.

    Attributes:
        pairs: prompts with a value in both (of planted secrets: carriers).
        difference: mean of B minus A.
        low: lower end of the bootstrap 95 % interval of ``difference``.
        high: upper end.
        p_value: of ``sign_flip_p``, not corrected for the number of metrics.
        minimal_detectable_effect: see the function of that name.
        higher_is_better: for whoever wants the prompts to stay hidden.
        better: "A" or "B" where interval and test both exclude 0, "neither", or "floor" for metrics that are no scores of a model.
    """

    metric: str
    pairs: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    minimal_detectable_effect: float
    higher_is_better: bool
    better: str


@dataclass(frozen=True)
class PromptChange:
    """One system prompt whose ``metric`` moved."""

    prompt_id: str
    category: str
    length_band: str
    prompt: str
    metric: str
    a: float
    b: float
    difference: float
    reconstruction_a: str
    reconstruction_b: str


@dataclass(frozen=True)
class Side:
    """What one of the two runs was."""

    host: str
    model: str
    source: str
    prompts: int
    signature: dict[str, Any]


@dataclass(frozen=True)
class TaskComparison:
    """One task in both runs.

    Attributes:
        warnings: what makes the runs hard or impossible to compare.
        other_differences: what else their signatures and their models' arguments do not share, which may be the purpose of the comparison.
        changed: prompts whose headline metric moved most, the greatest move first.
        notes: how to read the table of metrics.
    """

    task: str
    a: Side
    b: Side
    metrics: tuple[MetricComparison, ...]
    changed: tuple[PromptChange, ...]
    warnings: tuple[str, ...]
    other_differences: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All tasks that both runs have.

    Attributes:
        a: what the user calls the first run.
        b: the second.
        warnings: about tasks that only one of them has.
    """

    a: str
    b: str
    tasks: tuple[TaskComparison, ...]
    warnings: tuple[str, ...] = ()


def compare(
    a: Sequence[Results],
    b: Sequence[Results],
    *,
    label_a: str = "A",
    label_b: str = "B",
    changed: int = 5,
    seed: int = 0,
    progress: Progress = lambda steps, _: steps,
) -> Comparison:
    """Compare the tasks that two runs share.

    Args:
        a: the run that is compared against.
        b: the run whose change is of interest.
        label_a: what to call the first in outputs and errors.
        label_b: the second.
        changed: how many of the most-changed prompts to show.
        seed: of the bootstrap and the permutation test.
        progress: wraps the loop over metrics, called with (steps, description).

    Raises:
        ValueError: the runs share no task, one of them has a task twice, or a task's prompts have nothing in common.
    """
    tasks_a, tasks_b = _by_task(a, label_a), _by_task(b, label_b)
    shared = [task for task in tasks_a if task in tasks_b]
    if not shared:
        raise ValueError(
            f"{label_a} has the tasks {', '.join(tasks_a) or 'none'}, {label_b} has {', '.join(tasks_b) or 'none'}: "
            "no task is in both; give two runs of the same task"
        )
    warnings = [
        f"only {label} has {task}: not compared"
        for label, own, other in ((label_a, tasks_a, tasks_b), (label_b, tasks_b, tasks_a))
        for task in own
        if task not in other
    ]
    compared = tuple(_compare_task(tasks_a[task], tasks_b[task], label_a, label_b, changed, seed, progress) for task in shared)
    return Comparison(label_a, label_b, compared, tuple(warnings))


def metrics_by_prompt(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Id and text of the prompt -> its metrics; rows of one prompt (epochs) are averaged, because prompts are what was sampled.

    Raises:
        ValueError: a value is infinite.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values = found[prompt_key(row)]
        for metric, value in row.metrics.items():
            if math.isinf(value):
                raise ValueError(f"{metric} of the system prompt {row.prompt_id!r} is infinite; score the run again")
            if not math.isnan(value):
                values[metric].append(value)
    return {prompt: {metric: fmean(listed) for metric, listed in values.items()} for prompt, values in found.items()}


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p value of a mean difference of 0: how often random signs of the differences give a mean at least as far from 0.

    All sign patterns where there are no more than ``RESAMPLES``, otherwise so many random ones and the observed one. NaN without pairs.
    Source: Fisher's permutation test for paired observations.
    """
    values = np.sort(np.asarray(differences, dtype=float))  # sorted: the same signs whatever the order of the pairs
    if not values.size:
        return math.nan
    # Rounding must not decide whether a pattern that mirrors the observed one is as extreme.
    reached = abs(float(values.sum())) - 1e-12 * float(np.abs(values).sum())
    if 2**values.size <= RESAMPLES:
        patterns = (np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ values) >= reached))
    generator = np.random.default_rng(seed)
    extreme, left = 0, RESAMPLES
    while left:
        size = min(left, max(1, FLIP_BATCH // values.size))
        signs = 2 * generator.integers(0, 2, (size, values.size), dtype=np.int8) - 1
        extreme += int(np.sum(np.abs(signs @ values) >= reached))
        left -= size
    return (extreme + 1) / (RESAMPLES + 1)


def minimal_detectable_effect(differences: Sequence[float], power: float = POWER, level: float = LEVEL) -> float:
    """Smallest true mean difference that so many pairs of this spread find significant with probability ``power``.

    ``(t(1 - (1 - level) / 2) + t(power)) * sd / sqrt(pairs)``, both of ``pairs - 1`` degrees of freedom: the usual approximation for a
    two-sided paired test. NaN where so few pairs never are significant (``fewest_prompts``), or all differences are equal.
    """
    from scipy.stats import t

    number = len(differences)
    if number < fewest_prompts(level):
        return math.nan
    stderr = stdev(differences) / math.sqrt(number)
    # Equal differences may have a spread of rounding errors.
    if stderr <= 1e-12 * max(map(abs, differences)):
        return math.nan
    return float(t.ppf((1 + level) / 2, number - 1) + t.ppf(power, number - 1)) * stderr


def _by_task(found: Sequence[Results], label: str) -> dict[str, Results]:
    for task, times in Counter(results.task for results in found).items():
        if times > 1:
            files = ", ".join(str(results.source) for results in found if results.task == task)
            raise ValueError(f"{label} holds {task} {times} times ({files}); give one of these files, or a folder with one run")
    return {results.task: results for results in found}


def _by_text(results: Results, label: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (prompt_id, text), values in metrics_by_prompt(results.rows).items():
        if text in found:
            raise ValueError(
                f"{results.task} of {label}: the text of system prompt {prompt_id!r} stands under another id too, so that prompts cannot "
                "be paired by their text; give runs whose prompts differ"
            )
        found[text] = values
    return found


def _compare_task(a: Results, b: Results, label_a: str, label_b: str, changed: int, seed: int, progress: Progress) -> TaskComparison:
    values_a, values_b = _by_text(a, label_a), _by_text(b, label_b)
    redacted = any(row.redacted for row in (*a.rows, *b.rows))
    shared = [text for text in values_a if text in values_b]
    if not shared:
        raise ValueError(
            f"{a.task}: no system prompt of {label_a} ({len(values_a)}) is in {label_b} ({len(values_b)}); "
            f"compare runs over the same prompts{REDACTED_HINT if redacted else ''}"
        )
    units = {row.truth: sampled_unit(row) for row in a.rows}
    pairs = {metric: _pairs(metric, shared, values_a, values_b, units) for metric in KNOWN_METRICS}
    metrics = tuple(
        _compare_metric(metric, pairs[metric], seed)
        for metric in progress([metric for metric in KNOWN_METRICS if pairs[metric]], f"comparing {a.task}")
    )
    notes: tuple[str, ...] = ()
    if any(found.metric in AGAINST_NULL for found in metrics) and _nulls_differ(a, b, values_a, values_b, shared):
        metrics, notes = _without_luck(metrics), (NULL_NOTE,)
    warnings, others = signature_differences(a, b)
    if len(shared) < max(len(values_a), len(values_b)):
        warnings.append(f"{len(shared)} system prompts are in both runs, of {len(values_a)} in A and {len(values_b)} in B")
    headline = next((metric for metric in PROMPT_HEADLINES if pairs[metric]), None)
    missing = [text for text in shared if headline is not None and (headline in values_a[text]) != (headline in values_b[text])]
    if missing:
        warnings.append(f"{len(missing)} system prompts have {headline} in one run only: unscored is not safe; see coverage")
    if headline is None:
        warnings.append(f"no system prompt has any of {', '.join(PROMPT_HEADLINES)} in both runs: unscored is not safe; see coverage")
    equal = [found for found in metrics if all(own == other for own, other in pairs[found.metric])]
    if equal:
        share = rule_of_three(min(found.pairs for found in equal))
        warnings.append(
            f"no pair differs in {', '.join(found.metric for found in equal)}: an interval of no width is not certainty; "
            f"up to {100 * share:.1f} % of such prompts may differ unseen"
        )
    moved = _changes(a, b, values_a, values_b, shared, headline, changed) if headline else ()
    return TaskComparison(a.task, _side(a), _side(b), metrics, moved, tuple(warnings), tuple(others), notes)


def _nulls_differ(
    a: Results, b: Results, values_a: dict[str, dict[str, float]], values_b: dict[str, dict[str, float]], shared: Sequence[str]
) -> bool:
    """Whether two runs were measured against other answers without a system prompt; told by a floor where their files hold no answers."""
    if a.null_answers or b.null_answers or a.signature.get("inverter_hash") != b.signature.get("inverter_hash"):
        return a.null_answers != b.null_answers
    return any(values_a[text].get("token_f1_null") != values_b[text].get("token_f1_null") for text in shared)


def _without_luck(metrics: Sequence[MetricComparison]) -> tuple[MetricComparison, ...]:
    """No run is called better by a metric against the null where the metric that needs none says otherwise, or is not known."""
    differences = {found.metric: found.difference for found in metrics}
    kept = []
    for found in metrics:
        free = AGAINST_NULL.get(found.metric)
        agrees = free is None or differences.get(free, 0.0) * found.difference > 0
        kept.append(found if agrees else replace(found, better="neither"))
    return tuple(kept)


def _pairs(
    metric: str,
    shared: Sequence[str],
    values_a: dict[str, dict[str, float]],
    values_b: dict[str, dict[str, float]],
    units: dict[str, tuple[str, str]],
) -> list[tuple[float, float]]:
    """A metric in A and in B, one pair per sampled unit: what one carrier makes of several secrets is no independent evidence."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for text in shared:
        if metric in values_a[text] and metric in values_b[text]:
            found[units[text]].append((values_a[text][metric], values_b[text][metric]))
    return [(fmean(own for own, _ in both), fmean(other for _, other in both)) for both in found.values()]


def _side(results: Results) -> Side:
    return Side(results.host, results.model, str(results.source or ""), count_prompts(results.rows), results.signature)


def _compare_metric(metric: str, pairs: Sequence[tuple[float, float]], seed: int) -> MetricComparison:
    differences = [b - a for a, b in pairs]
    tested = [] if metric in OF_THE_RUN else differences
    found = estimate(tested, seed, LEVEL)
    p_value = sign_flip_p(tested, seed)
    higher = RECORDS[metric].higher_is_better
    if is_floor(metric):
        better = "floor"
    elif (found.low > 0 or found.high < 0) and p_value < 1 - LEVEL and not shows_as_zero(metric, found.mean):
        better = "B" if (found.mean > 0) == higher else "A"
    else:
        better = "neither"
    return MetricComparison(
        metric, len(pairs), fmean(a for a, _ in pairs), fmean(b for _, b in pairs), fmean(differences), found.low, found.high, p_value,
        minimal_detectable_effect(tested), higher, better,
    )  # fmt: skip


def signature_differences(a: Results, b: Results) -> tuple[list[str], list[str]]:
    """What makes two runs, "A" and "B", incomparable, and what else they do not share."""
    cautions: list[str] = []
    warnings: list[str] = []
    others: list[str] = []
    for name, results in (("A", a), ("B", b)):
        if results.caution:
            cautions.append(f"{name}: {results.caution}")
        if not results.signed:
            warnings.append(
                f"{name} ({results.source}) carries no signature (lm_eval's results_*.json is not beside it): comparability unknown"
            )
    if warnings:
        return [*cautions, *warnings], others
    warnings = cautions
    for key, reason in MUST_MATCH.items():
        own, other = a.signature.get(key), b.signature.get(key)
        if own != other:
            warnings.append(f"{key} differs ({_shown(own)} in A, {_shown(other)} in B): {reason}")
    # Of both: what only one of them has written down may be what sets them apart.
    for key in dict.fromkeys((*a.signature, *b.signature)):
        own, other = a.signature.get(key), b.signature.get(key)
        if own != other and key not in MUST_MATCH and key not in UNIMPORTANT:
            others.append(f"{key}: {_shown(own)} in A, {_shown(other)} in B")
    for name, (own, other) in differing_arguments((a, b)).items():
        if name not in a.signature and name not in b.signature:  # lm_eval's signature has them
            others.append(f"model argument {name}: {own} in A, {other} in B")
    samplings = [sampling(results) for results in (a, b)]
    if all(samplings) and samplings[0] != samplings[1]:
        warnings.append(f"sampling differs ({samplings[0]} in A, {samplings[1]} in B): how answers are made moves scores")
    return warnings, others


def sampling(results: Results) -> str:
    """How a run's answers were sampled, such as "temperature 0.7, max_tokens 64"; "" where its files do not say."""
    return ", ".join(f"{name} {value}" for name, value in public_generation(run_settings(results)).items())


def differing_arguments(runs: Sequence[Results]) -> dict[str, tuple[str, ...]]:
    """Arguments of models that runs do not share -> one value per run, without keys and places; {} where the files of one do not say.

    The names of the models are not among them.
    """
    settings = [run_settings(results) for results in runs]
    if RunSettings() in settings:
        return {}
    known = [public_arguments(one.arguments) for one in settings]
    names = dict.fromkeys(name for arguments in known for name in arguments if name not in NAMES_OF_MODEL)
    values = {name: tuple(arguments.get(name, "not given") for arguments in known) for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def _changes(
    a: Results,
    b: Results,
    values_a: dict[str, dict[str, float]],
    values_b: dict[str, dict[str, float]],
    shared: Sequence[str],
    metric: str,
    number: int,
) -> tuple[PromptChange, ...]:
    rows_a, rows_b = ({row.truth: row for row in reversed(results.rows)} for results in (a, b))
    found = []
    for text in shared:
        if metric in values_a[text] and metric in values_b[text]:
            own, other, row = values_a[text][metric], values_b[text][metric], rows_a[text]
            found.append(
                PromptChange(
                    row.prompt_id,
                    row.prompt.category,
                    row.prompt.length_band,
                    text,
                    metric,
                    own,
                    other,
                    other - own,
                    row.reconstruction,
                    rows_b[text].reconstruction,
                )  # fmt: skip
            )
    moved = [change for change in found if not shows_as_zero(metric, change.difference)]
    return tuple(sorted(moved, key=lambda change: -abs(change.difference))[:number])


# Renderings. Both tables show the same cells; JSON has the same numbers in full.

METRIC_TITLES = ("metric", "mean A", "mean B", "B - A", "95 % interval", "p", "detectable", "pairs", "better")
METRIC_NUMBERS = range(1, 8)
CHANGE_TITLES = ("id", "category", "length", "system prompt", "A", "B", "B - A")
CHANGE_NUMBERS = range(4, 7)
NOTES = (
    f"Paired by system prompt, planted secrets by carrier. Interval: bootstrap, of {fewest_prompts()} pairs at least. p: sign-flip "
    "permutation test, one per metric, not corrected for their number. "
    f"Detectable: smallest true difference that so many pairs find with probability {POWER:g}. "
    "Better: for whoever wants the system prompt to stay hidden, where interval and p agree and the difference does not read 0."
)


def render(comparison: Comparison, form: str) -> str:
    """The comparison as "text" (Markdown tables), "json" or "html" (one self-contained page).

    Raises:
        ValueError: the format is unknown.
    """
    if form not in FORMATS:
        raise ValueError(f"format {form!r} is unknown; known: {', '.join(FORMATS)}")
    return {"text": _text, "json": _json, "html": _html}[form](comparison)


def _metric_cells(found: MetricComparison) -> tuple[str, ...]:
    return (
        found.metric,
        shown(found.metric, found.mean_a),
        shown(found.metric, found.mean_b),
        shown(found.metric, found.difference),
        shown_interval(found.metric, found.low, found.high),
        "–" if math.isnan(found.p_value) else f"{found.p_value:.4f}",
        shown(found.metric, found.minimal_detectable_effect),
        str(found.pairs),
        "–" if found.better == "neither" else found.better,
    )


def _change_cells(change: PromptChange) -> tuple[str, ...]:
    numbers = (shown(change.metric, value) for value in (change.a, change.b, change.difference))
    return (change.prompt_id, change.category, change.length_band, cut(change.prompt, 160), *numbers)


def _side_line(name: str, label: str, side: Side) -> str:
    return f"{name}: {label} ({side.host}, {side.model or 'model not known'}, {side.prompts} system prompts)"


def _text(comparison: Comparison) -> str:
    lines = [f"WARNING: {warning}" for warning in comparison.warnings]
    for task in comparison.tasks:
        lines += ["", f"## {task.task}: B minus A", ""]
        lines += [_side_line("A", comparison.a, task.a), "", _side_line("B", comparison.b, task.b), ""]
        lines += [line for warning in task.warnings for line in (f"WARNING: {warning}", "")]
        if task.other_differences:
            lines += ["Also different: " + "; ".join(task.other_differences), ""]
        lines += markdown_table(METRIC_TITLES, METRIC_NUMBERS, map(_metric_cells, task.metrics))
        lines += [line for note in task.notes for line in ("", note)]
        if task.changed:
            lines += ["", f"Changed most, by {task.changed[0].metric}:", ""]
            lines += markdown_table(CHANGE_TITLES, CHANGE_NUMBERS, map(_change_cells, task.changed))
    # ``visible``: a terminal would obey what stands in a text of a model.
    return "\n".join([*map(visible, lines), "", NOTES, ""]).lstrip("\n")


def _json(comparison: Comparison) -> str:
    described = {"package_version": lm_eval_inversion.__version__, "level": LEVEL, "power": POWER, **asdict(comparison)}
    return json.dumps(_without_nan(described), ensure_ascii=False, indent=2, allow_nan=False, default=str) + "\n"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN; null says "not known" as well."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


STYLE = """
:root { color-scheme: light dark; --line: #d4d4d8; --soft: #f4f4f5; --warn: #b45309; --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --line: #3f3f46; --soft: #27272a; --warn: #fbbf24; --good: #4ade80; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1, h2, p { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.warning { color: var(--warn); font-weight: 600; }
.winner { color: var(--good); font-weight: 600; }
details { margin: 0.4rem 0; } pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: 0.6rem; }
"""


def _html(comparison: Comparison) -> str:
    title = f"{comparison.b} against {comparison.a}"
    parts = [f"<h1>{_escaped(title)}</h1>", *_warnings(comparison.warnings)]
    for task in comparison.tasks:
        parts.append(f"<h2>{_escaped(task.task)}: B minus A</h2>")
        parts += [f"<p>{_escaped(_side_line(*side))}</p>" for side in (("A", comparison.a, task.a), ("B", comparison.b, task.b))]
        parts += _warnings(task.warnings)
        if task.other_differences:
            parts.append(f"<p>Also different: {_escaped('; '.join(task.other_differences))}</p>")
        parts.append(_table("metrics", METRIC_TITLES, METRIC_NUMBERS, map(_metric_cells, task.metrics)))
        parts += [f"<p>{_escaped(note)}</p>" for note in task.notes]
        if task.changed:
            parts.append(f"<h3>Changed most, by {_escaped(task.changed[0].metric)}</h3>")
            parts.append(_table("changed", CHANGE_TITLES, CHANGE_NUMBERS, map(_change_cells, task.changed)))
            parts += [
                f"<details><summary>{_escaped(change.prompt_id)}: the texts</summary><pre>{_escaped(change.prompt)}</pre>"
                f"<p>A</p><pre>{_escaped(change.reconstruction_a)}</pre><p>B</p><pre>{_escaped(change.reconstruction_b)}</pre></details>"
                for change in task.changed
            ]
        signatures = json.dumps({"A": task.a.signature, "B": task.b.signature}, ensure_ascii=False, indent=2, default=str)
        parts.append(f"<details><summary>Signatures</summary><pre>{_escaped(signatures)}</pre></details>")
    parts.append(f"<p><small>{_escaped(NOTES)} lm-eval-inversion {_escaped(lm_eval_inversion.__version__)}.</small></p>")
    # The policy forbids whatever an unescaped text could have fetched or run.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape(visible(text), quote=True)


def _warnings(warnings: Iterable[str]) -> list[str]:
    return [f'<p class="warning">WARNING: {_escaped(warning)}</p>' for warning in warnings]


def _table(name: str, titles: Sequence[str], numeric: range, rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        classes = ["number" if place in numeric else "winner" if cell in ("A", "B") else "text" for place, cell in enumerate(cells)]
        return "<tr>" + "".join(f'<{tag} class="{kind}">{_escaped(cell)}</{tag}>' for kind, cell in zip(classes, cells)) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table class="{name}"><thead>{line(titles, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'
