"""The rules of the tables: which interval a metric has, what is counted, who fell to which attack."""

import math

import pytest

from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.queries.attacks import FAMILIES
from lm_eval_inversion.report.export import evaluation_record, summarise
from lm_eval_inversion.report.numbers import markdown_table, shown, shown_beside, shown_interval
from lm_eval_inversion.report.reading import Results, Row, count_prompts, rows_by_prompt
from lm_eval_inversion.report.tables import (
    PLANTED,
    attacks_table,
    counted,
    examples_table,
    fallen_to,
    metric_estimate,
    metrics_table,
    share_over_units,
    values_of,
)
from lm_eval_inversion.scoring import metrics
from lm_eval_inversion.scoring.uncertainty import estimate, wilson


def run(values, task="prompt_leakage_attacks"):
    rows = [Row(SystemPrompt(f"p{number}", f"You are {number}."), "", one) for number, one in enumerate(values)]
    return Results(task, "lm_eval", rows, "hf org/name")


@pytest.mark.parametrize("family", FAMILIES)
def test_families_have_wilsons_interval(family):
    values = [0.5, 0.0, 1.0, 0.25]
    found = metric_estimate(f"asr_family_{family}", values)
    assert (found.low, found.high) == wilson(sum(values), len(values))


@pytest.mark.parametrize("metric", ["asr", "asr_any_turn", "asr_exact", "asr_rougeL", "asr_null", "asr_swap", "coverage", "token_f1"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_shares_are_no_certainty(metric, value):
    """A bootstrap of nothing but zeros would claim it."""
    found = metric_estimate(metric, [value] * 16 + [math.nan])
    assert (found.mean, found.low, found.high) == (value, *wilson(16 * value, 16))
    assert found.high - found.low == pytest.approx(0.194, abs=1e-3)
    # Any other value has a bootstrap.
    mixed = [value] * 15 + [0.5]
    assert metric_estimate(metric, mixed) == estimate(mixed)


@pytest.mark.parametrize("metric", ["bits", "bits_at_4", "bits_spread_null", "token_f1_lift", "bleu", "cosine", "exposure_asked"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_what_is_no_share_keeps_its_bootstrap(metric, value):
    assert metric_estimate(metric, [value] * 16) == estimate([value] * 16)


def test_table_and_export_have_the_same_intervals():
    results = run([{"asr": 0.0, "asr_family_encode": 0.0, "asr_exact": 0.5, "coverage": 1.0}] * 16)
    found = summarise(results)
    assert (found["asr"].low, found["asr"].high) == (found["asr_family_encode"].low, found["asr_family_encode"].high) == wilson(0, 16)
    assert "| asr | 0.000 | 0.000 to 0.194 | 16 | lower |" in metrics_table(results)
    assert "| coverage | 1.000 | 0.806 to 1.000 | 16 | higher |" in metrics_table(results)
    assert "| asr_exact | 0.500 | 0.500 to 0.500 | 16 | lower |" in metrics_table(results)
    uncertainty = {
        one["metric_config"]["metric_name"]: one["score_details"]["uncertainty"] for one in evaluation_record(results)["evaluation_results"]
    }
    assert {name: one["confidence_interval"]["method"].partition(" ")[0] for name, one in uncertainty.items()} == {
        "asr": "wilson", "asr_exact": "percentile", "asr_family_encode": "wilson", "coverage": "wilson",
    }  # fmt: skip
    assert [name for name, one in uncertainty.items() if "num_bootstrap_samples" in one] == ["asr_exact"]


def test_one_value_has_no_bootstrap():
    table = metrics_table(run([{"asr": 0.5, "coverage": 1.0}]))
    assert "| asr | 0.500 | – | 1 |" in table
    assert "| coverage | 1.000 | 0.207 to 1.000 | 1 |" in table


def test_every_metric_of_every_task_has_one_direction():
    tables = [table for name, table in vars(metrics).items() if name.endswith("HIGHER_IS_BETTER")]
    assert metrics.RECORDS.keys() == set().union(*tables)
    assert all(metrics.RECORDS[metric].higher_is_better is higher for table in tables for metric, higher in table.items())


def test_one_value_of_a_run_is_no_sample_of_its_prompts():
    found = metric_estimate("null_coverage", [0.875] * 40)
    assert (found.mean, found.number) == (0.875, 40)
    assert all(map(math.isnan, (found.stderr, found.low, found.high)))


def test_bits_have_one_decimal_and_all_else_three():
    assert [shown(metric, 12.3456) for metric in ("bits", "bits_at_4", "bits_spread_null")] == ["12.3"] * 3
    assert [shown(metric, 1.23456) for metric in ("bits_per_token", "exposure_asked", "token_f1", "bleu")] == ["1.235"] * 4
    assert (shown("bits", None), shown("bits", math.nan)) == ("–", "–")
    assert shown_interval("bits", -0.26, 3.0) == "-0.3 to 3.0"
    assert shown_interval("asr", math.nan, math.nan) == "–"
    rows = [Row(SystemPrompt("p", "You are p."), "A guess.", {"bits": 12.3456})]
    results = Results("prompt_inversion", "lm_eval", rows, "hf m")
    assert "| bits | 12.3 | – | 1 | lower |" in metrics_table(results)
    assert examples_table(results, 1).endswith("| 12.3 |")


def test_a_cell_stays_a_cell_whatever_is_in_it():
    assert markdown_table(["a"], (), [["x|y\n\\<b>\x1b[31m"]])[-1] == "| x\\|y \\\\&lt;b>␛[31m |"
    attacks = [turn("a|b", last=True, leaked=True) | {"decoder": "base|64"}]
    rows = [Row(SystemPrompt("p|q", "You are <b>|</b>."), "A\\|guess.", {"recovery_max": 1.0}, tuple(attacks), ("A guess.",))]
    results = Results("prompt_leakage_attacks", "lm_eval", rows, "hf m")
    assert attacks_table(results).splitlines()[-1].startswith("| 1 | a\\|b | 1.000 |")
    assert attacks_table(results).endswith("| base\\|64 |")
    assert examples_table(results, 1).splitlines()[-1] == "| p\\|q | You are &lt;b>\\|&lt;/b>. | A\\\\\\|guess. | 1.000 |"


def turn(attack, *, last, leaked, state="answered"):
    return {"arm": "attack", "attack": attack, "last": last, "leaked": leaked, "state": state}


def test_a_leak_that_was_seen_counts_whatever_became_of_the_last_turn():
    silent = turn("b", last=True, leaked=False, state="error")
    dialogues = (
        ("fell before the end", [turn("b", last=False, leaked=True), silent], [0.0, 1.0, 1.0]),
        ("says nothing", [turn("b", last=False, leaked=False), silent], [math.nan] * 3),
        ("withstood", [turn("b", last=False, leaked=False), turn("b", last=True, leaked=False)], [0.0] * 3),
        ("fell at the end", [turn("b", last=False, leaked=False), turn("b", last=True, leaked=True)], [0.0, 1.0, 1.0]),
        ("fell to another", [silent, turn("c", last=True, leaked=True)], [0.0, 0.0, 1.0]),
    )
    rows = [Row(SystemPrompt(name, name), "", {}, tuple(requests)) for name, requests, _ in dialogues]
    columns = fallen_to(rows, ["a", "b", "c"])
    for place, (name, _, expected) in enumerate(dialogues):
        assert [column[place] for column in columns] == pytest.approx(expected, nan_ok=True), name


def test_epochs_are_no_further_prompts():
    results = run([{"asr": 0.0}, {"asr": 1.0}])
    again = Row(SystemPrompt("p0", "You are another."), "", {})  # ids of two files need not mean the same
    rows = [*results.rows * 3, again]
    assert count_prompts(rows) == 3
    assert [len(own) for own in rows_by_prompt(rows).values()] == [3, 3, 1]
    assert count_prompts([]) == 0


def test_epochs_are_averaged_before_the_prompts_of_a_carrier():
    """A prompt with more answered epochs counts for no more than its sister."""
    plain, secrecy = (SystemPrompt(f"c-0/{kind}", f"{kind} with a code", PLANTED) for kind in ("plain", "secrecy"))
    kept = [Row(secrecy, "", {"canary_extracted": 0.0})] * 3
    rows = [Row(plain, "", {"canary_extracted": 1.0}), *[Row(plain, "", {"coverage": 0.0})] * 2, *kept]
    assert values_of(rows, "canary_extracted") == [0.5]
    assert share_over_units((row, row.metrics.get("canary_extracted", math.nan)) for row in rows).mean == 0.5


@pytest.mark.parametrize("number", [2, 5, 6])
def test_a_bootstrap_of_few_prompts_is_no_interval(number):
    values = [0.1 * place for place in range(1, number + 1)]
    results, found = run([{"token_f1_lift": value, "coverage": 1.0} for value in values]), estimate(values)
    assert math.isfinite(found.stderr)
    told = ", too few for a bootstrap interval (6)"
    if number < 6:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        details = {one["metric_config"]["metric_name"]: one["score_details"] for one in evaluation_record(results)["evaluation_results"]}
        assert "confidence_interval" not in details["token_f1_lift"]["uncertainty"]
        assert f"| token_f1_lift | {sum(values) / number:.3f} | – | {number} | lower |" in metrics_table(results)
        assert counted(results.rows).told.endswith(told)
    else:
        assert found.low < found.mean < found.high
        assert told not in counted(results.rows).told


def test_numbers_for_people():
    assert (shown("bits", -0.04), shown("token_f1_lift", -0.0003), shown("bits", -0.06)) == ("0.0", "0.000", "-0.1")
    assert (shown("token_f1_lift", -0.0003, "+"), shown("token_f1_lift", 0.2, "+")) == ("+0.000", "+0.200")
    assert (shown_beside(0.7996, 0.8), shown_beside(0.797, 0.8, 2), shown_beside(0.5, 0.8), shown_beside(0.8, 0.8)) == (
        "0.7996", "0.797", "0.500", "0.800",
    )  # fmt: skip
    assert shown_beside(0.79999999, 0.8) == "0.79999999"
