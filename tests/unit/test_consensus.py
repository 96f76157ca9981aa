"""The reconstruction that others agree with most: chosen by words, whatever else is in a run; greedy where nobody asks for more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_inversion import evaluate, load_inverter, load_prompts
from lm_eval_inversion.consensus import SEED, TEMPERATURE, agreements, most_agreed, reconstruct, whole_samples
from lm_eval_inversion.evaluation import NullCondition
from lm_eval_inversion.inverter.base import Inverter
from lm_eval_inversion.inverter.registry import check_samples
from lm_eval_inversion.outputs import parse_outputs
from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.scoring.text import token_f1

OUTPUTS = [["I bake bread.", "Ask me about rye."], ["Hello!"], []]
QUERIES = load_query_set("ordinary16").first(4)
PROMPTS = load_prompts("v1", split="dev")[:3]
ANSWERS = [parse_outputs([f"{prompt.text[:30]} {number}" for number in range(4)], QUERIES) for prompt in PROMPTS]
NULL = parse_outputs(["Hello there.", "I can help.", "It depends.", "Fine."], QUERIES)
TEXTS = st.lists(st.text("ab ", max_size=6), min_size=1, max_size=6)


def test_the_text_that_shares_most_words_with_the_others_is_chosen():
    texts = ["You sell cars.", "You bake rye bread.", "You bake bread.", "You bake bread daily."]
    assert most_agreed(texts) == 2
    mean = (token_f1(texts[0], texts[1]) + token_f1(texts[0], texts[2]) + token_f1(texts[0], texts[3])) / 3
    assert agreements(texts)[0] == pytest.approx(mean)


def test_of_equals_the_first_is_chosen_so_that_the_greedy_one_is_kept():
    assert most_agreed(["You bake bread.", "Sell cars.", "Sell cars.", "You bake bread."]) == 0
    assert most_agreed(["Alone."]) == 0
    assert most_agreed(["", ""]) == 0


@given(TEXTS)
def test_agreements_are_shares_that_do_not_hang_on_order(texts):
    found = agreements(texts)
    assert all(0 <= value <= 1 for value in found)
    assert agreements(texts[::-1]) == pytest.approx(found[::-1])
    best = [place for place, value in enumerate(found) if value == max(found)]
    assert most_agreed(texts) == best[0]
    if len({texts[place] for place in best}) == 1:
        assert texts[::-1][most_agreed(texts[::-1])] == texts[best[0]]


def test_without_samples_the_greedy_reconstruction_is_given(tiny_inverter):
    assert reconstruct(tiny_inverter, OUTPUTS, 0, 24) == tiny_inverter.invert(OUTPUTS, 24)


def test_samples_are_drawn_once_and_depend_on_the_own_outputs_only(tiny_inverter):
    together = reconstruct(tiny_inverter, OUTPUTS, 6, 24)
    assert [reconstruct(tiny_inverter, [lines], 6, 24)[0] for lines in OUTPUTS] == together
    (texts,) = tiny_inverter.sample(OUTPUTS[:1], 6, TEMPERATURE, SEED, 24)
    assert together[0] == texts[most_agreed(texts)]
    assert len(set(texts)) > 2


def test_a_smaller_number_of_samples_is_part_of_a_larger_one(tiny_inverter):
    (few,) = tiny_inverter.sample(OUTPUTS[:1], 3, TEMPERATURE, SEED, 24)
    (many,) = tiny_inverter.sample(OUTPUTS[:1], 9, TEMPERATURE, SEED, 24)
    assert many[:4] == few


def test_where_memory_does_not_suffice_fewer_are_written_at_once(tiny_inverter, monkeypatch, caplog):
    (expected,) = tiny_inverter.sample(OUTPUTS[:1], 6, TEMPERATURE, SEED, 24)
    write, sizes = type(tiny_inverter)._write, []

    def scarce(self, prefix, max_new_tokens, **settings):
        sizes.append(settings["number"])
        if settings["number"] > 2:
            raise RuntimeError("out of memory")
        return write(self, prefix, max_new_tokens, **settings)

    monkeypatch.setattr(type(tiny_inverter), "_write", scarce)
    (found,) = tiny_inverter.sample(OUTPUTS[:1], 6, TEMPERATURE, SEED, 24)
    assert found == expected
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert "write 7 reconstructions" in caplog.text


def test_an_inverter_that_cannot_sample_writes_what_it_writes():
    baseline = load_inverter("constant")
    assert reconstruct(baseline, OUTPUTS, 4, 24) == baseline.invert(OUTPUTS, 24)


def test_texts_of_a_run_and_of_its_null_are_chosen_and_bits_stay(tiny_inverter):
    greedy, chosen = (
        evaluate(PROMPTS, ANSWERS, NULL, tiny_inverter, max_new_tokens=24, inverter_samples=samples, batch_size=2) for samples in (0, 5)
    )
    sets = [outputs.lines for outputs in ANSWERS]
    assert [result.reconstruction for result in chosen.results] == reconstruct(tiny_inverter, sets, 5, 24)
    assert [result.reconstruction for result in greedy.results] == tiny_inverter.invert(sets, 24)
    assert chosen.null_reconstructions == tuple(reconstruct(tiny_inverter, NullCondition(tiny_inverter, NULL.lines).parts, 5, 24))
    assert chosen.null_reconstructions != greedy.null_reconstructions
    for one, other in zip(greedy.results, chosen.results):
        for metric in ("bits", "bits_swap", "bits_null", "identification_top1"):
            assert one.metrics[metric] == pytest.approx(other.metrics[metric], abs=1e-4)


def test_outputs_are_read_once_for_all_texts_and_likelihoods(tiny_inverter, monkeypatch):
    read, encode = [], type(tiny_inverter).encode

    def counting(self, blocks):
        read.extend(blocks)
        return encode(self, blocks)

    monkeypatch.setattr(type(tiny_inverter), "encode", counting)
    evaluate(PROMPTS, ANSWERS, NULL, tiny_inverter, max_new_tokens=8, inverter_samples=3, curve=True)
    own = [tiny_inverter.tokenizer.blocks(outputs.lines) for outputs in ANSWERS]
    assert [read.count(blocks) for blocks in own] == [1, 1, 1]


@pytest.mark.parametrize(("told", "number"), [(0, 0), (16, 16), (16.0, 16), (256, 256)])
def test_numbers_of_samples_as_hosts_hand_them_over(told, number):
    assert repr(whole_samples(told)) == repr(number)
    assert make_protocol("prompt_inversion", inverter_samples=told).signature("lm_eval", None, None)["inverter_samples"] == number


@pytest.mark.parametrize("told", [-1, 257, 0.5, "many", None, True])
def test_bad_numbers_of_samples_are_refused(told):
    with pytest.raises(ValueError, match=f"^inverter_samples={told!r}"):
        make_protocol("prompt_inversion", inverter_samples=told)


@pytest.mark.parametrize("name", ["words", "constant", "t5:folder", "asked:folder"])
def test_what_cannot_sample_is_refused(name):
    with pytest.raises(ValueError, match=f"^inverter_samples=4 .*'{name}' writes one"):
        make_protocol("prompt_inversion", inverter=name, inverter_samples=4)
    check_samples(name, 0)
    check_samples("default", 4)


class Unsure(Inverter):
    """Writes worse by itself than its samples say together."""

    name, hash = "unsure", "0"

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        return ["A clerk sells tickets." for _ in outputs]

    def sample(self, outputs, number, temperature, seed, max_new_tokens=256):
        return [["A clerk sells tickets.", *(f"Baker number {place} bakes bread." for place in range(number))] for _ in outputs]


def test_what_samples_share_goes_before_the_greedy_text():
    assert reconstruct(Unsure(), [["x"]], 3, 24) == ["Baker number 0 bakes bread."]
