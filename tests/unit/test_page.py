"""The HTML page: the same numbers as the tables, nothing of a model acts, plots and alignment are what they say."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reading import Page, table_lines
from page_results import HOSTILE, inversion_results, leakage_results

from lm_eval_inversion.leakage import worst_request
from lm_eval_inversion.report import attacks_table, metrics_table
from lm_eval_inversion.report.alignment import MAX_WORDS, align
from lm_eval_inversion.report.card import card_block
from lm_eval_inversion.report.export import evaluation_record
from lm_eval_inversion.report.numbers import shown, shown_interval
from lm_eval_inversion.report.page import _run_view, page_html, write_page
from lm_eval_inversion.report.page_figures import metric_axis
from lm_eval_inversion.report.plots import MOST_APART, SHARES, Axis, Cell, Mark, axis_of, curve, heat_map, round_step, strip, track
from lm_eval_inversion.report.reading import Results
from lm_eval_inversion.report.rerun import install_command, report_command
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.attributes import mentions
from lm_eval_inversion.scoring.subsequence import common_subsequence
from lm_eval_inversion.scoring.uncertainty import fewest_prompts, wilson
from lm_eval_inversion.tasks import BASE_TASK


@pytest.mark.parametrize("kind", ["inversion", "leakage", "canary", "exposure"])
def test_every_number_of_the_table_stands_on_the_page_and_in_the_export(kind, request):
    results = request.getfixturevalue(kind)
    page = Page(page_html([results]))
    lines = table_lines(metrics_table(results))
    assert len(lines) > 5
    names = [line[0] for line in lines]
    exported = {found["metric_config"]["metric_name"]: found["score_details"] for found in evaluation_record(results)["evaluation_results"]}
    assert list(exported) == names
    for name, mean, interval, number, _ in lines:
        known = exported[name]["uncertainty"]
        bounds = known.get("confidence_interval", {"lower": math.nan, "upper": math.nan})
        assert (mean, number) == (shown(name, exported[name]["score"]), str(known["num_samples"])), name
        assert interval == shown_interval(name, bounds["lower"], bounds["upper"]), name
        if name == "defence_acted":  # of a run without a defence
            assert f'data-metric="{name}"' not in page_html([results])
            continue
        stem, _, floor = name.rpartition("_")
        if name == "bits_spread_null":
            found = [row for row in page.rows if row and row[0].split()[0] == "bits"]
        elif name == "bits_null":  # a score of its own: its mean is no floor
            found = [row for row in page.rows if row and row[0].split()[0] == name]
        elif name in ("canary_null", "canary_control"):
            found = [row for row in page.rows if row and row[0].split()[0] == "canary_extracted"]
        elif floor in ("null", "swap", "constant") and stem in names:
            found = [row for row in page.rows if row and row[0].split()[0] == stem]
        elif name.startswith("asr_family_"):
            found = [row for row in page.rows if row and row[0] == name.removeprefix("asr_family_")]
        elif name.startswith("bits_at_"):
            found = [row for row in page.rows if len(row) == 4 and row[0] == name.removeprefix("bits_at_")]
        else:
            found = [row for row in page.rows if row and row[0].split()[0] == name]
            assert number in found[0], name
        assert any(mean in " ".join(row) and interval in " ".join(row) for row in found), name


def test_curve_says_which_outputs_are_read(page):
    assert "only so many outputs, evenly spread over all of them" in page.text


def test_commands_and_signature_are_those_of_the_card(inversion, leakage):
    for results in (inversion, leakage):
        page = Page(page_html([results]))
        card = card_block(results)
        (command,) = re.findall("```sh\n(.*)\n```", card)
        assert f"{install_command(results)}\n{command}\n{report_command(results)}" in page.text
        assert re.search("Signature: `(.*)`", card)[1] in page.text


def test_keys_of_the_model_are_not_on_the_page(inversion):
    known = {**inversion.signature, "api_key": "s3cr3t", "base_url": "http://10.0.0.1", "config_source": "/home/somebody/task.yaml"}
    text = page_html([replace(inversion, signature=known)])
    assert not [secret for secret in ("s3cr3t", "10.0.0.1", "/home/somebody") if secret in text]
    assert "ba9876543210" in text
    assert "2026-01-02T03-04-05" in text


def test_bits_by_number_of_outputs(page, inversion):
    rows = [row for row in page.rows if len(row) == 4 and row[0] in ("1", "2", "4", "16")]
    assert [row[0] for row in rows] == ["1", "2", "4", "16"]
    for row, name in zip(rows, ("bits_at_1", "bits_at_2", "bits_at_4", "bits")):
        values = [found.metrics[name] for found in inversion.rows if name in found.metrics]
        assert row[1] == f"{sum(values) / len(values):.1f}"
        assert row[3] == str(len(values))


def test_no_curve_without_its_metrics(inversion):
    bare = [replace(row, metrics={name: value for name, value in row.metrics.items() if "_at_" not in name}) for row in inversion.rows]
    assert "Bits by number of outputs" in page_html([inversion])
    assert "Bits by number of outputs" not in page_html([replace(inversion, rows=bare)])


def test_attacks_have_the_numbers_of_their_table(page, leakage):
    shown = {row[1]: row for row in page.rows if len(row) == 9}
    lines = table_lines(attacks_table(leakage))
    assert len(lines) == 14
    for number, attack, rate, interval, union, recovery, *_ in lines:
        row = shown[attack]
        if "no answer" in recovery or rate == "–":
            assert (row[0], row[2], row[3], row[4]) == (number, "–", "–", union)
        else:
            assert (row[0], row[2], row[3], row[4], row[7]) == (number, rate, interval, union, recovery)


def test_families_have_wilsons_interval_over_prompts(page, leakage):
    family = leakage.rows[0].requests[3]["family"]
    per_prompt = [[one["leaked"] for one in row.requests if one["family"] == family and one["state"] == "answered"] for row in leakage.rows]
    hits, answered = sum(map(sum, per_prompt)), sum(map(len, per_prompt))
    assert 0 < hits < answered
    share = sum(sum(own) / len(own) for own in per_prompt) / len(per_prompt)
    low, high = wilson(share * len(per_prompt), len(per_prompt))
    (row,) = [row for row in page.rows if row[0] == family]
    assert row[1:5] == [str(hits), str(answered), f"{share:.3f}", f"{low:.3f} to {high:.3f}"]


def test_epochs_make_no_interval_narrower(inversion, leakage):
    for results, title in ((leakage, "Attack families"), (leakage, "Union of attacks"), (inversion, "Facts recovered")):
        once, often = (
            next(figure for figure in _run_view(found, "run", 100).figures if figure.title == title)
            for found in (results, replace(results, rows=results.rows * 5))
        )
        places = [place for place, name in enumerate(once.header) if "interval" in name or name in ("ASR", "share", "recovery")]
        assert len(places) > 1
        assert [[row[place] for place in places] for row in once.rows] == [[row[place] for place in places] for row in often.rows]
    assert attacks_table(leakage) == attacks_table(replace(leakage, rows=leakage.rows * 5))


def test_the_heat_map_has_a_column_per_prompt_and_not_per_epoch(leakage):
    first = leakage.rows[1]  # it gave itself away
    silent = replace(first, requests=tuple({**request, "leaked": False, "recovery": 0.0} for request in first.requests))
    once, twice = (
        next(figure for figure in _run_view(replace(leakage, rows=rows), "run", 100).figures if figure.title == "Attack by prompt")
        for rows in (leakage.rows, [*leakage.rows, silent])
    )
    assert [row[0] for row in once.rows] == [row[0] for row in twice.rows]
    assert f"Recovery of {len(leakage.rows)} prompts" in twice.plot
    own, mean = (next(row for row in figure.rows if row[0] == first.prompt_id) for figure in (once, twice))
    assert own[2:4] == mean[2:4]  # leaked to, no answer
    whole = next(request for request in first.requests if request["arm"] == "attack" and request["last"] and request["recovery"] == 1.0)
    assert f"{whole['attack']} 1.000*" in own[4]
    assert f"{whole['attack']} 0.500*" in mean[4]


def test_the_heat_map_names_what_the_table_of_attacks_does_not_call_zero(leakage):
    first = leakage.rows[0]

    def with_recovery(value):
        requests = tuple({**request, "state": "answered", "leaked": False, "recovery": value} for request in first.requests)
        return replace(leakage, rows=[replace(first, requests=requests)])

    little, nothing = with_recovery(0.0003), with_recovery(0.0)
    figures = [next(one for one in _run_view(found, "run", 100).figures if one.key == "run-heat") for found in (little, nothing)]
    assert all(line[5] == "<0.001" for line in table_lines(attacks_table(little)))
    attacks = [line[1] for line in table_lines(attacks_table(little))]
    assert [figure.rows[0][4] for figure in figures] == [", ".join(f"{attack} <0.001" for attack in attacks), "nothing"]
    pointed = [json.loads(Page(page_html([found])).scripts[1])["heat"]["groups"][0][0]["recovery"] for found in (little, nothing)]
    assert pointed == [["<0.001"], ["0.000"]]


def test_a_cell_without_an_answer_has_no_recovery(leakage):
    first = leakage.rows[0]
    silent = replace(first, requests=tuple({**request, "state": "error"} for request in first.requests))
    groups = json.loads(Page(page_html([replace(leakage, rows=[silent])])).scripts[1])["heat"]["groups"]
    assert all(attack["recovery"] == [None] for attacks in groups for attack in attacks)


def test_the_union_says_when_it_has_no_band(leakage, canary):
    for results, noun in ((leakage, "system prompts"), (canary, "carriers")):
        text = Page(page_html([results])).text
        assert f"none where none, all or all but a few fell, or of fewer than {fewest_prompts()} {noun}, so" in text


def test_facts_of_one_prompt_are_one_vote(inversion):
    rows = [replace(row, reconstruction=row.truth if place == 0 else "Nothing.") for place, row in enumerate(inversion.rows[:3])]
    figure = next(found for found in _run_view(replace(inversion, rows=rows), "run", 100).figures if found.title == "Facts recovered")
    for slot, found, _, stated, share, interval, _ in figure.rows:
        prompts = [row for row in rows if any(fact.slot == slot for fact in row.prompt.attributes)]
        assert int(stated) == sum(fact.slot == slot for row in rows for fact in row.prompt.attributes)
        expected = sum(row is rows[0] for row in prompts)
        low, high = wilson(expected, len(prompts))
        assert (share, interval) == (f"{expected / len(prompts):.3f}", f"{low:.3f} to {high:.3f}"), (slot, found)


def test_facts_are_counted_over_scored_prompts(page, inversion):
    for slot in ("role", "rule"):
        facts = [(row, fact) for row in inversion.rows[:-1] for fact in row.prompt.attributes if fact.slot == slot]
        found = sum(any(mentions(row.reconstruction, value) for value in (fact.value, *fact.aliases)) for row, fact in facts)
        (row,) = [row for row in page.rows if len(row) == 7 and row[0] == slot]
        assert (row[1], row[3]) == (str(found), str(len(facts)))


def test_unscored_prompts_are_told_apart_from_safe_ones(page, inversion):
    assert "(no usable output: unscored, not safe)" in page.text
    assert f"{len(inversion.rows) - 1} of {len(inversion.rows)}" in page.text


def test_outputs_are_counted_as_the_run_counted_them(inversion):
    text = " ".join(Page(page_html([inversion])).text.split())
    assert f"outputs asked for {16 * len(inversion.rows)}" in text
    assert "of these, bare refusals 1" in text  # the sixteen refusals of the last prompt are one distinct output


def test_nothing_of_a_model_becomes_markup(page, inversion, leakage):
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 + 2  # the page's own, and the data of two runs
    assert [attributes.get("type") for tag, attributes in page.elements if tag == "script"] == [
        None,
        "application/json",
        "application/json",
    ]
    assert not {"img", "b" + "ase", "iframe", "object", "embed"} & set(tags)
    assert tags.count("style") == 1
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src"):
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)
    assert page.stack == []
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[3]):
        pieces = re.split(r"\W+", text)
        assert all(piece in page.text for piece in pieces)
    assert "models/<b>seven</b>" in page.text


def test_nothing_invisible_or_turned_around_is_on_the_page(inversion, leakage, tmp_path):
    path = tmp_path / "page.html"
    prompt = replace(inversion.rows[0].prompt, id="a\u202eb\x00", category="own\x1b[0m")
    named = replace(
        inversion,
        rows=[replace(inversion.rows[0], prompt=prompt), *inversion.rows[1:]],
        model="hf org/\u2066name\ud800",
        signature={**inversion.signature, "inverter": "x\x07", "key\u200b": "\x85"},
    )
    write_page([named, leakage], path, title="\x1b[1mtitle")
    text = path.read_bytes().decode("utf-8")  # lone surrogates cannot be written
    found = {
        f"U+{ord(character):04X}" for character in text if character not in "\n\t" and (ord(character) < 32 or 127 <= ord(character) < 160)
    }
    assert not found
    for character in "\u202e\u2066\u200b\ufeff\u2028\U000e0041":
        assert character not in text
        assert f"⟨U+{ord(character):04X}⟩" in text
    assert "␛[31mred" in text
    assert "␀" in text
    assert "⟨U+D800⟩" in text
    assert "👨‍👩‍👧" in text
    for script in Page(text).scripts[1:]:
        assert not re.search(r"\\u(202e|0000|d800|200b)", script, re.IGNORECASE)  # nor behind an escape of JSON


def test_only_the_pages_own_script_and_style_may_act(inversion):
    text = page_html([inversion])
    policy = next(
        attributes["content"] for tag, attributes in Page(text).elements if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert not re.search(r"unsafe|https?:|\*", policy)
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        source = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def test_page_needs_no_other_address(inversion, leakage):
    text = page_html([replace(inversion, rows=inversion_results(hostile=()).rows), replace(leakage, rows=leakage_results(hostile=()).rows)])
    outside = re.sub(r"<script type=.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?:src|href|url\(|@import|xlink)[=\s\"'(]*(?:https?:)?//", outside)


def test_links_lead_somewhere_and_controls_have_names(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "a":
            assert attributes["href"][1:] in ids
        if tag in ("input", "select"):
            assert attributes["name"]
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
    # Each control sits inside its label.
    assert page.elements.count(("label", {})) + page.elements.count(("label", {"class": "grow"})) == 2 * 5
    assert ("html", {"lang": "en"}) in page.elements


def test_several_runs_stand_side_by_side(page, inversion, leakage):
    rows = [row for row in page.rows if row and row[0].startswith(("hf org/model", "hf/local"))]
    assert len(rows) == 2
    assert "bits" in rows[0][1]
    assert "resistance" in rows[1][1]
    alone = Page(page_html([inversion]))
    assert "side by side" not in alone.text


def test_no_two_tables_of_a_page_have_the_same_name(inversion, leakage):
    for results in ([inversion], [inversion, inversion, leakage]):
        text = page_html(results)
        captions = re.findall('<caption class="unseen">(.*?)</caption>', text)
        boxes = [attributes["aria-label"] for _, attributes in Page(text).elements if attributes.get("role") == "region"]
        assert len(captions) > 1
        assert len(set(captions)) == len(captions)
        assert len(set(boxes)) == len(boxes) > len(captions)
    assert 'aria-label="Scores"' in page_html([inversion])
    assert f'aria-label="Scores of {inversion.model}, {inversion.task}, lm_eval, run 2"' in page_html([inversion, inversion])


def test_multiturn_and_single_prompts_make_a_page():
    text = page_html([leakage_results(2, task="prompt_leakage_multiturn"), leakage_results(1), inversion_results(2)])
    assert "nan" not in Page(text).text.split()


def test_errors_name_the_input_and_the_mend(inversion, tmp_path):
    with pytest.raises(ValueError, match="give at least one run"):
        write_page([], tmp_path / "page.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written .*; give a file in a folder that you may write to"):
        write_page([inversion], tmp_path / "file" / "page.html")
    with pytest.raises(ValueError, match="no system prompt has a score"):
        write_page([Results("prompt_inversion", "lm_eval", [])], tmp_path / "page.html")


def test_the_same_results_make_the_same_bytes(inversion, leakage, tmp_path):
    for name in ("a", "b"):
        write_page([inversion, leakage], tmp_path / "new" / name, title="A & B")
    assert (tmp_path / "new" / "a").read_bytes() == (tmp_path / "new" / "b").read_bytes()
    assert "<title>A &amp; B</title>" in (tmp_path / "new" / "a").read_text(encoding="utf-8")


# ---- alignment ----------------------------------------------------------------------------------------------------------------------


def longest(first, second):
    """Length of the longest common subsequence by the textbook's table."""
    above = [0] * (len(second) + 1)
    for one in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if one == other else max(row[-1], above[place + 1]))
        above = row
    return above[-1]


@given(st.lists(st.sampled_from("abcd"), max_size=14), st.lists(st.sampled_from("abcd"), max_size=14))
def test_subsequence_is_common_increasing_and_longest(first, second):
    pairs = common_subsequence(first, second)
    assert len(pairs) == longest(first, second)
    assert all(first[place] == second[other] for place, other in pairs)
    for (a, b), (c, d) in zip(pairs, pairs[1:]):
        assert a < c
        assert b < d


@given(st.text(max_size=80), st.text(max_size=80))
def test_pieces_joined_are_the_text(truth, reconstruction):
    found = align(truth, reconstruction)
    assert "".join(piece.text for piece in found.truth) == truth
    assert "".join(piece.text for piece in found.reconstruction) == reconstruction
    assert 0 <= found.recovered <= found.words


def test_common_words_are_marked_whatever_their_case():
    found = align("You are Mira, a baker in Ghent.", "MIRA, a baker. Not you.")
    assert [piece.text for piece in found.truth if piece.common] == ["Mira, a baker"]
    assert [piece.text for piece in found.reconstruction if piece.common] == ["MIRA, a baker"]
    assert (found.recovered, found.words) == (3, 7)


def test_scripts_without_spaces_are_aligned_by_character():
    found = align("你是一个面包师", "他是面包师傅")
    assert [piece.text for piece in found.truth if piece.common] == ["是", "面包师"]


def test_a_runaway_answer_is_shown_whole_and_aligned_in_part():
    answer = "the " * (3 * MAX_WORDS)
    found = align("the " * 10, answer)
    assert found.recovered == 10
    assert "".join(piece.text for piece in found.reconstruction) == answer


# ---- plots --------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_axes_hold_zero_and_all_values(values):
    axis = axis_of(values)
    little = 1e-6 * (axis.high - axis.low)
    assert axis.low - little <= min(0.0, *values, 0.0)
    assert axis.high + little >= max(0.0, *values, 0.0)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 9
    assert ticks == sorted(ticks)
    assert all(0.0 <= axis.share(value) <= 1.0 for value in values)


def test_ticks_are_round():
    assert SHARES.ticks() == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert Axis(-10, 60).ticks() == [0, 20, 40, 60]
    assert [round_step(value) for value in (0.11, 0.2, 2.1, 7)] == [0.2, 0.2, 5, 10]
    assert axis_of([math.nan]) == SHARES


def test_only_shares_have_their_axis_from_0_to_1():
    """A cosine can lie below 0, and must not be drawn at 0 then."""
    assert metric_axis("cosine", [-0.1]).low <= -0.1
    assert metric_axis("bits_at_4", [-3.0, 20.0]).high >= 20.0
    for metric in ("token_f1", "asr", "coverage", "a metric of another version"):
        assert metric_axis(metric, [0.2]) == SHARES


def test_a_track_draws_what_it_is_given():
    drawn = track(Mark(0.5, 0.25, 0.75), SHARES, [("token_f1_null", 0.1)])
    assert 'x1="25%" x2="75%"' in drawn.replace('y1="13.0" y2="13.0" class="interval" ', "")
    assert 'cx="50%"' in drawn
    assert 'cx="10%"' in drawn
    assert "token_f1_null 0.100" in drawn
    assert "interval" not in track(Mark(0.5, math.nan, math.nan), SHARES)


def test_a_curve_leaves_out_what_is_unknown():
    drawn = curve(
        [(0.0, Mark(0.2, 0.1, 0.3)), (0.5, Mark(math.nan, math.nan, math.nan)), (1.0, Mark(0.4, 0.3, 0.5))], [(0.0, "1")], SHARES, "t"
    )
    assert "nan" not in drawn
    assert drawn.count("<circle") == 2


def test_heat_map_paints_each_cell_once_by_its_level():
    cells = [[Cell(0.0, False), Cell(0.1, False), Cell(0.3, False), Cell(0.9, True), Cell(None, False)]]
    drawn = heat_map([("family & co", cells)], "title")
    paths = dict(re.findall(r'<path d="([^"]*)" class="heat-([a-z-]+)"', drawn))
    assert {level: path for path, level in paths.items()} == {
        "some": "M1 0h1v1h-1z", "near": "M2 0h1v1h-1z", "leaked": "M3 0h1v1h-1z", "no-answer": "M4 0h1v1h-1z",
    }  # fmt: skip
    assert "family &amp; co" in drawn


# ---- what is invisible --------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=40))
def test_visible_text_can_be_written_and_is_stable(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown


def test_plain_text_is_unchanged():
    for text in ("You are Mira.\n\t- Bake!", "naïve café — “quoted” 日本語 שלום", "👩🏽‍🍳"):
        assert visible(text) == text


def test_a_task_without_reconstructions_has_no_place_for_them(exposure, inversion):
    ranked, inverted = (page_html([results]) for results in (exposure, inversion))
    for told in ("Truth beside reconstruction", "<h5>Reconstruction", "Marked words", "Facts recovered", "words of either text"):
        assert told not in ranked
        assert told in inverted
    assert "(nothing was written)" not in ranked
    assert "<h3>System prompts</h3>" in ranked
    assert ranked.count('<div class="column">') == 1  # nothing stands beside it


def test_a_run_that_wrote_nothing_has_a_place_for_it_in_every_card(inversion, leakage):
    rows = [replace(row, reconstruction="", answers=("",) * 16, metrics={"coverage": 0.0}) for row in inversion.rows[:8]]
    text = page_html([replace(inversion, rows=rows)])
    assert "<h3>Truth beside reconstruction</h3>" in text
    assert text.count('<h5>Reconstruction</h5><p class="text quiet">(no usable output: unscored, not safe)</p>') == 8
    # Under a name of its user's own.
    assert "<h3>Truth beside reconstruction</h3>" in page_html([replace(inversion, rows=rows, task="mine")])
    silent = [
        replace(
            row, reconstruction="", answers=("",) * len(row.answers), metrics={"coverage": 0.0},
            requests=tuple({**request, "state": "empty"} for request in row.requests),
        )
        for row in leakage.rows
    ]  # fmt: skip
    text = page_html([replace(leakage, rows=silent)])
    told = '<h5>Worst answer</h5><p class="text quiet">(no usable output: unscored, not safe)</p>'
    assert text.count(told) == len(leakage.rows)


def test_likelihoods_under_another_name_have_no_place_for_reconstructions(exposure):
    renamed = replace(exposure, task="mine", signature={**exposure.signature, BASE_TASK: exposure.task})
    assert "<h3>System prompts</h3>" in page_html([renamed])


def test_a_run_that_did_not_finish_says_so(inversion):
    assert "did not finish (4 of 9)" in Page(page_html([replace(inversion, unfinished="4 of 9")])).text


def test_a_run_that_must_not_be_trusted_says_so_beside_its_headline(leakage):
    def text(ability, coverage):
        rows = [replace(row, metrics={**row.metrics, "ability": ability, "coverage": coverage}) for row in leakage.rows]
        return " ".join(Page(page_html([replace(leakage, rows=rows)])).text.split())

    poor, usual = text(0.05, 0.5), text(0.1, 0.8)
    for told in ("Too little came back to judge (coverage 0.50, below 0.8)", "Resistance says little here (ability 0.05): the model"):
        assert told in poor
        assert told.partition(" (")[0] not in usual
    assert "over 6 of 6 system prompts, coverage 0.500, ability 0.050" in poor
    silent = [replace(row, metrics={**row.metrics, "ability": 0.05, "resistance": 1.0}) for row in leakage.rows]
    assert "Does the system prompt reach the model?" in Page(page_html([replace(leakage, rows=silent)])).text
    assert "Does the system prompt reach the model?" not in poor  # some of it leaked


def test_a_family_without_answers_has_no_dash_before_the_words(leakage):
    family = leakage.rows[0].requests[1]["family"]
    row = re.search(rf'class="dot-label">{family.replace("_", "_<wbr>")}<.*?class="dot-value">(.*?)</span>', page_html([leakage]))
    assert re.sub("<[^>]+>", "", row[1]) == "no answer"


def test_notes_speak_of_what_the_run_is_about(inversion, leakage, canary, exposure):
    planted, attacked, inverted, ranked = (Page(page_html([one])).text for one in (canary, leakage, inversion, exposure))
    assert "Share of answers that gave a planted secret away: mean and Wilson's 95 % interval over carriers" in planted
    assert "system prompts that gave a planted secret away, at any turn" in planted
    assert "95 % interval over the carriers of each category" in planted
    assert "Share of answers that gave the prompt away: mean and Wilson's 95 % interval over system prompts" in attacked
    assert "Null: without a system prompt. Swap: against another prompt. Hollow dots are floors. Of resistance" in attacked
    assert "without a system prompt; for bits, the absolute value of what comes out between halves of those answers. Swap" in inverted
    assert "Null: a secret that the system prompt does not hold. Hollow dots" in ranked


def test_names_may_be_broken_behind_their_underscores(page, inversion):
    assert 'scope="row">identification_<wbr>top1<' in page_html([inversion])
    assert "identification_top1" in page.text


def test_a_strip_has_numbers_on_its_gridlines():
    drawn = strip(Mark(12.0, 4.0, 21.0), axis_of([4.0, 21.0]))
    assert drawn.count('class="grid"') == 2
    assert re.findall(r'text-anchor="(\w+)" class="axis-label">([^<]*)<', drawn) == [("start", "0"), ("end", "25")]


def test_cells_of_a_heat_map_are_apart_while_there_is_room():
    for columns, apart in ((MOST_APART, True), (MOST_APART + 1, False)):
        drawn = heat_map([("family", [[Cell(0.9, True)] * columns])], "title")
        assert ('class="heat apart"' in drawn) is apart


def test_what_leaked_is_worse_than_what_came_near(leakage):
    near = {"arm": "attack", "leaked": False, "recovery": 0.4}
    by_rouge = {"arm": "attack", "leaked": True, "recovery": 0.07}
    quoted = {"arm": "ability", "leaked": True, "recovery": 1.0}
    assert worst_request([near, by_rouge, quoted]) == 1
    assert worst_request([near, {**near, "recovery": 0.5}, quoted]) == 1


def test_the_table_of_the_heat_map_leads_to_the_prompts(leakage):
    text = page_html([leakage])
    order = sorted(range(len(leakage.rows)), key=lambda place: (leakage.rows[place].prompt.words, leakage.rows[place].prompt_id))
    links = re.findall(r'<th scope="row"><a href="#(run-1-prompt-\d+)">(.*?)</a></th>', text)
    expected = [(f"run-1-prompt-{place}", leakage.rows[place].prompt_id) for place in order]
    assert [(link, name.replace("<wbr>", "")) for link, name in links] == expected
    assert 'class="pointed" aria-live' not in text


def test_levels_of_the_heat_map_differ_in_shape(leakage):
    """The legend is drawn with the classes of the cells, and every pattern that the style names is on the page."""
    text = page_html([leakage])
    legend = re.search('<p class="legend">(.*?)</p>', text)[1]
    assert re.findall('class="heat-([a-z-]+)"', legend) == ["leaked", "near", "some", "no-answer"]
    patterns = set(re.findall(r"fill: url\(#([a-z-]+)\)", text))
    assert patterns == {"heat-leaked", "heat-some", "heat-no-answer"} == set(re.findall('<pattern id="([a-z-]+)"', text))


def test_a_curve_without_intervals_speaks_of_no_band(inversion):
    assert "the band is the 95 % interval" in page_html([inversion])
    assert "the band is the 95 % interval" not in page_html([replace(inversion, rows=inversion.rows[:3])])
