"""Words of outputs as evidence for prompts, by hand and as laws; in checkpoints and in identification."""

import json
import math
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_inversion import evaluate, load_inverter, load_prompts
from lm_eval_inversion.evaluation import null_condition
from lm_eval_inversion.inverter import CheckpointError, Inverter
from lm_eval_inversion.inverter.registry import check_inverter
from lm_eval_inversion.inverter.words import NEVER_COUNTED, TOLD, OutputWords, stems
from lm_eval_inversion.outputs import OutputCounts, Outputs, parse_outputs
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.training import words as command
from lm_eval_inversion.training.pairs import Pair

WORDS = OutputWords(1000, {"the": 900, "bread": 20})
TEXTS = st.lists(st.text(max_size=40), max_size=6)


class Equal(Inverter):
    """All prompts are alike to it, but for what it counts."""

    name, hash = "equal", "0"

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        return ["x" for _ in outputs]

    def nll(self, outputs, prompts):
        return [3.0 for _ in prompts]


class Counting(Equal):
    def word_evidence(self, outputs, prompts):
        return WORDS.evidence_of_pairs(outputs, prompts)


def test_stems_join_the_forms_of_a_word():
    assert stems("Repairing repairs; REPAIRED!") == {"repair"}
    assert stems("") == stems("… !") == frozenset()
    assert stems("日本") == {"日", "本"}


def test_counting_leaves_out_what_stands_in_one_output():
    words = OutputWords.count(["Bread, bread and rye", "the bread", "a roll"])
    assert words == OutputWords(3, {"bread": 2})
    assert OutputWords.count([]) == OutputWords(0, {})


def test_evidence_by_hand():
    anyway = (20 + NEVER_COUNTED) / 1001
    told = anyway + TOLD * (1 - anyway)
    one_of_two = math.log(told / anyway) + math.log((1 - told) / (1 - anyway))
    assert WORDS.evidence(["Our bread.", "Well."], ["You sell bread.", "Breads"])[1] == pytest.approx(one_of_two)
    assert WORDS.evidence([], ["You sell bread."]) == [0]
    assert WORDS.evidence(["Our bread."], [""]) == [0]


def test_rare_words_say_more_and_words_that_stay_away_speak_against():
    outputs = ["the bread of Zorvax", "the end"]
    rare, bread, common, absent = WORDS.evidence(outputs, ["Zorvax", "bread", "the", "cheese"])
    assert rare > bread > common > 0 > absent


@given(TEXTS, st.text(max_size=60), st.randoms())
def test_order_of_outputs_never_matters(outputs, prompt, chance):
    shuffled = list(outputs)
    chance.shuffle(shuffled)
    assert WORDS.evidence(outputs, [prompt]) == WORDS.evidence(shuffled, [prompt])
    assert math.isfinite(WORDS.evidence(outputs, [prompt])[0])


@given(st.lists(st.text(max_size=30), max_size=8))
def test_what_is_written_is_read(outputs):
    words = OutputWords.count(outputs)
    assert OutputWords.read(words.written()) == words


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"outputs": 3}', '{"outputs": "3", "counts": {}}', '{"outputs": 3, "counts": []}',
     '{"outputs": 3, "counts": {"a": 4}}', '{"outputs": 3, "counts": {"a": 0}}',
     '{"outputs": 3, "counts": {"a": true}}', '{"outputs": 3, "counts": {"a": NaN}}',
     '{"outputs": -1, "counts": {}}', "[" * 100_000],
)  # fmt: skip
def test_other_files_are_no_counts(text):
    with pytest.raises(ValueError, match="holds "):
        OutputWords.read(text)


def test_only_pairs_can_be_compared():
    for name in ("constant", "words"):
        inverter = load_inverter(name)
        with pytest.raises(ValueError, match="2 sets of outputs and 1 prompts"):
            inverter.word_evidence([[], []], ["x"])
    assert load_inverter("constant").word_evidence([["x"], ["y"]], ["x", "z"]) == [0, 0]
    assert not load_inverter("constant").has_word_evidence()


def test_the_baseline_writes_telling_words_and_identifies_by_them():
    words = load_inverter("words")
    outputs = ["The zorvax oven bakes rye.", "Ask about our zorvax oven."]
    (text,) = words.invert([outputs])
    assert text.split()[0] == "zorvax"
    assert words.invert([outputs[::-1], []]) == [text, ""]
    about, other = words.word_evidence([outputs, outputs], ["You sell the zorvax oven.", "You teach the violin."])
    assert about > 5 > 0 > other
    prompts, queries = load_prompts("v1", split="dev")[:4], load_query_set("ordinary16").first(4)
    answers = [parse_outputs([" ".join(prompt.text.split()[start::4]) for start in range(4)], queries) for prompt in prompts]
    summary = evaluate(prompts, answers, parse_outputs(["Hello there."] * 4, queries), words).summary()
    assert summary["identification_top1"].mean == 1
    assert "bits" not in summary


def test_identification_adds_words_to_likelihood_and_bits_do_not():
    prompts, queries = load_prompts("v1", split="dev")[:3], load_query_set("ordinary16").first(4)
    answers = [parse_outputs([" ".join(prompt.text.split()[start::4]) for start in range(4)], queries) for prompt in prompts]
    null = parse_outputs(["Hello there.", "Well.", "It depends.", "Fine."], queries)
    equal, counting = (evaluate(prompts, answers, null, inverter()).summary() for inverter in (Equal, Counting))
    assert (equal["identification_top1"].mean, counting["identification_top1"].mean) == (1 / 16, 1)
    assert equal["bits"].mean == counting["bits"].mean == counting["bits_null"].mean == 0
    # "the" speaks against these prompts, which name it: no null output does.
    assert (equal["identification_top1_null"].mean, counting["identification_top1_null"].mean) == (1 / 16, 0)
    lines = answers[0].lines
    assert null_condition(Counting(), null.lines).evidence(lines, ["bread"]) == [WORDS.evidence(lines, ["bread"])[0] / math.log(2)]


def test_the_control_is_told_by_the_words_of_the_half_that_is_played():
    class Reader(Counting):
        """The half of the null outputs that speaks of bread makes every prompt likelier."""

        def nll(self, outputs, prompts):
            return [1.0 if "bread" in lines else 2.0 for lines in outputs]

    null = Outputs(("bread", "law", "bread", "tax"), OutputCounts(answers=4, requested=4, lines=4))
    prompts = [SystemPrompt(str(place), f"Bread {place}") for place in range(12)]
    results = evaluate(prompts, [null] * 12, null, Reader(), decoys=[["Maths"]] * 12).results
    played = [result.metrics["bits_null"] > 0 for result in results]  # the half with bread, by a coin
    assert set(played) == {True, False}
    assert [result.metrics["identification_top1_null"] for result in results] == played


def test_the_shipped_checkpoint_counts_words_for_both_kinds_of_secrets():
    inverter = load_inverter("default")
    outputs = [["Our sourdough needs two days."]] * 2
    system = inverter.of("system").word_evidence(outputs, ["You bake sourdough.", "You teach law."])
    assert system == inverter.of("user").word_evidence(outputs, ["You bake sourdough.", "You teach law."])
    assert system[0] > 0 > system[1]


@pytest.fixture
def copied(tiny_inverter_folder, tmp_path):
    return shutil.copytree(tiny_inverter_folder, tmp_path / "copy")


def test_counts_of_a_checkpoint_are_verified(copied):
    (copied / "words.json").write_text('{"outputs": 3, "counts": {"a": 3}}')
    for load in (check_inverter, load_inverter):
        with pytest.raises(CheckpointError, match=r"words\.json is damaged or was changed"):
            load(str(copied))
    (copied / "words.json").unlink()
    with pytest.raises(CheckpointError, match=r"words\.json is missing"):
        load_inverter(copied)


def test_a_checkpoint_without_counts_identifies_by_likelihood_alone(copied):
    description = json.loads((copied / "inverter.json").read_text())
    del description["sha256"]["words.json"]
    (copied / "inverter.json").write_text(json.dumps(description))
    assert load_inverter(copied).word_evidence([["bread"]], ["bread"]) == [0]


def test_words_are_added_to_a_checkpoint(copied, tmp_path, capsys, monkeypatch):
    before = {name: (copied / name).read_bytes() for name in ("weights.safetensors", "tokenizer.json")}
    pairs = [Pair("You bake.", ("Fresh bread.", "More bread.")), Pair(None, ("Hello.",))]
    monkeypatch.setattr(command, "load_pairs", lambda files: pairs * 2)
    command.main(["--checkpoint", str(copied), "--pairs", str(tmp_path)])
    inverter = load_inverter(copied)
    assert capsys.readouterr().out.startswith(inverter.hash)
    assert inverter.words == OutputWords(3, {"bread": 2})
    assert before == {name: (copied / name).read_bytes() for name in before}
    monkeypatch.setattr(command, "load_pairs", lambda files: [Pair("You bake.", ())])
    with pytest.raises(SystemExit):
        command.main(["--checkpoint", str(copied), "--pairs", str(tmp_path)])
    assert "they hold no output" in capsys.readouterr().err
