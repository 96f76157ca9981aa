"""The table of ``benchmarks/baselines.py`` from saved answers of either kind."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lm_eval_inversion import evaluate, load_prompts
from lm_eval_inversion.evaluation import decoys_for
from lm_eval_inversion.inverter import Inverter
from lm_eval_inversion.outputs import parse_outputs
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.report.reading import Results, Row

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import baselines  # noqa: E402

DEV = load_prompts("v1", split="dev")
QUERIES = load_query_set("ordinary16").first(3)


def answers_of(text):
    words = text.split()
    return [" ".join(words[start::3]) + "." for start in range(3)]


class Knowing(Inverter):
    """Writes the outputs' words; a prompt is likelier, the more of its words stand in the outputs."""

    name, hash = "knowing", "0"

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        return [" ".join(lines) for lines in outputs]

    def nll(self, outputs, prompts):
        return [float(len(set(prompt.split()) - set(" ".join(lines).replace(".", "").split()))) for lines, prompt in zip(outputs, prompts)]


@pytest.fixture
def collected(tmp_path):
    rows = [
        {"prompt": prompt.text, "answers": [[query.id, text] for query, text in zip(QUERIES.queries, answers_of(prompt.text))]}
        for prompt in DEV[:4]
    ]
    # Two rows without a prompt: only one answer to each query is the null, and only to queries that were asked.
    rows[2:2] = [{"prompt": None, "answers": [["hello", f"Hello {number}."], ["weekend", "Rest."], ["sea", "Salt."]]} for number in (1, 2)]
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_collected_answers_become_outputs_null_and_decoys(collected):
    answers = baselines.read_answers(collected)
    assert answers.prompts == DEV[:4]
    assert [found.lines for found in answers.outputs] == [parse_outputs(answers_of(prompt.text), QUERIES).lines for prompt in DEV[:4]]
    assert answers.null.lines == ("Hello 1.", "Rest.")
    assert answers.pool == [prompt.text for prompt in DEV]
    assert answers.secret == "system"


def test_lists_are_split_and_messages_are_not():
    found = baselines.outputs_of([["describe", "1. I bake.\n2. I sell."], ["hello", "Hi.\nI bake bread."]])
    assert set(found.lines) == {"I bake.", "I sell.", "Hi.\nI bake bread."}
    assert found.counts.answers == 2


def test_a_finished_run_gives_the_outputs_that_its_evaluation_read():
    rows = [Row(prompt, "", {}, answers=tuple(answers_of(prompt.text))) for prompt in DEV[:2]]
    signature = {"num_queries": 3, "decoy_seed": 5}
    run = Results("prompt_inversion_ordinary", "lm_eval", rows, signature=signature, null_answers=("A.", "B.", "C."))
    answers = baselines.run_answers(run)
    assert answers.outputs[1] == parse_outputs(answers_of(DEV[1].text), QUERIES)
    assert answers.null.lines == ("A.", "B.", "C.")
    assert answers.seed == 5
    leaking = Row(DEV[0], "", {}, answers=(DEV[0].text, "b.", "c."))
    guarded = replace(run, rows=[leaking], signature={**signature, "defence": "ngram_filter"})
    assert DEV[0].text in baselines.run_answers(replace(guarded, signature=signature)).outputs[0].lines
    assert DEV[0].text not in baselines.run_answers(guarded).outputs[0].lines


def test_metrics_are_those_of_the_projects_evaluation_and_hard_decoys_are_near(collected):
    answers = baselines.read_answers(collected)
    rows = baselines.rows_of(Knowing(), answers)
    decoys = dict(zip(answers.pool, decoys_for(answers.pool)))
    expected = evaluate(answers.prompts, answers.outputs, answers.null, Knowing(), decoys=[decoys[prompt.text] for prompt in DEV[:4]])
    for row, result in zip(rows, expected.results):
        added = {baselines.HARD, baselines.ABOVE_SWAP}
        assert {name: value for name, value in row.metrics.items() if name not in added} == result.metrics
        assert row.metrics[baselines.ABOVE_SWAP] == result.metrics["token_f1"] - result.metrics["token_f1_swap"]
        assert row.metrics[baselines.HARD] == 1
    (hard,) = baselines.hard_decoys([DEV[0].text], answers.pool)
    assert len(set(hard)) == 15
    assert DEV[0].text not in hard
    near = [baselines.embed(DEV[0].text) @ baselines.embed(text) for text in answers.pool if text != DEV[0].text]
    assert min(baselines.embed(DEV[0].text) @ baselines.embed(text) for text in hard) >= sorted(near)[-15] - 1e-5


def test_one_table_of_all_inverters(collected, chat_model, tiny_inverter_folder, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    names = [str(tiny_inverter_folder), f"asked:{chat_model}", "central", "constant"]
    baselines.main([str(collected), "--inverters", *names, "--limit", "2", "--device", "cpu", "--output", str(output)])
    lines = capsys.readouterr().out.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0] == ["inverter", "token F1", "lift", "above swap", "bits", "top-1", "top-1, hard decoys", "ahead", "seconds"]
    assert [row[0].rpartition(" ")[0] for row in table[2:]] == names
    for row in table[2:4]:
        assert math.isfinite(float(row[4]))  # two prompts have no bootstrap
        assert " to " in row[6]
    assert [row[4:7] for row in table[4:]] == [["-"] * 3] * 2
    assert table[2][7] == "-"
    assert math.isfinite(float(table[4][7]))
    assert re.fullmatch(r"3\.5 \(1\.\d to 5\.\d\)", baselines.shown("bits", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 1))
    saved = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in saved] == [prompt.id for prompt in DEV[:2]] * 4
    first, constant = ([row["token_f1_lift"] for row in saved if row["inverter"] == name] for name in (names[0], "constant"))
    assert table[5][7] == f"{sum(one - two for one, two in zip(first, constant)) / 2:.3f}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 rows with a prompt and 0 without"),
        ([{"prompt": "a", "answers": []}], "1 rows with a prompt and 0 without"),
        ([{"prompt": "a", "answers": [["hello", "b"]]}, {"prompt": None, "answers": [["sea", "c"]]}], "answer none of the queries"),
        ([{"prompt": "a", "answers": [["nope", "b"]]}, {"prompt": None, "answers": [["nope", "c"]]}], "query 'nope' is of no query set"),
        (
            [{"prompt": "a", "answers": []}, {"prompt": "b", "secret": "user", "answers": []}, {"prompt": None, "answers": []}],
            "holds system prompts and messages of users",
        ),
    ],
)
def test_answers_that_cannot_be_compared_are_named(rows, message, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit):
        baselines.main([str(path)])
    assert message in capsys.readouterr().err


def test_answers_that_stand_there_twice_are_named(collected):
    rows = [{"place": place, **row} for place, row in enumerate(baselines.read_pairs(collected))]
    assert len(baselines.collected_answers(rows, "x").prompts) == 4
    with pytest.raises(ValueError, match=r"x holds place 4 twice: two collectors"):
        baselines.collected_answers([*rows, rows[4]], "x")


def test_runs_without_answers_or_of_other_tasks_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds no answers without a system prompt"):
        baselines.run_answers(Results("prompt_inversion_ordinary", "lm_eval", [Row(DEV[0], "", {})]))
    with pytest.raises(ValueError, match="holds neither"):
        baselines.read_answers(tmp_path)


def test_the_curve_ends_in_the_bits_of_the_table(collected, tiny_inverter_folder, tmp_path, capsys):
    image = tmp_path / "curve.png"
    baselines.main([str(collected), "--inverters", str(tiny_inverter_folder), "--device", "cpu", "--curve", str(image)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    curve = rows[rows.index(["outputs", "bits"]) + 2 :]
    numbers = [int(number) for number, _ in curve]
    assert numbers[0] == 1
    assert numbers == sorted(numbers)
    assert curve[-1][1] == rows[2][4]
    assert image.read_bytes().startswith(b"\x89PNG")


def test_details_show_every_metric_and_some_reconstructions(collected, tiny_inverter_folder, capsys):
    baselines.main([str(collected), "--inverters", str(tiny_inverter_folder), "constant", "--device", "cpu", "--details", "2"])
    first, _, rest = capsys.readouterr().out.partition("\n| metric |")
    (bits,) = [line.split("|")[2].strip() for line in rest.splitlines() if line.startswith("| bits |")]
    assert f"| {float(bits):.1f} |" in first  # that of the first inverter
    assert "Written for the null answers:\n\n- " in rest
    table = rest.partition("| id |")[2].splitlines()[2:]
    assert len(table) == 2
    prompts = [prompt.id for prompt in baselines.read_answers(collected).prompts]
    assert [line.split("|")[1].strip() for line in table] == [prompts[0], prompts[len(prompts) // 2]]


def test_a_text_in_a_cell_is_no_markup():
    rows = [Row(SystemPrompt(id="one", text="a | b\n<script>", category="x"), "x " * 1000, {"bits": 1.0})]
    *_, cells = baselines.details(rows, [""], 1).splitlines()
    _, _, truth, reconstruction, _ = re.split(r"(?<!\\)\|", cells)[:5]
    assert truth.strip() == "a \\| b &lt;script>"
    assert 200 < len(reconstruction.strip()) <= 300


def test_what_the_answers_tell_among_sixteen():
    from ceiling import bits_among

    assert bits_among([-3.0] * 16) == pytest.approx(0)
    assert bits_among([0.0] + [-900.0] * 15) == pytest.approx(4)
    assert bits_among([-math.log(3)] + [-math.log(1)] * 15) == pytest.approx(math.log2(16 / 46))
    assert bits_among([-1e5 + 1.0] + [-1e5] * 15) > 0
