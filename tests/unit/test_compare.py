"""Comparison of two runs: paired statistics against values computed another way, and the same numbers in all three formats."""

import itertools
import json
import math
import random
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.report.compare import compare, metrics_by_prompt, minimal_detectable_effect, sign_flip_p
from lm_eval_inversion.report.compare_render import render
from lm_eval_inversion.report.reading import KNOWN_METRICS, Results, Row
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.uncertainty import estimate

SIGNATURE = {
    "task_version": 1.0, "prompts_hash": "p", "queries_hash": "q", "inverter_hash": "i", "decoy_seed": 0, "system_role": "system",
    "host": "lm_eval 0.4.13", "date": "2026-01-01",
}  # fmt: skip
TASK = "prompt_inversion_ordinary"


def make_row(number, metrics, *, text=None, prompt_id=None, reconstruction="You are a guess."):
    prompt = SystemPrompt(prompt_id or f"own-{number}", text or f"You are the assistant number {number}.")
    return Row(prompt, reconstruction, metrics)


def make_run(metric, values, *, task=TASK, signature=SIGNATURE, **others):
    rows = [make_row(number, {metric: value, "coverage": 1.0, **others}) for number, value in enumerate(values)]
    return Results(task, "lm_eval", rows, "hf model", dict(signature))


def one_metric(a, b, metric="bits"):
    found = compare([make_run(metric, a)], [make_run(metric, b)]).tasks[0].metrics
    return next(one for one in found if one.metric == metric)


def exact_p(differences):
    observed = abs(math.fsum(differences))
    sums = [abs(math.fsum(s * d for s, d in zip(signs, differences))) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return sum(one >= observed - 1e-9 for one in sums) / len(sums)


def run_with_files(folder, length, arguments="", signature=SIGNATURE):
    """A run whose files say how answers were sampled, and the arguments of its model."""
    folder.mkdir()
    source = folder / f"samples_{TASK}_2026.jsonl"
    source.touch()
    generation = {"temperature": 0.7, "max_gen_toks": length}
    settings = {"config": {"model": "hf", "model_args": arguments}, "configs": {TASK: {"generation_kwargs": generation}}}
    source.with_name("results_2026.json").write_text(json.dumps(settings))
    return replace(make_run("bits", [1.0, 2.0], signature=signature), source=source)


def test_runs_that_were_sampled_differently_do_not_compare(tmp_path):
    a, b = run_with_files(tmp_path / "a", 64), run_with_files(tmp_path / "b", 256)
    text = render(compare([a], [b]), "text")
    assert "sampling differs (temperature 0.7, max_tokens 64 in A, temperature 0.7, max_tokens 256 in B)" in " ".join(text.split())
    assert "sampling differs" not in render(compare([a], [a]), "text")


def test_arguments_of_the_model_are_told_once_and_only_where_both_runs_say_theirs(tmp_path):
    a = run_with_files(tmp_path / "a", 64, "pretrained=x,dtype=float32,revision=one")
    b = run_with_files(tmp_path / "b", 64, "pretrained=y,dtype=bfloat16,revision=two", {**SIGNATURE, "dtype": "bfloat16"})
    for runs, told in (
        ((a, b), ("dtype: not given in A, bfloat16 in B", "model argument revision: one in A, two in B")),
        ((b, a), ("dtype: bfloat16 in A, not given in B", "model argument revision: two in A, one in B")),
    ):
        assert compare(runs[:1], runs[1:]).tasks[0].other_differences == told
    # Files that are missing say nothing: neither that arguments differ nor that answers were sampled in another way.
    unknown = make_run("bits", [1.0, 2.0])
    for runs in ((a, unknown), (unknown, a)):
        (task,) = compare(runs[:1], runs[1:]).tasks
        assert task.other_differences == ()
        assert not any("sampling differs" in warning for warning in task.warnings)


def test_paired_numbers_of_a_small_run():
    a, b = [3.0, 5.0, 1.0, 8.0, 2.0, 7.0, 4.0], [2.0, 3.5, 1.5, 5.0, 1.0, 4.0, 2.0]
    differences = [y - x for x, y in zip(a, b)]
    found = one_metric(a, b)
    assert found.pairs == 7
    assert found.mean_a == pytest.approx(statistics.fmean(a))
    assert found.mean_b == pytest.approx(statistics.fmean(b))
    assert found.difference == pytest.approx(statistics.fmean(differences))
    assert found.p_value == pytest.approx(exact_p(differences))
    # Quantiles of Student's t with 13 degrees of freedom, from a printed table; seven pairs are too few for it.
    assert math.isnan(found.minimal_detectable_effect)
    twice = minimal_detectable_effect(differences * 2)
    assert twice == pytest.approx((2.160 + 0.870) * statistics.stdev(differences * 2) / math.sqrt(14), rel=1e-3)
    assert found.low < found.difference < found.high < 0
    assert found.better == "B"  # fewer bits


def test_what_reads_zero_has_no_winner():
    """Differences of devices, of 1e-5 bits, all in one direction."""
    rng = random.Random(5)
    a = [rng.gauss(30, 5) for _ in range(30)]
    found = one_metric(a, [value + rng.uniform(1e-5, 3e-5) for value in a])
    assert found.low > 0
    assert found.p_value < 0.001
    assert found.better == "neither"
    comparison = compare([make_run("bits", a)], [make_run("bits", [value + 1e-5 for value in a])])
    assert comparison.tasks[0].changed == ()
    assert one_metric(a, [value + 0.06 for value in a]).better == "A"


def test_numbers_do_not_hang_on_the_order_of_prompts():
    rng = random.Random(6)
    differences = [rng.expovariate(1.0) - 0.7 for _ in range(40)]
    turned = differences[::-1]
    assert estimate(differences) == estimate(turned)
    assert sign_flip_p(differences) == sign_flip_p(turned)


def test_interval_of_many_pairs_is_near_normal_theory():
    rng = random.Random(3)
    a = [rng.gauss(10, 5) for _ in range(300)]
    b = [value + rng.gauss(0.2, 1) for value in a]
    differences = [y - x for x, y in zip(a, b)]
    half = 1.96 * statistics.stdev(differences) / math.sqrt(300)
    found = one_metric(a, b)
    assert found.low == pytest.approx(statistics.fmean(differences) - half, abs=0.1 * half)
    assert found.high == pytest.approx(statistics.fmean(differences) + half, abs=0.1 * half)


def test_sampled_signs_agree_with_all_signs():
    rng = random.Random(1)
    differences = [rng.gauss(0.4, 1) for _ in range(15)]  # too many patterns for the exact test
    assert sign_flip_p(differences) == pytest.approx(exact_p(differences), abs=0.015)
    assert sign_flip_p(differences, seed=5) == sign_flip_p(differences, seed=5)
    assert sign_flip_p(differences, seed=5) != sign_flip_p(differences, seed=6)
    assert sign_flip_p([1.0] * 200) == pytest.approx(1 / 10_001)  # never 0: the observed signs are one of the patterns
    assert sign_flip_p([0.0] * 200) == sign_flip_p([0.0] * 3) == 1.0
    assert math.isnan(sign_flip_p([]))


def test_rounding_decides_nothing_about_p():
    for tenths in itertools.combinations_with_replacement(range(-3, 4), 4):
        assert sign_flip_p([value / 10 for value in tenths]) == exact_p(tenths)


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(0)
    p_values = [sign_flip_p(rng.normal(size=9)) for _ in range(1000)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.asarray(p_values) <= level) == pytest.approx(level, abs=0.04)


def test_minimal_detectable_effect_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    number, spread = 64, 2.0
    # sd of exactly ``spread``, so that the effect is a constant
    raw = rng.normal(size=number)
    effect = minimal_detectable_effect(list((raw - raw.mean()) / raw.std(ddof=1) * spread))
    draws = rng.normal(effect, spread, (4000, number))
    z = draws.mean(axis=1) / (spread / math.sqrt(number))
    assert np.mean(np.abs(z) > 1.959964) == pytest.approx(0.8, abs=0.02)
    assert math.isnan(minimal_detectable_effect([1.0]))
    assert math.isnan(minimal_detectable_effect([1.0, 2.0, 3.0, 4.0, 5.0]))  # no five pairs are significant
    # One pair of 150 that differs says nothing of how much others would, and five of one side are never significant.
    assert math.isnan(minimal_detectable_effect([1.0] + [0.0] * 149))
    assert math.isnan(minimal_detectable_effect([1.0] * 9 + [0.0] * 141))
    stderr = math.sqrt(10 / 150 * 140 / 149 / 150)
    assert minimal_detectable_effect([1.0] * 10 + [0.0] * 140) == pytest.approx((1.976 + 0.844) * stderr, rel=1e-3)
    assert all(math.isnan(minimal_detectable_effect([value] * 12)) for value in (0.1, 0.3, 1 / 3, 0.7))
    assert math.isnan(minimal_detectable_effect([0.0, 0.0, 0.0]))
    few = (2.2010 + 0.8755) * math.sqrt(13 / 12)  # of 11 degrees of freedom, both
    assert minimal_detectable_effect([float(value) for value in range(12)]) == pytest.approx(few, rel=1e-4)


# Skewed, and the commonest difference so common that another direction would find other quantiles of the resamples.
SKEWED = [(0.0, 0.0), (0.0, 0.0), (0.0, -1.0), (0.0, -2.0), (0.0, -2.0), (0.0, -2.0), (1.0, -1.0), (2.0, 0.0)]


@settings(deadline=None)
@example(SKEWED)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=20))
def test_swapping_the_runs_turns_the_difference_round(pairs):
    a, b = [first for first, _ in pairs], [second for _, second in pairs]
    forth, back = one_metric(a, b), one_metric(b, a)
    assert forth.difference == pytest.approx(-back.difference, abs=1e-9)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9, nan_ok=True)
    assert forth.p_value == back.p_value
    assert {forth.better, back.better} in ({"A", "B"}, {"neither"})


def test_pairs_are_made_by_the_text_and_not_by_the_id():
    a = Results(TASK, "lm_eval", [make_row(0, {"bits": 1.0}, text="You are A."), make_row(1, {"bits": 5.0}, text="You are B.")])
    b = Results(
        TASK, "inspect",
        [make_row(0, {"bits": 6.0}, text="You are B."), make_row(1, {"bits": 3.0}, text="You are A."), make_row(2, {"bits": 9.0})],
    )  # fmt: skip
    (task,) = compare([a], [b]).tasks
    assert [(change.prompt, change.difference) for change in task.changed] == [("You are A.", 2.0), ("You are B.", 1.0)]
    assert task.metrics[0].pairs == 2
    assert any("2 system prompts are in both runs, of 2 in A and 3 in B" in warning for warning in task.warnings)


def test_epochs_of_a_prompt_are_one_pair():
    rows = [make_row(0, {"bits": 1.0}), make_row(0, {"bits": 3.0}), make_row(1, {"bits": 4.0}), make_row(1, {})]
    assert list(metrics_by_prompt(rows).values()) == [{"bits": 2.0}, {"bits": 4.0}]
    task = compare([Results(TASK, "inspect", rows)], [make_run("bits", [0.0, 0.0])]).tasks[0]
    assert (task.metrics[0].pairs, task.metrics[0].mean_a) == (2, 3.0)
    assert task.a.prompts == 2
    texts = [replace(row, reconstruction=text) for row, text in zip(rows, ("first", "second", "only", ""))]
    told = compare([Results(TASK, "inspect", texts)], [make_run("bits", [0.0, 0.0])]).tasks[0].changed
    assert [change.reconstruction_a for change in told] == ["only", "first"]


def test_prompts_that_did_not_change_are_not_among_those_that_changed_most():
    changed = compare([make_run("bits", [1.0, 2.0, 3.0])], [make_run("bits", [1.0, 2.5, 3.0])]).tasks[0].changed
    assert [change.prompt_id for change in changed] == ["own-1"]


def test_metrics_stand_in_their_own_order_and_only_where_both_have_them():
    a = make_run("token_f1_lift", [0.1, 0.2], cosine=0.3, bits=1.0, ability=1.0)
    b = make_run("ability", [1.0, 1.0], bits=2.0, token_f1_lift=0.5, bleu=3.0)
    names = [found.metric for found in compare([a], [b]).tasks[0].metrics]
    assert names == ["bits", "token_f1_lift", "coverage", "ability"]
    assert names == [metric for metric in KNOWN_METRICS if metric in names]


@pytest.mark.parametrize(
    ("metric", "rises", "better"),
    [
        ("bits", True, "A"), ("bits", False, "B"), ("resistance", True, "B"), ("recovery", True, "A"), ("token_f1_null", True, "floor"),
        ("token_f1_swap", True, "floor"), ("token_f1_constant", True, "floor"), ("canary_control", True, "floor"),
    ],
)  # fmt: skip
def test_better_is_meant_for_whoever_keeps_the_secret(metric, rises, better):
    low, high = [0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 0.3], [0.6, 0.8, 0.7, 0.9, 0.7, 0.6, 0.8, 0.9]
    assert one_metric(*((low, high) if rises else (high, low)), metric=metric).better == better


def test_no_winner_among_few_or_noisy_pairs():
    assert one_metric([0.0, 0.0, 0.0], [1.0, 1.1, 1.2]).better == "neither"  # three pairs of one sign: p = 0.25
    assert one_metric([0.0] * 8, [1.0, -1.0, 2.0, -2.0, 1.5, -1.0, 0.5, -1.2]).better == "neither"
    outlier = one_metric([0.0] * 40, [1.0] * 39 + [-13.0])  # the test finds a difference, the interval does not
    assert outlier.p_value < 0.05
    assert math.isnan(outlier.low)  # a third of all resamples hold nothing of the outlier
    assert outlier.better == "neither"
    assert one_metric([0.0] * 40, [1.0] * 40).better == "A"  # no spread, no interval, and no doubt


def test_pairs_that_are_alike_do_not_hide_that_nearly_all_others_differ():
    for changed in (24, 27, 29, 30):  # of the last three there is no interval: too many resamples hold one value only
        assert one_metric([0.0] * 30, [1.0] * changed + [0.0] * (30 - changed), "asr_union").better == "A"
    assert one_metric([0.0] * 30, [1.0] * 29 + [-1.0]).better == "neither"


def test_the_interval_of_a_difference_stays_in_its_range():
    found = one_metric([0.0] * 6, [0.0, 0.01, 0.02, 0.03, 0.9, 1.0], "asr")
    assert found.low < found.difference < found.high == 1.0


@pytest.mark.parametrize(
    ("key", "warned"),
    [
        ("task_version", True), ("prompts_hash", True), ("queries_hash", True), ("attacks_hash", True), ("canaries_hash", True),
        ("inverter_hash", True), ("decoy_seed", True), ("system_role", True), ("defence", False), ("host", False),
        ("package_version", False),
    ],
)  # fmt: skip
def test_signatures_that_differ(key, warned):
    a, b = make_run("bits", [1.0, 2.0], signature={**SIGNATURE, key: "x"}), make_run("bits", [1.0, 3.0], signature={**SIGNATURE, key: "y"})
    task = compare([a], [b]).tasks[0]
    assert any(key in warning for warning in task.warnings) is warned
    assert any(key in difference for difference in task.other_differences) is not warned
    same = compare([a], [a]).tasks[0]
    assert not any(key in text for text in (*same.warnings, *same.other_differences))


def test_signatures_that_are_not_there():
    undefended, defended = make_run("bits", [1.0, 2.0]), make_run("bits", [1.0, 2.5], signature={**SIGNATURE, "defence": "sandwich"})
    assert compare([undefended], [defended]).tasks[0].other_differences == ("defence: not given in A, sandwich in B",)
    bare = make_run("bits", [1.0, 2.0], signature={})
    assert any("B (None) carries no signature" in warning for warning in compare([undefended], [bare]).tasks[0].warnings)
    assert not compare([undefended], [make_run("bits", [1.0, 2.5], signature={**SIGNATURE, "date": "later"})]).tasks[0].other_differences


def test_what_only_one_run_has_written_down_is_told():
    written = {**SIGNATURE, "inverter_dtype": "int8", "tier": None}
    older, newer = make_run("bits", [1.0, 2.0]), make_run("bits", [1.0, 2.5], signature=written)
    assert compare([older], [newer]).tasks[0].other_differences == ("inverter_dtype: not given in A, int8 in B",)
    assert compare([newer], [older]).tasks[0].other_differences == ("inverter_dtype: int8 in A, not given in B",)


def test_unscored_prompts_and_equal_runs_are_warned_about():
    a, b = make_run("bits", [1.0, 2.0, 3.0]), make_run("bits", [1.0, 2.0, 3.0])
    warnings = compare([a], [b]).tasks[0].warnings
    assert any("no pair differs in bits, coverage" in warning and "63.2 %" in warning for warning in warnings)  # 1 - 0.05 ** (1 / 3)
    # Of floors and of what is one value per run that says nothing.
    told = [make_run("bits", values, token_f1_constant=0.1, null_coverage=1.0) for values in ([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])]
    (warning,) = (text for text in compare(*([run] for run in told)).tasks[0].warnings if "no pair differs" in text)
    assert "no pair differs in coverage:" in warning
    # Pairs that cancel out do differ.
    assert not any("no pair differs in bits" in told for told in compare([a], [make_run("bits", [3.0, 2.0, 1.0])]).tasks[0].warnings)
    del b.rows[0].metrics["bits"]
    for one, other in ((a, b), (b, a)):
        task = compare([one], [other]).tasks[0]
        assert any("1 system prompts have bits in one run only: unscored is not safe" in warning for warning in task.warnings)
        assert any("no pair differs in bits, coverage" in warning and "77.6 %" in warning for warning in task.warnings)  # of two pairs
        assert [found.pairs for found in task.metrics] == [2, 3]


def test_tasks_under_names_of_their_own_are_compared_as_what_they_are():
    def own(name, values):
        return make_run("bits", values, task=name, signature={**SIGNATURE, "base_task": TASK})

    base, other = make_run("bits", [1.0, 2.0]), own("mine", [3.0, 5.0])
    (task,) = compare([base], [other]).tasks
    assert (task.task, task.metrics[0].difference) == (f"{TASK} (A), mine (B)", 2.5)
    assert task.other_differences == ()
    # A name that both have goes before what a task is.
    both = compare([base, own("mine", [1.0, 1.0])], [own("mine", [4.0, 4.0])])
    assert [task.task for task in both.tasks] == ["mine"]
    assert both.warnings == (f"only A has {TASK}: not compared",)
    # Of two that could be meant none is chosen.
    two = [replace(own(name, [1.0, 1.0]), source=Path(f"samples_{name}.jsonl")) for name in ("mine", "yours")]
    for pair in (([base], two), (two, [base])):
        label = "AB"[pair.index(two)]
        several = f"no task is in both; several tasks of {label} are {TASK}, so that none can be paired: give one of their files: mine"
        with pytest.raises(ValueError, match=rf"{several} \(samples_mine.jsonl\), yours \(samples_yours.jsonl\)$"):
            compare(*pair)


def test_what_cannot_be_compared_is_said():
    run = make_run("bits", [1.0, 2.0])
    other = make_run("bits", [1.0, 2.0], task="prompt_inversion")
    with pytest.raises(ValueError, match="old has the tasks prompt_inversion_ordinary, new has prompt_inversion: no task is in both"):
        compare([run], [other], label_a="old", label_b="new")
    with pytest.raises(ValueError, match="old holds prompt_inversion_ordinary 2 times"):
        compare([run, run], [run], label_a="old")
    strangers = Results(TASK, "lm_eval", [make_row(0, {"bits": 1.0}, text="You are somebody else.")])
    with pytest.raises(ValueError, match=r"no system prompt of A \(2\) is in B \(1\); compare runs over the same prompts$"):
        compare([run], [strangers])
    redacted = Results(TASK, "lm_eval", [make_row(0, {"bits": 1.0}, text="[sha256:5f0c2a9e7b41, 22 characters, 5 words]")])
    with pytest.raises(ValueError, match="same LM_EVAL_INVERSION_REDACTION_KEY"):
        compare([redacted], [run])
    twins = Results(TASK, "lm_eval", [make_row(number, {"bits": 1.0}, text="You are one.") for number in (0, 1)])
    with pytest.raises(ValueError, match="'own-1' stands under another id too"):
        compare([twins], [twins])
    with pytest.raises(ValueError, match="bits of the system prompt 'own-1' is infinite"):
        compare([run], [make_run("bits", [1.0, math.inf])])
    with pytest.raises(ValueError, match="format 'xml' is unknown"):
        render(compare([run], [run]), "xml")
    assert compare([run, other], [run]).warnings == ("only A has prompt_inversion: not compared",)


class Tables(HTMLParser):
    """The cells of every table, and every tag and attribute."""

    def __init__(self):
        super().__init__()
        self.tables, self.tags, self.attributes, self.inside, self.text = {}, [], [], None, []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "table":
            self.rows = self.tables[dict(attrs)["class"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = None

    def handle_data(self, data):
        self.text.append(data)
        if self.inside:
            self.rows[-1][-1] += data


def read_html(page):
    parser = Tables()
    parser.feed(page)
    parser.close()
    return parser


def read_markdown(text):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")]


def test_text_json_and_html_say_the_same_numbers():
    rng = random.Random(0)
    rows_a = [make_row(n, {"bits": rng.gauss(20, 9), "token_f1_lift": rng.random(), "coverage": 1.0}) for n in range(20)]
    rows_b = [make_row(n, {"bits": rng.gauss(15, 9), "token_f1_lift": rng.random(), "coverage": 1.0}) for n in range(20)]
    comparison = compare([Results(TASK, "lm_eval", rows_a)], [Results(TASK, "inspect", rows_b)])
    (task,) = json.loads(render(comparison, "json"))["tasks"]
    tables = read_html(render(comparison, "html")).tables
    markdown = read_markdown(render(comparison, "text"))

    def shown(metric, value):
        return "–" if value is None else f"{value:.{1 if metric == 'bits' else 3}f}"

    told = {"bits": "bits (lower is better)", "token_f1_lift": "token_f1_lift (lower is better)", "coverage": "coverage (higher is better)"}
    expected = [
        [
            told[metric], *(shown(metric, found[key]) for key in ("mean_a", "mean_b", "difference")),
            "–" if found["low"] is None else f"{shown(metric, found['low'])} to {shown(metric, found['high'])}", f"{found['p_value']:.4f}",
            shown(metric, found["minimal_detectable_effect"]), str(found["pairs"]), {"neither": "–"}.get(found["better"], found["better"]),
        ]
        for found in task["metrics"]
        for metric in [found["metric"]]
    ]  # fmt: skip
    changed = [
        [
            one["prompt_id"], one["category"], one["length_band"], one["prompt"],
            *(shown(one["metric"], one[key]) for key in ("a", "b", "difference")),
        ]
        for one in task["changed"]
    ]  # fmt: skip
    assert len(expected) == 3
    assert len(changed) == 5
    assert tables["metrics"][1:] == expected == markdown[1:4]
    assert tables["changed"][1:] == changed == markdown[5:]
    assert tables["metrics"][0] == markdown[0]
    assert [abs(one["difference"]) for one in task["changed"]] == sorted((abs(one["difference"]) for one in task["changed"]), reverse=True)
    assert task["changed"][0]["difference"] == pytest.approx(
        max((b.metrics["bits"] - a.metrics["bits"] for a, b in zip(rows_a, rows_b)), key=abs)
    )


def test_what_the_model_wrote_cannot_act_on_the_page():
    evil = '<script>alert(1)</script><img src="https://example.org/x"> | \ud800 &amp;'
    run = Results(
        f"{TASK}<b>", "lm_eval", [make_row(0, {"bits": 1.0}, text=f"Be {evil}", reconstruction=evil)], f"model {evil}", {"x": evil}
    )
    other = Results(f"{TASK}<b>", "lm_eval", [make_row(0, {"bits": 2.0}, text=f"Be {evil}", reconstruction="")], "", {"x": "y"})
    comparison = compare([run], [other], label_a=f'"{evil}')
    page = read_html(render(comparison, "html"))
    assert not {"script", "img", "b", "link", "iframe"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert visible(evil) in "".join(page.text)  # shown as it is, but for what nobody would see
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert "prefers-color-scheme: dark" in render(comparison, "html")
    assert ("name", "viewport") in page.attributes
    table = [line for line in render(comparison, "text").splitlines() if line.startswith("| own-0")]
    assert len(table) == 1
    assert "<script>" not in table[0]
    assert json.loads(render(comparison, "json"))["tasks"][0]["changed"][0]["reconstruction_a"] == evil


def test_every_metric_says_which_way_is_good():
    shares = [float(place % 2) for place in range(8)]
    a, b = (make_run("resistance", values, token_f1_null=0.1) for values in (shares, shares[::-1]))
    text, page = (render(compare([a], [b]), form) for form in ("text", "html"))
    assert [row[0] for row in read_markdown(text)[1:]] == ["token_f1_null", "coverage (higher is better)", "resistance (higher is better)"]
    assert [row[0] for row in read_html(page).tables["metrics"][1:]] == [row[0] for row in read_markdown(text)[1:]]


def test_pairs_that_all_differ_by_the_same_have_no_interval_and_yet_a_winner():
    found = one_metric([1.0] * 20, [0.0] * 20, metric="asr")
    assert (found.difference, found.better) == (-1.0, "B")
    assert all(map(math.isnan, (found.low, found.high)))
    comparison = compare([make_run("asr", [1.0] * 20)], [make_run("asr", [0.0] * 20)])
    assert "| asr (lower is better) | 1.000 | 0.000 | -1.000 | – | 0.0001 | – | 20 | B |" in render(comparison, "text")
    none = one_metric([0.3] * 20, [0.3] * 20)
    assert (none.better, none.p_value, math.isnan(none.low)) == ("neither", 1.0, True)
    assert one_metric([1.0] * 5, [0.0] * 5).better == "neither"  # p = 0.06


def test_a_difference_is_no_share():
    comparison = compare([make_run("asr", [0.0] * 8)], [make_run("asr", [0.0004] * 8)])
    assert "| asr (lower is better) | 0.000 | <0.001 | 0.000 | – |" in render(comparison, "text")


class Outline(HTMLParser):
    """Elements in their order, each with its attributes and, at the end of each, the text in it."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.found.append(element)
        if tag not in ("meta", "wbr"):
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def all(self, tag):
        return [(attributes, "".join(texts)) for name, attributes, texts in self.found if name == tag]


def test_the_page_can_be_read_without_seeing_it():
    hebrew, arabic = "אתה עוזר מועיל של מאפייה", "أنت مساعد مفيد"
    runs = []
    for bits in (1.0, 5.0):
        rows = [make_row(number, {"bits": bits * number}, text=f"{hebrew} {number}", reconstruction=arabic) for number in range(3)]
        runs.append([Results(task, "lm_eval", rows, "hf model", dict(SIGNATURE)) for task in (TASK, "prompt_inversion")])
    outline = Outline()
    outline.feed(render(compare(*runs), "html"))
    outline.close()
    assert outline.open == []
    assert len(outline.all("main")) == len(outline.all("h1")) == 1
    captions = [text for _, text in outline.all("caption")]
    boxes = [attributes for attributes, _ in outline.all("div")]
    assert [box["aria-label"] for box in boxes] == captions
    assert len(set(captions)) == len(captions) == len(outline.all("table")) == 4
    assert {(box["class"], box["role"], box["tabindex"]) for box in boxes} == {("scroll", "region", "0")}
    assert {attributes["scope"] for attributes, _ in outline.all("th")} == {"col", "row"}
    assert [text for attributes, text in outline.all("th") if attributes["scope"] == "row"][:3] == [
        "bits (lower is better)", "own-2", "own-1",
    ]  # fmt: skip
    assert all(attributes.get("dir") == "auto" for attributes, text in outline.all("td") if hebrew in text)
    texts = [(attributes, text) for attributes, text in outline.all("pre") if hebrew in text or arabic in text]
    assert len(texts) == 2 * 2 * 3
    assert all(attributes.get("dir") == "auto" for attributes, _ in texts)
    assert [text for _, text in outline.all("h4")] == ["System prompt", "Reconstruction A", "Reconstruction B"] * 4


def test_json_has_no_nan():
    text = render(compare([make_run("bits", [1.0])], [make_run("bits", [2.0])]), "json")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["tasks"][0]["metrics"][0]
    assert found["low"] is None
    assert found["minimal_detectable_effect"] is None
    assert found["difference"] == 1.0


def test_what_one_carrier_makes_of_several_secrets_is_one_pair():
    def run(values):
        rows = [
            Row(SystemPrompt(f"c{carrier}-{draw}/plain", f"Carrier {carrier}, code {draw}.", "canary"), "", {"canary_extracted": value})
            for carrier, value in enumerate(values)
            for draw in range(6)
        ]
        return Results("prompt_leakage_canary", "lm_eval", rows, "hf model", dict(SIGNATURE))

    (found,) = compare([run([0.0, 1.0, 0.0])], [run([1.0, 1.0, 0.5])]).tasks[0].metrics
    assert found.pairs == 3
    assert found.difference == pytest.approx(0.5)
    assert found.better == "neither"


def test_runs_without_a_signature_or_an_end_are_warned_about():
    unsigned = make_run("bits", [1.0, 2.0], signature={"date": "2026-01-01"})
    assert any("carries no signature" in warning for warning in compare([unsigned], [unsigned]).tasks[0].warnings)
    cut = replace(make_run("bits", [1.0, 2.0]), unfinished="status 'cancelled', 2 of 9 system prompts")
    text = render(compare([cut], [make_run("bits", [1.0, 2.0])]), "html")
    assert "did not finish" in text
    assert "2 of 9" in text


def test_a_run_with_next_to_nothing_to_measure_against_is_warned_about():
    poor, usual = make_run("bits", [1.0, 2.0], null_coverage=0.4), make_run("bits", [1.0, 2.0], null_coverage=0.5)
    warning = "B: Without a system prompt the model gave few usable outputs (null_coverage 0.40)"
    assert any(told.startswith(warning) for told in compare([usual], [poor]).tasks[0].warnings)
    assert not any("few usable outputs" in told for told in compare([usual], [usual]).tasks[0].warnings)


def test_a_run_with_nothing_to_measure_against_is_not_said_to_have_values_that_are_too_high():
    none = make_run("token_f1", [0.1, 0.2], null_coverage=0.0)
    assert "no usable output (null_coverage 0): bits, identification, lift and everything else" in none.caution
    assert "too high" not in none.caution


def test_one_value_of_a_run_is_not_tested():
    (task,) = compare([make_run("bits", [1.0] * 40, null_coverage=0.875)], [make_run("bits", [1.0] * 40, null_coverage=1.0)]).tasks
    (found,) = [one for one in task.metrics if one.metric == "null_coverage"]
    assert (found.mean_a, found.mean_b, found.difference, found.better) == (0.875, 1.0, 0.125, "neither")
    assert all(map(math.isnan, (found.low, found.high, found.p_value, found.minimal_detectable_effect)))
    # Nor where each process of a run had null answers of its own.
    several = one_metric([0.5, 0.75] * 20, [0.5, 1.0] * 20, "null_coverage")
    assert all(map(math.isnan, (several.low, several.high, several.p_value, several.minimal_detectable_effect)))
    text = render(compare([make_run("bits", [1.0], null_coverage=0.875)], [make_run("bits", [2.0], null_coverage=1.0)]), "text")
    assert "| null_coverage (higher is better) | 0.875 | 1.000 | 0.125 | – | – | – | 1 | – |" in text


def test_runs_that_must_not_be_trusted_are_warned_about():
    """Whatever the reason: the page, the card and the tables say the same."""
    silent = make_run("bits", [1.0, 2.0])
    silent = replace(silent, rows=[replace(row, metrics={**row.metrics, "coverage": 0.5}) for row in silent.rows])
    blind = make_run("resistance", [1.0, 1.0], task="prompt_leakage_attacks", ability=0.05)
    for run, caution in (
        (silent, "B: Too little came back to judge (coverage 0.50, below 0.8)"),
        (blind, "B: Resistance says little here (ability 0.05): the model hardly quotes its system prompt"),
    ):
        usual = replace(run, rows=[replace(row, metrics={**row.metrics, "coverage": 0.8, "ability": 0.1}) for row in run.rows])
        assert any(told.startswith(caution) for told in compare([usual], [run]).tasks[0].warnings)
        assert usual.caution == ""


def test_other_null_answers_make_no_run_better():
    """A run draws its null once: the luck of the draw is in no interval."""

    def run(floor, null, recovered=0.3, number=20, sway=0.0):
        rows = []
        for place in range(number):
            written = recovered + place % 3 / 100 + sway * (-1) ** place
            lift = {"token_f1": written, "token_f1_null": floor, "token_f1_lift": written - floor}
            rows.append(make_row(place, {"bits": 9.0 + place, **lift}))
        return Results(TASK, "lm_eval", rows, "hf model", dict(SIGNATURE), null_answers=null)

    def better(a, b):
        (task,) = compare([a], [b]).tasks
        return {found.metric: found.better for found in task.metrics}, task.notes

    one = run(0.2, ("Hello.",))
    found, notes = better(one, run(0.1, ("Good day.",)))  # all of the difference is the null's
    assert found["token_f1_lift"] == "neither"
    assert len(notes) == 1
    assert "The answers without a system prompt differ between the two runs" in notes[0]
    assert better(one, run(0.1, ("Good day.",), recovered=0.4))[0]["token_f1_lift"] == "A"  # token_f1 says so too
    assert better(one, run(0.05, ("Good day.",), recovered=0.2))[0]["token_f1_lift"] == "neither"  # says the opposite
    # It agrees in sign, as it does half of the time, and decides nothing.
    assert better(one, run(0.1, ("Good day.",), recovered=0.302, sway=0.03))[0]["token_f1_lift"] == "neither"
    assert better(one, run(0.1, ("Hello.",))) == ({**found, "token_f1_lift": "A"}, ())
    # So does one system prompt that was asked again, after which its row has a draw of its own.
    retried = replace(one, rows=[replace(one.rows[0], null_answers=("Good day.",)), *one.rows[1:]])
    assert better(one, retried)[1] == notes
    # Of files without answers a floor tells.
    assert better(run(0.2, ()), run(0.1, ()))[1] == notes
    assert better(run(0.2, ()), run(0.2, ()))[1] == ()
    # Not of another inverter, which writes something else for the same answers.
    assert better(run(0.2, ()), replace(run(0.1, ()), signature={**SIGNATURE, "inverter_hash": "j"}))[1] == ()
    comparison = compare([one], [run(0.1, ("Good day.",))])
    for form in ("text", "html", "json"):
        assert notes[0] in render(comparison, form)
    # Metrics that are not measured against it are left alone.
    attacks = make_run("asr", [0.1, 0.2], task="prompt_leakage_attacks")
    assert compare([attacks], [replace(attacks, null_answers=("Hello.",))]).tasks[0].notes == ()


def test_a_terminal_does_not_obey_a_text():
    run = Results(TASK, "lm_eval", [make_row(0, {"bits": 1.0}, text="Be \x1b]0;x\x07\u202eevil.")], "hf \x1b[31m", dict(SIGNATURE))
    other = replace(run, rows=[replace(run.rows[0], metrics={"bits": 2.0}, reconstruction="\x00\u202e")])
    for form in ("text", "html"):
        assert not set("\x00\x07\x1b\u202e") & set(render(compare([run], [other]), form))


def test_bits_are_not_called_better_by_the_draw_of_the_null_alone():
    """Two runs with the same answers to the prompts: what the null's other draw adds to the truth it adds to the decoys as well."""
    rng = random.Random(3)
    own = [rng.gauss(50, 10) for _ in range(40)]
    moved = [rng.gauss(3, 1) for _ in range(40)]
    swap = [rng.gauss(-8, 2) for _ in range(40)]

    def run_of(bits, swapped, null):
        values = [{"bits": own, "bits_at_4": own / 2, "bits_per_token": own / 9, "bits_swap": other} for own, other in zip(bits, swapped)]
        rows = [make_row(place, own) for place, own in enumerate(values)]
        return Results("prompt_inversion", "lm_eval", rows, "m", SIGNATURE, null_answers=(null,))

    a, b = run_of(own, swap, "a"), run_of([x + m for x, m in zip(own, moved)], [x + m for x, m in zip(swap, moved)], "b")
    for metric in ("bits", "bits_at_4", "bits_per_token"):
        found = {one.metric: one for one in compare([a], [b]).tasks[0].metrics}[metric]
        assert (found.p_value < 0.001, found.low > 0, found.better) == (True, True, "neither")
    same = {one.metric: one for one in compare([a], [run_of([x + m for x, m in zip(own, moved)], swap, "b")]).tasks[0].metrics}["bits"]
    assert same.better == "A"
    drawn_once = {one.metric: one for one in compare([a], [replace(b, null_answers=("a",))]).tasks[0].metrics}["bits"]
    assert drawn_once.better == "A"
    bare_a, bare_b = ([replace(row, metrics={"bits": row.metrics["bits"]}) for row in run.rows] for run in (a, b))
    (unknown,) = compare([replace(a, rows=bare_a)], [replace(b, rows=bare_b)]).tasks[0].metrics
    assert unknown.better == "neither"  # without the decoys' bits nobody knows
