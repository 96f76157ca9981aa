"""The rules of the tables: which interval a metric has, what is counted, who fell to which attack."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.prompts.canaries import PLANTED
from lm_eval_inversion.queries.attacks import FAMILIES
from lm_eval_inversion.report.compare import compare
from lm_eval_inversion.report.estimates import complement, metric_estimate, share_over_units, summarise
from lm_eval_inversion.report.export import evaluation_record
from lm_eval_inversion.report.numbers import markdown_table, shown, shown_beside, shown_estimate, shown_interval
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.tables import attacks_table, counted, examples_table, fallen_to, metrics_table
from lm_eval_inversion.report.units import count_prompts, rows_by_prompt, values_of
from lm_eval_inversion.scoring import metrics
from lm_eval_inversion.scoring.leakage.detector import ROUGE_SHARE
from lm_eval_inversion.scoring.uncertainty import estimate, fewest_prompts, wilson


def run(values, task="prompt_leakage_attacks"):
    rows = [Row(SystemPrompt(f"p{number}", f"You are {number}."), "", one) for number, one in enumerate(values)]
    return Results(task, "lm_eval", rows, "hf org/name")


@pytest.mark.parametrize("family", FAMILIES)
def test_families_have_wilsons_interval(family):
    values = [0.5, 0.0, 1.0, 0.25]
    found = metric_estimate(f"asr_family_{family}", values)
    assert (found.low, found.high) == wilson(sum(values), len(values))


@pytest.mark.parametrize(
    "metric",
    [
        "resistance", "asr_union", "asr_union_null", "asr_union_swap", "identification_top1", "identification_top1_null", "exact_match",
        "top1_asked", "top1_ordinary", "canary_any", "canary_extracted", "canary_extracted_price", "canary_extracted_secrecy",
        "canary_volunteered", "canary_volunteered_plain", "canary_partial", "canary_encoded_only", "canary_in_reasoning",
        "canary_control", "canary_null",
    ],
)  # fmt: skip
def test_what_is_yes_or_no_has_wilsons_interval_among_mixed_values_too(metric):
    found = metric_estimate(metric, [1.0] * 9 + [0.0] * 7)
    assert (found.low, found.high, found.wilson) == (*wilson(9, 16), True)


@pytest.mark.parametrize("metric", ["asr", "asr_any_turn", "asr_exact", "asr_rougeL", "asr_null", "asr_swap", "coverage", "token_f1"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_shares_are_no_certainty(metric, value):
    """A bootstrap of nothing but zeros would claim it."""
    found = metric_estimate(metric, [value] * 16 + [math.nan])
    assert (found.mean, found.low, found.high) == (value, *wilson(16 * value, 16))
    assert found.high - found.low == pytest.approx(0.194, abs=1e-3)
    # There is a bootstrap where hardly a resample holds none of the other values: 1 % of those of four in 16, but 4 % of those of three.
    mixed = [value] * 12 + [0.5, 0.25, 0.5, 0.75]
    found, free, (low, high) = metric_estimate(metric, mixed), estimate(mixed, lowest=0.0, highest=1.0), wilson(sum(mixed), 16)
    # Never beyond Wilson's, which would do for any values between 0 and 1.
    assert (found.low, found.high) == (max(free.low, low), min(free.high, high))
    assert not found.wilson
    assert metric_estimate(metric, [value, *mixed[:-1]]).wilson
    assert metric_estimate(metric, mixed, level=0.99).wilson


@pytest.mark.parametrize("values", [[0.929] * 16, [0.929] * 16 + [1.0] * 3, [0.1 + 0.2] * 9 + [0.3] * 9])
def test_equal_shares_between_nothing_and_everything_are_no_certainty_either(values):
    found, number = metric_estimate("coverage", values), len(values)
    assert (found.low, found.high) == wilson(found.mean * number, number)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 2.392])
def test_a_bootstrap_of_equal_values_is_no_interval(value):
    """Whoever asks for it: the tables, ``compare``, ``Evaluation.summary``."""
    found = estimate([value] * 40)
    assert (found.mean, found.number) == (pytest.approx(value), 40)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    # A third of all resamples would hold none of the other, 1 % none of the other four.
    assert math.isnan(estimate([value] * 39 + [value + 0.1]).high)
    assert estimate([value] * 36 + [value + 0.1] * 4).high > value + 0.01


def test_a_leak_is_no_surer_than_none():
    """One leak in 150 times 56 answers."""
    none, one = (metric_estimate("asr", [leaked / 56] + [0.0] * 149) for leaked in (0, 1))
    assert one.mean == pytest.approx(1 / 8400)
    assert one.low > none.low == 0.0
    assert one.high > none.high > 0.02
    assert (shown_estimate("asr", none), shown_estimate("asr", one)) == ("0.000 (0.000 to 0.025)", "<0.001 (<0.001 to 0.025)")
    missing = metric_estimate("coverage", [55 / 56] + [1.0] * 149)
    assert shown_estimate("coverage", missing) == ">0.999 (0.975 to >0.999)"
    assert "| asr | <0.001 | <0.001 to 0.025 | 150 |" in metrics_table(run([{"asr": 1 / 56}, *[{"asr": 0.0}] * 149]))


def test_an_interval_of_a_share_that_reads_as_one_number_is_none_of_the_bootstrap():
    many = [1 / 5600] * 8 + [0.0] * 5000
    assert estimate(many).low < estimate(many).high
    assert shown_interval("asr", estimate(many).low, estimate(many).high) == "<0.001 to <0.001"
    found = metric_estimate("asr", many)
    assert (found.low, found.high) == wilson(sum(many), len(many))
    assert shown_interval("asr", found.low, found.high) == "0.000 to 0.001"


@given(st.lists(st.floats(0, 1), min_size=6, max_size=20), st.sampled_from([0.8, 0.95, 0.99]))
def test_a_share_of_many_prompts_always_has_an_interval_that_holds_its_mean(values, level):
    found = metric_estimate("token_f1", values, level)
    if len(values) >= fewest_prompts(level):
        assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
        assert found.low < found.high


@given(st.integers(6, 40), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilsons_interval_of_a_share_is_no_narrower_than_that_of_the_widest_values(number, share, level):
    """Values that are only 0 or 1 vary most: the rule that it stands in for equal values by."""
    ones = round(share * number)
    widest = [1.0] * ones + [0.0] * (number - ones)
    equal = metric_estimate("token_f1", [ones / number] * number, level)
    if number >= fewest_prompts(level):
        assert (equal.low, equal.high) == pytest.approx(wilson(sum(widest), number, level))


@pytest.mark.parametrize("metric", ["bits", "bits_at_4", "bits_spread_null", "bits_per_token", "exposure_asked_null"])
@pytest.mark.parametrize("values", [[0.0] * 16, [2.392] * 16, [2.392] * 16 + [9.0] * 3])
def test_equal_values_without_a_range_have_no_interval(metric, values):
    found = metric_estimate(metric, values)
    assert (found.mean, found.number) == (estimate(values).mean, len(values))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert f"| {metric} | {shown(metric, found.mean)} | – |" in metrics_table(run([{metric: value} for value in values]))
    assert metric_estimate(metric, [*values, 3.0, 4.0, 5.0, 6.0, 7.0]) == estimate([*values, 3.0, 4.0, 5.0, 6.0, 7.0])


@pytest.mark.parametrize(("metric", "low", "width"), [("token_f1_lift", -1.0, 2.0), ("bleu", 0.0, 100.0), ("cosine", -1.0, 2.0)])
def test_equal_values_of_another_range_have_wilsons_interval_over_it(metric, low, width):
    found = metric_estimate(metric, [0.5] * 16)
    share = (0.5 - low) / width
    assert (found.low, found.high) == pytest.approx([low + width * end for end in wilson(16 * share, 16)])
    # Beyond its range by a rounding error.
    assert metric_estimate(metric, [low + width + 1e-6] * 16).high == pytest.approx(low + width)


def test_table_and_export_have_the_same_intervals():
    results = run([{"asr": 0.0, "asr_family_encode": 0.0, "asr_exact": place % 2 / 2, "coverage": 1.0} for place in range(16)])
    found = summarise(results)
    assert (found["asr"].low, found["asr"].high) == (found["asr_family_encode"].low, found["asr_family_encode"].high) == wilson(0, 16)
    assert "| asr | 0.000 | 0.000 to 0.194 | 16 | lower |" in metrics_table(results)
    assert "| coverage | 1.000 | 0.806 to 1.000 | 16 | higher |" in metrics_table(results)
    assert "| asr_exact | 0.250 | 0.106 to 0.394 | 16 | lower |" in metrics_table(results)
    uncertainty = {
        one["metric_config"]["metric_name"]: one["score_details"]["uncertainty"] for one in evaluation_record(results)["evaluation_results"]
    }
    assert {name: one["confidence_interval"]["method"].partition(" ")[0] for name, one in uncertainty.items()} == {
        "asr": "wilson", "asr_exact": "studentised", "asr_family_encode": "wilson", "coverage": "wilson",
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


def test_what_the_attacker_misses_has_the_interval_of_what_he_gets_turned_round():
    low, high = wilson(2, 16)
    found = complement(metric_estimate("asr_union_null", [1.0] * 2 + [0.0] * 14))
    assert (found.mean, found.low, found.high) == pytest.approx((14 / 16, 1 - high, 1 - low))


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


def test_epochs_of_a_redacted_prompt_are_one_whatever_they_were_redacted_under():
    """After inspect eval-retry they may have been under a salt each."""

    def redacted(name, digest, value, words=3):
        return Row(SystemPrompt(name, f"[sha256:{digest * 12}, 14 characters, {words} words]"), "", {"asr": value})

    rows = [redacted("p0", "a", 1.0), redacted("p1", "b", 0.0), redacted("p0", "c", 0.0), redacted("p1", "b", 0.0)]
    assert count_prompts(rows) == 2
    assert values_of(rows, "asr") == [0.5, 0.0]
    # The whole marker of the first epoch stays: by its hash, and not by lengths, runs are paired.
    assert list(rows_by_prompt(rows)) == [(row.prompt_id, row.truth) for row in rows[:2]]
    assert count_prompts([*rows, redacted("p0", "a", 0.0, words=4)]) == 3
    (same,) = compare([Results("prompt_leakage_attacks", "inspect", rows)], [Results("prompt_leakage_attacks", "inspect", rows)]).tasks
    assert {found.pairs for found in same.metrics} == {2}


def test_epochs_are_averaged_before_the_prompts_of_a_carrier():
    """A prompt with more answered epochs counts for no more than its sister."""
    plain, secrecy = (SystemPrompt(f"c-0/{kind}", f"{kind} with a code", PLANTED) for kind in ("plain", "secrecy"))
    kept = [Row(secrecy, "", {"canary_extracted": 0.0})] * 3
    rows = [Row(plain, "", {"canary_extracted": 1.0}), *[Row(plain, "", {"coverage": 0.0})] * 2, *kept]
    assert values_of(rows, "canary_extracted") == [0.5]
    assert share_over_units((row, row.metrics.get("canary_extracted", math.nan)) for row in rows).mean == 0.5
    assert Results("prompt_leakage_canary", "lm_eval", rows).mean("canary_extracted") == 0.5


def test_a_run_has_one_mean_whatever_its_epochs():
    """The prompt that failed in many epochs is one prompt for the table and for the caution."""
    answered = run([{"coverage": 1.0}] * 9).rows
    failed = Row(SystemPrompt("p9", "You are 9."), "", {"coverage": 0.0})
    results = Results("prompt_leakage_attacks", "lm_eval", [*answered, *[failed] * 9])
    assert results.mean("coverage") == summarise(results)["coverage"].mean == pytest.approx(0.9)
    assert results.caution == ""
    fewer = Results("prompt_leakage_attacks", "lm_eval", [*answered[:1] * 9, failed])
    assert "coverage 0.50" in fewer.caution


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


def test_next_to_nothing_is_not_nothing():
    assert [shown("asr", value) for value in (0.0, 1e-12, 0.0004, 0.0006)] == ["0.000", "0.000", "<0.001", "0.001"]
    assert [shown("coverage", value) for value in (1.0, 1 - 1e-12, 0.9996, 0.9994)] == ["1.000", "1.000", ">0.999", "0.999"]
    assert shown_interval("asr", 0.0001, 0.9999) == "<0.001 to >0.999"
    # What is no share ends in no such place.
    assert (shown("token_f1_lift", 0.0004), shown("asr", 0.0004, difference=True), shown("cosine", 0.9999)) == ("0.000", "0.000", "1.000")
    # Nor does a table write it so that it cannot be read on a screen.
    assert markdown_table(["a"], (), [["<0.001", "<b", "</b", "<!--", "<?"]])[-1] == "| <0.001 | &lt;b | &lt;/b | &lt;!-- | &lt;? |"


def test_the_operating_point_that_is_told_is_the_detectors():
    assert metrics.meaning_of("asr_rougeL").endswith(f"reaches {ROUGE_SHARE:g}")


def test_parts_of_canary_metrics_are_told_in_words():
    told = {name: metrics.meaning_of(name, planted=True) for name in metrics.CANARY}
    assert told["canary_extracted_plain"].endswith("asked for, in prompts without the line that asks for silence")
    assert told["canary_volunteered_secrecy"].endswith("ordinary messages, in prompts with the line that asks for silence")
    assert told["canary_extracted_code"].endswith("asked for, codes only")
    assert told["behaviour_kept_sign_off"].endswith("the rule on signing off only")
    assert not [name for name, meaning in told.items() if "_" in meaning or "of plain" in meaning or "of secrecy" in meaning]


def test_carriers_are_explained_where_they_are_counted():
    rows = [Row(SystemPrompt(f"c-{draw}/plain", f"Draw {draw}", PLANTED), "", {"canary_extracted": 0.0}) for draw in range(6)]
    assert "1 carriers (invented prompts, each counted once whatever its draws and conditions)" in counted(rows).told


def test_own_prompts_are_no_carriers_whatever_their_category():
    """Files of before the category was refused may have it."""
    rows = [Row(SystemPrompt(f"bot-{number}", f"You are {number}.", PLANTED), "", {"token_f1": 0.0}) for number in range(3)]
    assert (counted(rows).units, counted(rows).planted) == (3, False)


def test_a_metric_of_unknown_range_has_no_interval_where_its_values_are_equal():
    found = metric_estimate("latency", [5.0] * 20)
    assert (found.mean, math.isnan(found.low), math.isnan(found.high)) == (5.0, True, True)
