"""The table of defences."""

from dataclasses import replace

import pytest

from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.report.defences import defences_table, similarities
from lm_eval_inversion.report.reading import Results, Row

PROMPT = SystemPrompt("a", "You are Mira the baker of rye bread in Ghent")
TASK = "prompt_inversion_ordinary"


def run(defence, answers, bits, null_answers=()):
    row = Row(PROMPT, "guess", {"bits": bits, "coverage": 1.0}, (), tuple(answers))
    return Results(TASK, "lm_eval", [row], "hf m", {"defence": defence}, None, tuple(null_answers))


def test_similarity_reads_what_is_handed_out():
    leak = f"Well: {PROMPT.text}"
    plain = run("none", ["Good day.", leak], 30.0)
    assert similarities(plain, plain) == [1.0]
    assert similarities(run("ngram_filter", ["Good day.", leak], 3.0), plain)[0] == pytest.approx(0.5, abs=0.1)
    assert similarities(run("regenerate", ["Good day.", leak], 3.0, ["Hello.", "Nice weather today."]), plain) == [0.5]


def test_answers_to_messages_that_only_the_undefended_run_sent_are_left_out():
    plain, fewer = run("none", ["Good day.", "Rye bread.", "Come in."], 30.0), run("sandwich", ["Good day.", "Rye bread."], 12.5)
    assert similarities(fewer, plain) == [1.0]


def test_a_guard_hands_out_the_null_answers_of_its_own_row():
    leak = f"Well: {PROMPT.text}"
    plain = run("none", ["Good day.", leak], 30.0)
    guarded = run("regenerate", ["Good day.", leak], 3.0, ["Hello.", leak])
    assert similarities(guarded, plain) == [1.0]
    retried = replace(guarded, rows=[replace(guarded.rows[0], null_answers=("Hello.", "Nice weather today."))])
    assert similarities(retried, plain) == [0.5]


def test_epochs_are_no_further_prompts():
    plain, other = run("none", ["Good day."], 30.0), run("sandwich", ["Good evening."], 12.5)
    more = replace(other, rows=[*other.rows, replace(other.rows[0], answers=("Good day.",))])
    assert similarities(more, plain) == [pytest.approx((similarities(other, plain)[0] + 1.0) / 2)]


def test_a_prompt_without_answers_is_left_out_and_told_of():
    answers = [f"Fine answer number {place}." for place in range(3)]
    prompts = [SystemPrompt(f"p{place}", f"You are the assistant of shop number {place}.") for place in range(4)]

    def several(defence, failed):
        """``failed``: place of what Inspect leaves of a sample that ended in an error."""
        found = run(defence, answers, 30.0)
        rows = [replace(found.rows[0], prompt=prompt) for prompt in prompts]
        rows[failed] = Row(prompts[failed], "", {"coverage": 0.0})
        return replace(found, rows=rows)

    plain, other = several("none", 3), several("sandwich", 2)
    assert [str(value) for value in similarities(other, plain)] == ["1.0", "1.0", "nan", "nan"]
    table = defences_table([plain, other])
    assert "defence=sandwich: 2 of 4 system prompts have no similarity" in table
    assert "defence=none: 1 of 4 system prompts have no similarity" in table
    assert "| 1.000 (0.342 to 1.000) | 4 |" in table  # Wilson's, of two: equal values are no certainty
    # Another epoch of the prompt has answers.
    again = replace(plain, rows=[*plain.rows[:3], replace(plain.rows[0], prompt=prompts[3]), plain.rows[3]])
    assert [str(value) for value in similarities(other, again)] == ["1.0", "1.0", "nan", "1.0"]


def test_one_row_a_defence():
    table = defences_table([run("none", ["Good day."], 30.0), run("sandwich", ["Good evening."], 12.5)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[2] for row in rows] == ["none", "sandwich"]
    assert rows[0][3] == "30.0"  # one prompt has no interval
    assert rows[0][-2].startswith("1.000")
    assert rows[1][3] == "12.5"
    assert 0.3 < float(rows[1][-2].split()[0]) < 0.7
    with pytest.raises(ValueError, match="give one"):
        defences_table([run("none", [], 1.0), run("none", [], 2.0)])


def test_a_name_with_a_bar_keeps_the_row_together():
    assert "| hf a\\|b | none |" in defences_table([replace(run("none", [], 30.0), model="hf a|b")])


def test_runs_that_do_not_compare_are_told_of():
    plain, other = run("none", ["Good day."], 30.0), run("sandwich", ["Good evening."], 12.5)
    assert "WARNING" not in defences_table([plain, other])
    moved = replace(other, signature={**other.signature, "inverter_hash": "b"}, unfinished="status 'error', 1 of 2 system prompts")
    elsewhere = replace(moved, rows=[replace(moved.rows[0], prompt=SystemPrompt("b", "You are Otto."))])
    table = defences_table([plain, elsewhere])
    for told in ("inverter_hash differs", "did not finish", "their system prompts are not the same"):
        assert told in table


def test_a_task_under_a_name_of_its_own_is_compared_as_what_it_is():
    """Users give each defence a YAML file, and each file needs a name."""
    base, own = run("none", ["Good day."], 30.0), run("sandwich", ["Good day."], 12.5)
    own = replace(own, task="mine", signature={**own.signature, "base_task": TASK, "prompts_hash": "other"})
    text = defences_table([base, own])
    assert [cell.strip() for cell in text.splitlines()[3].split("|")][1:4] == ["mine", "hf m", "sandwich"]
    assert "| 1.000 (" in text.splitlines()[3] or "| 1.000 |" in text.splitlines()[3]  # similarity
    assert "WARNING: mine, defence=sandwich (B) against none (A): prompts_hash differs" in text
    # The first of its kind where none is undefended, and the run of its own name where several are.
    guarded = replace(run("ngram_filter", ["Good day."], 12.5), signature={"defence": "ngram_filter", "prompts_hash": "a"})
    assert "mine, defence=sandwich (B) against ngram_filter (A)" in defences_table([guarded, own])
    plain = replace(base, task="mine", signature={**own.signature, "defence": "none"})
    assert "(B) against" not in defences_table([base, plain, own]).partition("mine, defence=sandwich")[2]


def test_without_an_undefended_run_the_first_is_compared_with():
    first, second = run("sandwich", ["Good day."], 30.0), run("refusal_line", ["Good evening."], 12.5)
    assert "WARNING" not in defences_table([first, second])
    moved = replace(second, signature={**second.signature, "inverter_hash": "b"})
    assert "defence=refusal_line (B) against sandwich (A): inverter_hash differs" in defences_table([first, moved])
    # Another model is another matter.
    assert "WARNING" not in defences_table([first, replace(moved, model="hf other")])


def test_markers_of_redacted_runs_say_nothing_of_their_prompts():
    def redacted(found, digit):
        prompt = SystemPrompt("a", f"[sha256:{digit * 12}, 40 characters, 9 words]")
        return replace(found, rows=[replace(found.rows[0], prompt=prompt)], signature={**found.signature, "prompts_hash": digit})

    table = defences_table([redacted(run("none", [], 30.0), "a"), redacted(run("sandwich", [], 12.5), "b")])
    assert "prompts_hash differs" not in table
    assert "are not the same" not in table
    assert "whether their prompts are the same is not known; redacted runs pair only" in table


def test_a_run_with_next_to_nothing_to_measure_against_is_told_of():
    poor = run("none", ["Good day."], 30.0)
    poor = replace(poor, rows=[replace(row, metrics={**row.metrics, "null_coverage": 0.25}) for row in poor.rows])
    assert "WARNING: prompt_inversion_ordinary, defence=none: Without a system prompt the model gave few" in defences_table([poor])
