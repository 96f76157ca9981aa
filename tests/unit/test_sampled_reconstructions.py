"""Sampled reconstructions: the greedy one first, the same whatever else is sampled, none that is implausible."""

import pytest
import torch

from lm_eval_inversion import load_inverter
from lm_eval_inversion.inverter.decoding import BEHIND, sampling

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


def test_a_smaller_number_of_samples_is_part_of_a_larger_one(tiny_inverter):
    (few,) = tiny_inverter.sample(OUTPUTS[:1], 3, 0.8, 0, max_new_tokens=24)
    (many,) = tiny_inverter.sample(OUTPUTS[:1], 9, 0.8, 0, max_new_tokens=24)
    assert many[:4] == few


def test_where_memory_does_not_suffice_fewer_are_written_at_once(tiny_inverter, monkeypatch, caplog):
    (expected,) = tiny_inverter.sample(OUTPUTS[:1], 6, 0.8, 0, max_new_tokens=24)
    write, sizes = type(tiny_inverter)._write, []

    def scarce(self, prefix, max_new_tokens, **settings):
        sizes.append(settings["number"])
        if settings["number"] > 2:
            raise RuntimeError("out of memory")
        return write(self, prefix, max_new_tokens, **settings)

    monkeypatch.setattr(type(tiny_inverter), "_write", scarce)
    (found,) = tiny_inverter.sample(OUTPUTS[:1], 6, 0.8, 0, max_new_tokens=24)
    assert found == expected
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert "write 7 reconstructions" in caplog.text


def test_many_samples_are_written_in_parts(tiny_inverter, monkeypatch):
    monkeypatch.setattr("lm_eval_inversion.inverter.sparse_prefix.MOST_TEXTS", 4)
    write, sizes = type(tiny_inverter)._write, []

    def counting(self, prefix, max_new_tokens, **settings):
        sizes.append(settings["number"])
        return write(self, prefix, max_new_tokens, **settings)

    monkeypatch.setattr(type(tiny_inverter), "_write", counting)
    tiny_inverter.sample(OUTPUTS[:1], 9, 0.8, 0, max_new_tokens=8)
    assert sizes == [4, 4, 2]


def test_outputs_are_read_once_for_all_texts_and_their_likelihoods(tiny_inverter, monkeypatch):
    read, encode = [], type(tiny_inverter).encode

    def counting(self, blocks):
        read.extend(blocks)
        return encode(self, blocks)

    monkeypatch.setattr(type(tiny_inverter), "encode", counting)
    outputs = [["I sell hats.", "Try one on."]]
    (texts,) = tiny_inverter.sample(outputs, 3, 0.8, 0, max_new_tokens=8)
    tiny_inverter.nll(outputs * len(texts), texts)
    tiny_inverter.nll([outputs[0][:1]], texts[:1])  # a part of them
    assert len(read) == 1


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
