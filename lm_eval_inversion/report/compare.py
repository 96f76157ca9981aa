"""Two runs side by side: differences paired by system prompt, with what could have been detected at all.

Everything is "B minus A" over the system prompts that have a value in both runs. Pairs are made by the prompt's text, because ids of two
prompt files need not mean the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from lm_eval_inversion.report.comparability import signature_differences
from lm_eval_inversion.report.numbers import shows_as_zero
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.units import by_unit, count_prompts, rows_by_prompt
from lm_eval_inversion.scoring.metrics import (
    CURVE_NUMBERS,
    CURVE_PREFIX,
    OF_THE_RUN,
    PROMPT_HEADLINES,
    RECORDS,
    is_floor,
    scale_of,
)
from lm_eval_inversion.scoring.uncertainty import (
    EQUAL_DECIMALS,
    LEVEL,
    RESAMPLES,
    Estimate,
    estimate,
    mean_of_known,
    rule_of_three,
)

POWER = 0.8  # of the minimal detectable effect, by convention
# Metrics that are measured against the answers without a system prompt -> the metrics, with their signs, whose sum is the same without the
# luck of that draw: the decoys of a prompt are measured against the same answers, and token_f1 against none (docs/LOG.md, "The floor of
# texts").
FREE_OF_NULL = {"bits": {"bits": 1, "bits_swap": -1}, "token_f1_lift": {"token_f1": 1}}
# Others that are measured against them -> whose verdict they follow; ranks have none to follow, and hardly move when all candidates do.
AGAINST_NULL: dict[str, str | None] = {
    **{metric: metric for metric in FREE_OF_NULL}, **{f"{CURVE_PREFIX}{number}": "bits" for number in CURVE_NUMBERS},
    "bits_per_token": "bits", "identification_top1": None, "identification_mrr": None,
}  # fmt: skip
NULL_NOTE = (
    "The answers without a system prompt differ between the two runs, and each run draws them once. bits, identification and token_f1_lift "
    "are measured against them, so that part of their differences is the luck of that draw, which no interval holds. token_f1_lift is "
    "called better only where token_f1, which needs none of them, calls the same run better; bits, whole, per token and from fewer "
    "outputs, only where bits above those of the decoys (bits_swap), which are measured against the same answers, do. Identification "
    "hardly moves with a draw, because it moves all candidates."
)
REDACTED_HINT = "; redacted runs pair only when both were made under the same LM_EVAL_INVERSION_REDACTION_KEY"
LEAST_DIFFERING = 10  # pairs, for the smallest effect that a comparison finds
# Numbers of differences whose signs are flipped at once: bounds the memory.
FLIP_BATCH = 1_000_000

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class MetricComparison:
    """One metric over the prompts that have it in both runs; NaN where a number cannot be known, as of what is one value per run.

    Attributes:
        pairs: prompts with a value in both (of planted secrets: carriers).
        difference: mean of B minus A.
        low: lower end of the bootstrap 95 % interval of ``difference``; NaN where too many pairs differ by the same.
        high: upper end.
        p_value: of ``sign_flip_p``, not corrected for the number of metrics.
        minimal_detectable_effect: see the function of that name.
        higher_is_better: for whoever wants the prompts to stay hidden.
        better: "A" or "B" where the test excludes 0 and the interval too (or, where there is none, all pairs that differ do so in one
            direction), "neither", or "floor" for what is no score of a model.
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
        ValueError: the runs share no task, one of them has two of one name, or a task's prompts have nothing in common.
    """
    tasks_a, tasks_b = _by_task(a, label_a), _by_task(b, label_b)
    pairs = _shared_tasks(tasks_a, tasks_b)
    if not pairs:
        raise ValueError(
            f"{label_a} has the tasks {', '.join(tasks_a) or 'none'}, {label_b} has {', '.join(tasks_b) or 'none'}: "
            f"no task is in both; {_what_to_give(tasks_a, tasks_b, label_a, label_b) or 'give two runs of the same task'}"
        )
    warnings = [
        f"only {label} has {task}: not compared"
        for label, own, found in ((label_a, tasks_a, [first for first, _ in pairs]), (label_b, tasks_b, [second for _, second in pairs]))
        for task in own
        if task not in found
    ]
    compared = tuple(
        _compare_task(tasks_a[first], tasks_b[second], label_a, label_b, changed, seed, progress) for first, second in pairs
    )
    return Comparison(label_a, label_b, compared, tuple(warnings))


def metrics_by_prompt(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Id and text of the prompt -> its metrics; rows of one prompt (epochs) are averaged, because prompts are what was sampled.

    Raises:
        ValueError: a value is infinite.
    """
    for row in rows:
        if infinite := next((metric for metric, value in row.metrics.items() if math.isinf(value)), None):
            raise ValueError(f"{infinite} of the system prompt {row.prompt_id!r} is infinite; score the run again")
    found = {}
    for prompt, epochs in rows_by_prompt(rows).items():
        metrics = dict.fromkeys(metric for row in epochs for metric in row.metrics)
        means = {metric: mean_of_known(row.metrics.get(metric, math.nan) for row in epochs) for metric in metrics}
        found[prompt] = {metric: mean for metric, mean in means.items() if not math.isnan(mean)}
    return found


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p value of two runs being alike for every prompt: how often random signs of the differences give a mean as far from 0.

    Differences whose mean is 0 but whose signs are not alike, such as many small ones against one large, are not what it tests.
    All sign patterns where there are no more than ``RESAMPLES``, otherwise so many random ones and the observed one. NaN without pairs.
    The same for two runs as for the same two swapped. Source: Fisher's permutation test for paired observations.
    """
    # Sorted: the same signs whatever the order of the pairs.
    values = np.sort(_direction(differences) * np.asarray(differences, dtype=float))
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


def _direction(differences: Sequence[float]) -> int:
    """1 or -1, what differences are multiplied by before anything is drawn, because draws go by the order of values.

    So swapping two runs turns signs round and changes nothing else: the greater of the two sorted lists is always the one that is tested.
    """
    return 1 if sorted(differences) >= sorted(-value for value in differences) else -1


def minimal_detectable_effect(differences: Sequence[float]) -> float:
    """Smallest true mean difference that so many pairs of this spread find significant with probability ``POWER``.

    ``(t(1 - (1 - LEVEL) / 2) + t(POWER)) * sd / sqrt(pairs)``, both of ``pairs - 1`` degrees of freedom: the usual approximation for a
    two-sided paired test. NaN where fewer than ``LEAST_DIFFERING`` pairs differ: their spread says little of that of others.
    """
    from scipy.stats import t

    number = len(differences)
    if sum(round(value, EQUAL_DECIMALS) != 0 for value in differences) < LEAST_DIFFERING:
        return math.nan
    stderr = stdev(differences) / math.sqrt(number)
    # Equal differences may have a spread of rounding errors.
    if stderr <= 1e-12 * max(map(abs, differences)):
        return math.nan
    return float(t.ppf((1 + LEVEL) / 2, number - 1) + t.ppf(POWER, number - 1)) * stderr


def _by_task(found: Sequence[Results], label: str) -> dict[str, Results]:
    for task, times in Counter(results.task for results in found).items():
        if times > 1:
            files = ", ".join(str(results.source) for results in found if results.task == task)
            raise ValueError(f"{label} holds {task} {times} times ({files}); give one of these files, or a folder with one run")
    return {results.task: results for results in found}


def _shared_tasks(a: Mapping[str, Results], b: Mapping[str, Results]) -> list[tuple[str, str]]:
    """Names of tasks that two runs share, as each calls them: the same name, or where that is not in both, a user's own name for the same
    task of this package, if only one run on either side can be meant."""
    pairs = [(task, task) for task in a if task in b]
    left_a, left_b = ([task for task in own if task not in other] for own, other in ((a, b), (b, a)))
    for task in left_a:
        alike_a = [other for other in left_a if a[other].kind == a[task].kind]
        alike_b = [other for other in left_b if b[other].kind == a[task].kind]
        if len(alike_a) == len(alike_b) == 1:
            pairs.append((task, alike_b[0]))
    return pairs


def _what_to_give(a: Mapping[str, Results], b: Mapping[str, Results], label_a: str, label_b: str) -> str:
    """Which files are to choose from where runs share a task of this package and one has it several times, under names of a user's own."""
    kinds = [results.kind for results in a.values() if any(other.kind == results.kind for other in b.values())]
    for label, own in ((label_a, a), (label_b, b)):
        for kind in kinds:
            alike = [results for results in own.values() if results.kind == kind]
            if len(alike) > 1:
                files = ", ".join(f"{results.task} ({results.source})" for results in alike)
                return f"several tasks of {label} are {kind}, so that none can be paired: give one of their files: {files}"
    return ""


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
    rows = {row.truth: row for row in a.rows}
    pairs = {metric: _pairs(metric, shared, values_a, values_b, rows) for metric in KNOWN_METRICS}
    metrics = tuple(
        _compare_metric(metric, pairs[metric], seed)
        for metric in progress([metric for metric in KNOWN_METRICS if pairs[metric]], f"comparing {a.task}")
    )
    notes: tuple[str, ...] = ()
    if any(found.metric in AGAINST_NULL for found in metrics) and _nulls_differ(a, b, values_a, values_b, shared):
        free_a, free_b = _free_of_null(values_a), _free_of_null(values_b)
        freed = {metric: _pairs(metric, shared, free_a, free_b, rows) for metric in FREE_OF_NULL}
        winners = {metric: _compare_metric(metric, own, seed).better if own else "neither" for metric, own in freed.items()}
        metrics, notes = _without_luck(metrics, winners), (NULL_NOTE,)
    warnings, others = signature_differences(a, b)
    if len(shared) < max(len(values_a), len(values_b)):
        warnings.append(f"{len(shared)} system prompts are in both runs, of {len(values_a)} in A and {len(values_b)} in B")
    headline = next((metric for metric in PROMPT_HEADLINES if pairs[metric]), None)
    missing = [text for text in shared if headline is not None and (headline in values_a[text]) != (headline in values_b[text])]
    if missing:
        warnings.append(f"{len(missing)} system prompts have {headline} in one run only: unscored is not safe; see coverage")
    if headline is None:
        warnings.append(f"no system prompt has any of {', '.join(PROMPT_HEADLINES)} in both runs: unscored is not safe; see coverage")
    scores = [found for found in metrics if not is_floor(found.metric) and found.metric not in OF_THE_RUN]
    equal = [found for found in scores if all(own == other for own, other in pairs[found.metric])]
    if equal:
        share = rule_of_three(min(found.pairs for found in equal))
        warnings.append(
            f"no pair differs in {', '.join(found.metric for found in equal)}: that is no certainty; "
            f"up to {100 * share:.1f} % of such prompts may differ unseen"
        )
    moved = _changes(a, b, values_a, values_b, shared, headline, changed) if headline else ()
    name = a.task if a.task == b.task else f"{a.task} (A), {b.task} (B)"
    return TaskComparison(name, _side(a), _side(b), metrics, moved, tuple(warnings), tuple(others), notes)


def _nulls_differ(
    a: Results, b: Results, values_a: dict[str, dict[str, float]], values_b: dict[str, dict[str, float]], shared: Sequence[str]
) -> bool:
    """Whether two runs were measured against other answers without a system prompt; told by a floor where their files hold no answers."""
    nulls_a, nulls_b = ({results.nulls_of(row) for row in results.rows} for results in (a, b))
    if any(nulls_a | nulls_b) or a.signature.get("inverter_hash") != b.signature.get("inverter_hash"):
        return nulls_a != nulls_b
    return any(values_a[text].get("token_f1_null") != values_b[text].get("token_f1_null") for text in shared)


def _free_of_null(values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Prompt -> metric of ``FREE_OF_NULL`` -> its value without the luck of the null's draw; left out where it is not known."""
    return {
        text: {
            metric: sum(sign * found[name] for name, sign in parts.items())
            for metric, parts in FREE_OF_NULL.items()
            if all(name in found for name in parts)
        }
        for text, found in values.items()
    }


def _without_luck(metrics: Sequence[MetricComparison], winners: Mapping[str, str]) -> tuple[MetricComparison, ...]:
    """No run is called better by a metric against the null where the same without that draw does not call the same run better.

    That both agree in sign would not do: of two runs of one model they do so half of the time, and the draws alone make a lift differ.

    Args:
        winners: metric of ``FREE_OF_NULL`` -> which run is better without the draw; "neither" where that is not known.
    """
    kept = []
    for found in metrics:
        followed = AGAINST_NULL.get(found.metric)
        kept.append(found if followed is None or winners[followed] == found.better else replace(found, better="neither"))
    return tuple(kept)


def _pairs(
    metric: str,
    shared: Sequence[str],
    values_a: dict[str, dict[str, float]],
    values_b: dict[str, dict[str, float]],
    rows: dict[str, Row],
) -> list[tuple[float, float]]:
    """A metric in A and in B, one pair per sampled unit: what one carrier makes of several secrets is no independent evidence.

    Args:
        rows: a row of every text, which tells its unit for both runs: ids of two prompt files need not mean the same.
    """
    common = [text for text in shared if metric in values_a[text] and metric in values_b[text]]
    own, other = (by_unit((rows[text], values[text][metric]) for text in common) for values in (values_a, values_b))
    return list(zip(own, other))


def _side(results: Results) -> Side:
    return Side(results.host, results.model, str(results.source or ""), count_prompts(results.rows), results.signature)


def _compare_metric(metric: str, pairs: Sequence[tuple[float, float]], seed: int) -> MetricComparison:
    differences = [b - a for a, b in pairs]
    tested = [] if metric in OF_THE_RUN else differences
    width = scale_of(metric).high - scale_of(metric).low
    found = _estimate_difference(tested, seed, width)
    p_value = sign_flip_p(tested, seed)
    higher = RECORDS[metric].higher_is_better
    if is_floor(metric):
        winner = "floor"
    elif p_value < 1 - LEVEL and _excludes_zero(found, tested) and not shows_as_zero(metric, found.mean):
        winner = "B" if (found.mean > 0) == higher else "A"
    else:
        winner = "neither"
    return MetricComparison(
        metric, len(pairs), fmean(a for a, _ in pairs), fmean(b for _, b in pairs), fmean(differences), found.low, found.high, p_value,
        minimal_detectable_effect(tested), higher, winner,
    )  # fmt: skip


def _estimate_difference(differences: Sequence[float], seed: int, width: float) -> Estimate:
    """``estimate`` within plus or minus ``width``; that of the differences with other signs mirrors it."""
    direction = _direction(differences)
    found = estimate([direction * value for value in differences], seed, LEVEL, -width, width)
    return found if direction > 0 else replace(found, mean=-found.mean, low=-found.high, high=-found.low)


def _excludes_zero(found: Estimate, differences: Sequence[float]) -> bool:
    """Whether the interval does; where too many differences are equal for one, whether all that are not 0 are on one side."""
    if math.isnan(found.low):
        return min(differences) >= 0 or max(differences) <= 0
    return not found.low <= 0 <= found.high


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
