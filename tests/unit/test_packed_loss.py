"""The loss of training beside the functions that decode: one value, one gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_inversion.inverter.candidates import candidate_loss
from lm_eval_inversion.inverter.prefix_model import encode_blocks
from lm_eval_inversion.inverter.tokens import BlockFormat
from lm_eval_inversion.training.packed_loss import PackedLoss

VOCABULARY, POSITION = 40, 13


def model_with(key_heads, tied=True, output_layers=None):
    """A random model of four heads, which share ``key_heads`` key heads, through ``output_layers`` layers of which outputs run."""
    torch.manual_seed(key_heads)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=key_heads, max_position_embeddings=512, initializer_range=0.3, tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.output_layers = output_layers
    return model


@pytest.fixture(scope="module")
def models():
    return {"shared": model_with(2), "one": model_with(1), "own": model_with(4, tied=False), "stopped": model_with(2, output_layers=1)}


def value_and_gradients(model, function, blocks, prompts):
    model.zero_grad(set_to_none=True)
    nats = function(model, blocks, prompts)
    # Weighted, so that a gradient that reached another example's loss would show.
    (nats * torch.linspace(1.0, 2.0, len(prompts))).sum().backward()
    return nats.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def padded(model, blocks, prompts):
    prefixes = [encode_blocks(model, [own], model.output_layers) for own in blocks]
    return torch.cat([candidate_loss(model, prefix, [prompt], POSITION) for prefix, prompt in zip(prefixes, prompts)])


def layout_of(model):
    return BlockFormat(max_output_tokens=POSITION - 1, output_layers=model.output_layers)


def packed(model, blocks, prompts):
    return PackedLoss()(model, blocks, [[prompt] for prompt in prompts], layout_of(model))


def same(model, blocks, prompts):
    expected, wanted = value_and_gradients(model, padded, blocks, prompts)
    found, gradients = value_and_gradients(model, packed, blocks, prompts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    largest = max(gradient.abs().max() for gradient in wanted.values())
    for name, gradient in wanted.items():
        limits = {"rtol": 1e-3, "atol": 1e-5 * float(largest)}
        torch.testing.assert_close(gradients[name], gradient, **limits, msg=lambda text, name=name: f"{name}: {text}")


def tokens(seed, length):
    return torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


CASES = {
    "one example without outputs": ([0], [5]),
    "one example of one output": ([(4,)], [5]),
    "nobody has outputs": ([0, 0, 0], [3, 9, 2]),
    "some have none": ([0, (3, 7), 0, (1,)], [4, 2, 8, 3]),
    "blocks of different lengths": ([(1, 12, 5), (12, 2), (7,)], [6, 3, 9]),
    "many blocks of one token": ([(1,) * 64, (1,)], [4, 4]),
    "long prompts": ([(3, 5), (9,)], [280, 2]),
    "equal lengths": ([(6, 6), (6, 6)], [7, 7]),
}


@pytest.mark.parametrize("name", ["shared", "one", "own", "stopped"])
@pytest.mark.parametrize("case", CASES)
def test_packing_changes_neither_value_nor_gradient(models, name, case):
    lengths, prompt_lengths = CASES[case]
    blocks = [[tokens(31 * row + column, length) for column, length in enumerate(own or ())] for row, own in enumerate(lengths)]
    prompts = [tokens(1000 + row, length) for row, length in enumerate(prompt_lengths)]
    same(models[name], blocks, prompts)


ids = st.integers(3, VOCABULARY - 1)
example = st.tuples(st.lists(st.lists(ids, min_size=1, max_size=POSITION), max_size=6), st.lists(ids, min_size=2, max_size=24))


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(["shared", "one", "own", "stopped"]), batch=st.lists(example, min_size=1, max_size=5))
def test_whatever_the_batch(models, name, batch):
    same(models[name], [blocks for blocks, _ in batch], [prompt for _, prompt in batch])


def test_the_rest_of_the_batch_does_not_matter(models):
    blocks, prompts = [[tokens(1, 5), tokens(2, 9)], [], [tokens(3, 2)]], [tokens(4, 6), tokens(5, 11), tokens(6, 3)]
    together = packed(models["shared"], blocks, prompts)
    alone = torch.cat([packed(models["shared"], [own], [prompt]) for own, prompt in zip(blocks, prompts)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_the_order_of_an_example_s_outputs_does_not_matter(models):
    outputs, prompt = [tokens(number, 3 + number) for number in range(5)], tokens(9, 12)
    loss = packed(models["shared"], [outputs, outputs[::-1]], [prompt, prompt])
    assert loss[0].item() == pytest.approx(loss[1].item(), rel=1e-5)
    assert packed(models["shared"], [outputs[1:]], [prompt])[0].item() != pytest.approx(loss[0].item(), rel=1e-4)


@pytest.mark.parametrize("name", ["shared", "one", "own", "stopped"])
def test_prompts_after_the_same_outputs_do_not_see_each_other(models, name):
    blocks = [[tokens(1, 5), tokens(2, 9)], [], [tokens(3, 2)]]
    prompts = [[tokens(4, 6), tokens(5, 11), tokens(4, 6)], [tokens(6, 3), tokens(7, 8)], [tokens(8, 5)]]

    def together(model, blocks, prompts):
        return PackedLoss()(model, blocks, prompts, layout_of(model))

    def apart(model, blocks, prompts):
        return torch.cat([padded(model, [own], [prompt]) for own, scored in zip(blocks, prompts) for prompt in scored])

    def run(function):
        models[name].zero_grad(set_to_none=True)
        nats = function(models[name], blocks, prompts)
        (nats * torch.linspace(1.0, 2.0, len(nats))).sum().backward()
        return nats.detach(), [parameter.grad.clone() for parameter in models[name].parameters()]

    (expected, wanted), (found, gradients) = run(apart), run(together)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    for one, other in zip(gradients, wanted):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_one_prompt_too_few_is_refused(models):
    with pytest.raises(ValueError, match="zip"):
        packed(models["shared"], [[tokens(1, 3)], []], [tokens(2, 4)])


def test_bfloat16_is_near(models):
    """What a GPU trains in: the same within that type's rounding."""
    blocks, prompts = [[tokens(1, 5), tokens(2, 9)], []], [tokens(4, 20), tokens(5, 11)]
    exact = packed(models["shared"], blocks, prompts)
    with torch.autocast("cpu", torch.bfloat16):
        found = packed(models["shared"], blocks, prompts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.5)
