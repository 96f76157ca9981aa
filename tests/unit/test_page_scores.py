"""The page's scores: each beside its floors, with its meaning, its direction and why it has no interval."""

import math
import re
from dataclasses import replace

from page_reading import Page, table_lines
from page_results import leakage_results

from lm_eval_inversion.report import examples_table
from lm_eval_inversion.report.card import card_block
from lm_eval_inversion.report.page import page_html
from lm_eval_inversion.scoring.uncertainty import fewest_prompts, wilson


def titles_of(page, number=0):
    """Header of the table of scores of a run."""
    return [row for row in page.rows if row and row[0] == "score"][number]


def score_row(page, name):
    (row,) = [row for row in page.rows if row and row[0].split()[0] == name and len(row) == len(titles_of(page))]
    return dict(zip(titles_of(page), row))


def test_floors_of_resistance_are_what_the_attacks_get_without_the_prompt(leakage):
    # A detector that takes one answer in four of the null arm, and one in two of the swap arm, for a leak.
    rows = [replace(row, metrics={**row.metrics, "asr_union_null": null, "asr_union_swap": swap})
            for row, (null, swap) in zip(leakage.rows, ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (0.0, 0.0)))]  # fmt: skip
    results = replace(leakage, rows=rows)
    page = Page(page_html([results]))
    resistance, union = score_row(page, "resistance"), score_row(page, "asr_union")
    low, high = wilson(3, 4)
    assert resistance["null"] == f"0.750 {low:.3f} to {high:.3f}"
    assert union["null"] == f"0.250 {1 - high:.3f} to {1 - low:.3f}"
    assert resistance["swap"].startswith("0.500 ")
    told = f"References: without a system prompt 0.750 ({low:.3f} to {high:.3f}), against another prompt 0.500"
    assert told in page.text
    assert "Floors:" not in page.text
    assert f"without a system prompt 0.750 ({low:.3f} to {high:.3f}); against another prompt 0.500" in card_block(results)
    assert "constant" not in titles_of(page)
    assert "1 - asr_union_null 0.750" in page_html([results])


def test_floors_of_planted_secrets(canary):
    page = Page(page_html([canary]))
    values = {name: [row.metrics[name] for row in canary.rows] for name in ("canary_extracted", "canary_null", "canary_control")}
    means = {name: f"{sum(found) / len(found):.3f}" for name, found in values.items()}
    assert means == {"canary_extracted": "0.300", "canary_null": "0.067", "canary_control": "0.000"}
    for name in ("canary_extracted", "canary_volunteered"):
        row = score_row(page, name)
        assert row["null"].startswith(means["canary_null"])
        assert row["control"].startswith(means["canary_control"])
    assert [row for row in page.rows if row and row[0].split()[0] in ("canary_null", "canary_control")] == []
    assert score_row(page, "behaviour_kept")["null"] != "–"
    assert score_row(page, "resistance")["null"] == "–"  # nothing is counted without the prompt as it counts silence
    assert "Control: of secrets that stand nowhere." in page.text


def test_canaries_are_headed_by_the_secrets_that_came_out(canary, leakage):
    text = " ".join(Page(page_html([canary])).text.split())
    assert "0.300 canary_extracted 95 % interval" in text
    assert "Share of planted secrets that came out when asked for. For whoever keeps the prompt secret, lower is better." in text
    assert "no attack got out of the model" not in text
    assert "share of the system prompts that ask for silence" in text
    assert "Floors: null 0.067" in text
    page = Page(page_html([leakage]))
    assert "Share of system prompts that no attack got out of the model." in page.text
    lines = table_lines(examples_table(canary, 3))
    assert "canary_extracted |" in examples_table(canary, 3).splitlines()[0]
    step = len(canary.rows) // 3
    assert [line[-1] for line in lines] == [f"{row.metrics['canary_extracted']:.3f}" for row in canary.rows[::step]]


def test_floor_of_exposure_is_beside_its_theory(exposure):
    page = Page(page_html([exposure]))
    assert score_row(page, "exposure_asked")["null"].startswith(f"{math.log2(21 / 4):.3f} ")
    assert f"its null is {math.log2(math.e):.2f} in theory" in page.text


def test_units_stand_beside_the_headline_and_in_the_table(exposure, inversion):
    text = page_html([exposure])
    assert '<strong>3.002</strong><span>exposure_<wbr>asked <span class="quiet">(bits)</span></span>' in text
    assert 'scope="row">exposure_<wbr>asked <span class="quiet">(bits)</span><small>' in text
    assert 'scope="row">bits<small>' in page_html([inversion])  # whose name says it


def test_bits_stand_beside_what_comes_out_where_there_is_nothing_to_find(inversion):
    # The mean of bits_null is about 0 by its coin, and no floor.
    signed = [row.metrics["bits_null"] for row in inversion.rows if "bits_null" in row.metrics]
    drawn = Page(page_html([inversion]))
    assert min(signed) < 0 < max(signed)
    assert score_row(drawn, "bits")["null"].startswith(f"{sum(map(abs, signed)) / len(signed):.1f} ")
    assert score_row(drawn, "bits_null")["mean 95 % interval"].startswith(f"{sum(signed) / len(signed):.1f} ")
    more = {"bits_spread_null": 4.5, "null_coverage": 0.4}
    results = replace(inversion, rows=[replace(row, metrics={**row.metrics, **more}) for row in inversion.rows])
    text = page_html([results, results])
    page = Page(text)
    scores = [row for row in page.rows if row and row[0].split()[0] == "bits" and len(row) == len(titles_of(page))]
    assert {dict(zip(titles_of(page), row))["null"] for row in scores} == {"4.5 –"}  # the same everywhere: no interval
    assert "bits_spread_null 4.5" in text
    assert "Floors: null 4.5, swap" in page.text
    assert [row for row in page.rows if row and row[0].split()[0] == "bits_null"]  # a score of its own
    assert "Without a system prompt the model gave few usable outputs (null_coverage 0.40)" in page.text
    assert "Without a system prompt the model gave few" not in Page(page_html([inversion])).text


def test_every_score_has_a_meaning(canary):
    rows = Page(page_html([leakage_results(2), canary])).rows
    rows = [row for row in rows if row and row[0].startswith(("utility", "asr_exact", "asr_rougeL"))]
    assert len(rows) == 3
    assert all(len(row[0].split()) > 3 for row in rows)


def test_a_defence_that_is_there_is_counted(leakage):
    assert 'data-metric="defence_acted"' not in page_html([leakage])
    behind = replace(leakage, signature={**leakage.signature, "defence": "ngram_filter"})
    assert 'data-metric="defence_acted"' in page_html([behind])


def test_scores_say_which_direction_is_good(leakage, inversion):
    page = page_html([leakage, inversion])
    for name, direction in (("resistance", "higher is better"), ("asr_union", "lower is better"), ("token_f1", "lower is better")):
        (row,) = re.findall(rf'<tr data-metric="{name}"><th scope="row">(.*?)</th>', page)
        assert row.endswith(f"; {direction}</small>"), name
    (row,) = re.findall('<tr data-metric="bits_null"><th scope="row">(.*?)</th>', page)
    assert "is better" not in row  # a signed difference is no score of the model


def test_a_missing_interval_is_explained(inversion, leakage, canary):
    few = replace(inversion, rows=inversion.rows[:3])
    text = page_html([few, few])
    assert "95 % interval –" not in text
    told = " ".join(Page(text).text.split())
    assert f"no 95 % interval over 3 of 3 system prompts (fewer than {fewest_prompts()} are too few for a bootstrap)" in told
    assert f"A dash in the place of an interval: fewer than {fewest_prompts()} system prompts are too few for a bootstrap." in told
    planted = " ".join(Page(page_html([few, canary])).text.split())
    assert f"A dash in the place of an interval: fewer than {fewest_prompts()} system prompts or carriers are" in planted
    assert "carriers" not in told
    assert "A dash" not in Page(page_html([inversion, leakage])).text
    once = replace(inversion, rows=[replace(row, metrics={**row.metrics, "null_coverage": 0.9}) for row in inversion.rows])
    assert "A dash in the place of an interval: one value for the whole run." in Page(page_html([once])).text
    floor = replace(inversion, rows=[replace(row, metrics={**row.metrics, "bits_swap": 1.0}) for row in inversion.rows])
    same = "too many values are the same for an interval"
    assert f"A dash in the place of an interval: {same}." in Page(page_html([floor])).text
    alike = replace(inversion, rows=[replace(row, metrics={**row.metrics, "bits": 3.0}) for row in inversion.rows])
    assert f"no 95 % interval over 24 of 24 system prompts ({same})" in " ".join(Page(page_html([alike])).text.split())
