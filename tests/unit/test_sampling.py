"""Sampled reconstructions: the greedy one first, the same whatever else is sampled, none that is implausible.

And the settings with which the evaluated model is sampled: what they mean in all back ends, and which are refused.
"""

import pytest
import torch

from lm_eval_inversion import load_inverter
from lm_eval_inversion.inverter.decoding import BEHIND, sampling
from lm_eval_inversion.sampling import LIMIT_NAMES, normalise_sampling, with_one_limit

OUTPUTS = [["I bake bread.", "Ask me about rye."], ["Hello!"], []]


def test_the_first_is_the_greedy_reconstruction_and_the_others_differ(tiny_inverter):
    found = tiny_inverter.sample(OUTPUTS, 4, 0.8, 0, max_new_tokens=24)
    assert [len(texts) for texts in found] == [5, 5, 5]
    assert [texts[0] for texts in found] == tiny_inverter.invert(OUTPUTS, max_new_tokens=24)
    assert all(len(set(texts)) > 2 for texts in found)


def test_draws_depend_on_the_seed_and_the_own_outputs_only(tiny_inverter):
    together = tiny_inverter.sample(OUTPUTS, 3, 0.8, 7, max_new_tokens=24)
    assert [tiny_inverter.sample([lines], 3, 0.8, 7, max_new_tokens=24)[0] for lines in OUTPUTS] == together
    assert tiny_inverter.sample([OUTPUTS[0][::-1]], 3, 0.8, 7, max_new_tokens=24) == together[:1]
    assert tiny_inverter.sample(OUTPUTS[:1], 3, 0.8, 8, max_new_tokens=24)[0][1:] != together[0][1:]


def test_cold_samples_are_the_greedy_reconstruction(tiny_inverter):
    (texts,) = tiny_inverter.sample(OUTPUTS[:1], 3, 1e-4, 0, max_new_tokens=24)
    assert len(set(texts)) == 1


def test_tokens_are_drawn_as_often_as_they_are_likely_and_never_from_behind():
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    scores = torch.cat([probabilities.log(), torch.tensor([-BEHIND, -torch.inf])]).repeat(4001, 1)
    draws = torch.linspace(0, 1, 4002, dtype=torch.float64)[:-1, None]
    found = sampling(draws, 1.0)(scores, range(4001), 0)
    shares = torch.bincount(found[1:], minlength=5) / 4000
    assert found[0] == 0
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2, 0, 0], abs=1e-3)
    hot = torch.bincount(sampling(draws, 0.5)(scores, range(4001), 0), minlength=5) / 4001
    assert hot.tolist() == pytest.approx([25 / 38, 9 / 38, 4 / 38, 0, 0], abs=2e-3)


@pytest.mark.parametrize(("number", "temperature"), [(-1, 0.8), (2, 0.0), (2, float("inf"))])
def test_bad_settings_are_refused(tiny_inverter, number, temperature):
    with pytest.raises(ValueError, match="temperature"):
        tiny_inverter.sample(OUTPUTS, number, temperature, 0)


def test_baselines_say_that_they_cannot(tiny_inverter):
    baseline = load_inverter("constant")
    assert tiny_inverter.has_sampling()
    assert not baseline.has_sampling()
    with pytest.raises(NotImplementedError, match="'constant' does not sample"):
        baseline.sample(OUTPUTS, 2, 0.8, 0)


# As command lines, YAML files and Python hand it over.
@pytest.mark.parametrize(("given", "samples"), [(0, False), ("false", False), ("False", False), ("0", False), (1, True), ("true", True)])
def test_do_sample_is_read_in_every_spelling(given, samples):
    found = normalise_sampling({"temperature": 0.7, "do_sample": given})
    assert found == {"temperature": 0.7 if samples else 0.0, "do_sample": samples}
    assert type(found["do_sample"]) is bool


@pytest.mark.parametrize("given", [2, -1, 0.5, None, "", "no", []])
def test_a_do_sample_that_is_neither_is_refused(given):
    with pytest.raises(ValueError, match="^do_sample=.* is neither true nor false; give one of them") as found:
        normalise_sampling({"temperature": 0.7, "do_sample": given})
    assert f"do_sample={given!r} " in str(found.value)


@pytest.mark.parametrize("name", ["n", "num_return_sequences"])
def test_several_answers_to_one_request_are_refused(name):
    for number in (2, 0, "2"):
        with pytest.raises(ValueError, match=f"^{name}={number!r}: a task reads one answer.*give {name}=1, or leave it out$"):
            normalise_sampling({name: number})
    for number in (1, None):
        assert normalise_sampling({name: number})[name] == number
    assert normalise_sampling({"best_of": 2, "num_beams": 4})["num_beams"] == 4  # these return one


@pytest.mark.parametrize("name", ["max_gen_toks", *LIMIT_NAMES])
def test_the_longest_answer_is_a_positive_whole_number(name):
    for given in (8, "8", 8.0):  # the harness takes each for 8
        for found in (with_one_limit({name: given}), normalise_sampling({name: given})):
            assert (found["max_gen_toks"], type(found["max_gen_toks"]), found.get("max_tokens")) == (8, int, None)
    for given in (None, 0, -5, -5.0, 8.5, float("inf"), float("nan"), True, "", "many", "-1", [8]):
        for check in (with_one_limit, normalise_sampling):
            with pytest.raises(ValueError, match="give a whole number of at least 1, or leave it out") as found:
                check({"max_gen_toks": 64, name: given})
            assert str(found.value).startswith(f"{name}={given!r}: ")  # the name that the user wrote
    assert "max_gen_toks" not in normalise_sampling({})


def test_stop_texts_are_a_list():
    for given, texts in ((None, []), ([], []), ("e", ["e"]), (["a", "b"], ["a", "b"]), (("a", "b"), ["a", "b"])):
        assert normalise_sampling({"until": given})["until"] == texts
    for given in (5, [None], {"a": 1}, True):
        with pytest.raises(ValueError, match="^until=.*: give a text or a list of texts"):
            normalise_sampling({"until": given})
    assert "until" not in normalise_sampling({})
