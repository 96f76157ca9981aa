"""Training against rivals: who is scored after what, and what it costs not to tell them apart."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_inversion.training.contrast import SOFTNESS, alike_together, contrast, with_rivals
from lm_eval_inversion.training.pairs import Example

PROMPTS = [[1, 2], [3, 4, 5], [6], [7, 8]]


def test_rivals_follow_around_the_batch():
    assert with_rivals(PROMPTS[:3], 2) == [[[1, 2], [3, 4, 5], [6]], [[3, 4, 5], [6], [1, 2]], [[6], [1, 2], [3, 4, 5]]]
    assert with_rivals(PROMPTS, 0) == [[prompt] for prompt in PROMPTS]


def test_more_rivals_than_others_are_refused():
    with pytest.raises(ValueError, match="4 rivals of each prompt need a batch of more than 4 examples, not 4"):
        with_rivals(PROMPTS, 4)


def by_definition(nats, prompts, informed):
    """Prompt by prompt: ``after[e][p]`` are the nats of prompt p after the outputs of example e, None where it was not scored."""
    number, places = nats.shape
    after = [[None] * number for _ in range(number)]
    for example in range(number):
        for place in range(places):
            after[example][(example + place) % number] = float(nats[example, place])
    total = 0.0
    for own in range(number):
        if informed[own]:
            told = [e for e in range(number) if e != own and informed[e] and prompts[e] != prompts[own]]
            others = [after[e][own] for e in told if after[e][own] is not None]
            weights = [math.exp(-(value - after[own][own]) / SOFTNESS) for value in [after[own][own], *others]]
            total += SOFTNESS * math.log(sum(weights))
    return total


@given(st.data())
def test_the_cost_is_that_of_picking_each_prompt_s_own_outputs(data):
    number = data.draw(st.integers(1, 6))
    rivals = data.draw(st.integers(0, number - 1))
    values = data.draw(st.lists(st.floats(0, 300), min_size=number * (rivals + 1), max_size=number * (rivals + 1)))
    nats = torch.tensor(values, dtype=torch.float64).reshape(number, rivals + 1)
    prompts = data.draw(st.lists(st.sampled_from(PROMPTS), min_size=number, max_size=number))
    informed = data.draw(st.lists(st.booleans(), min_size=number, max_size=number))
    assert float(contrast(nats, prompts, informed)) == pytest.approx(by_definition(nats, prompts, informed), abs=1e-6)


def test_what_is_told_apart_costs_nothing_and_what_is_not_costs_a_choice():
    apart = torch.tensor([[10.0, 900.0], [10.0, 900.0]])
    assert contrast(apart, PROMPTS[:2], [True, True]) == pytest.approx(0.0, abs=1e-6)
    alike = torch.tensor([[10.0, 70.0], [70.0, 10.0]])
    assert contrast(alike, PROMPTS[:2], [True, True]) == pytest.approx(2 * SOFTNESS * math.log(2))


def test_outputs_that_tell_nothing_of_a_prompt_are_no_rivals():
    """Or the null's likelihood, above which bits are counted, would be trained down."""
    nats = torch.tensor([[50.0, 60.0], [55.0, 52.0]], requires_grad=True)
    cost = contrast(nats, PROMPTS[:2], [True, False])
    cost.backward()
    assert cost.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(nats.grad, torch.zeros(2, 2))


def test_the_gradient_lowers_a_prompt_after_its_own_outputs_and_raises_it_after_others():
    nats = torch.tensor([[50.0, 45.0, 60.0], [40.0, 42.0, 41.0], [30.0, 55.0, 33.0]], requires_grad=True)
    contrast(nats, PROMPTS[:3], [True, True, True]).backward()
    assert (nats.grad[:, 0] > 0).all()
    assert (nats.grad[:, 1:] < 0).all()
    assert nats.grad.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_the_same_prompt_twice_is_no_rival_and_leaves_no_broken_gradient():
    nats = torch.tensor([[50.0, 45.0], [40.0, 42.0]], requires_grad=True)
    cost = contrast(nats, [PROMPTS[0], PROMPTS[0]], [True, True])
    cost.backward()
    assert cost.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(nats.grad).all()


def example(prompt, informed=True):
    return Example(["an output"], prompt, 0.0, "system", informed)


def first_letter(prompts):
    """One direction for each first letter: those with the same are alike."""
    vectors = np.zeros((len(prompts), 26))
    for row, prompt in enumerate(prompts):
        vectors[row, ord(prompt[0]) - ord("a")] = 1.0
    return vectors


def grouped(chunk, size, pool):
    return [(one.prompt, one.informed) for one in alike_together(iter(chunk), size, pool, first_letter)]


def test_the_most_alike_of_a_pool_become_rivals():
    stream = [example(text) for text in ("apple", "brick", "cello", "acorn", "blue", "cider")]
    assert [prompt for prompt, _ in grouped(stream, 2, 6)] == ["apple", "acorn", "brick", "blue", "cello", "cider"]
    # A pool that ends sooner cannot see who comes later.
    assert [prompt for prompt, _ in grouped(stream, 2, 2)] == ["apple", "brick", "cello", "acorn", "blue", "cider"]


def test_the_same_prompt_and_one_that_nothing_tells_of_are_the_last_choice():
    stream = [example("apple"), example("apple"), example("acorn", informed=False), example("brick")]
    assert grouped(stream, 2, 4) == [("apple", True), ("brick", True), ("apple", True), ("acorn", False)]


@given(
    st.lists(st.tuples(st.sampled_from(["apple", "acorn", "brick", "blue"]), st.booleans()), max_size=30),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_grouping_keeps_every_example_in_its_pool(drawn, size, groups):
    stream = [example(*one) for one in drawn]
    pool = size * groups
    found = grouped(stream, size, pool)
    for start in range(0, len(stream), pool):
        assert sorted(found[start : start + pool]) == sorted(drawn[start : start + pool])
        assert found[start] == drawn[start]
