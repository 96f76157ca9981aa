import copy

import pytest
import torch
from conftest import make_model

from lm_eval_inversion.inverter.packing import pack_named, unpack_state
from lm_eval_inversion.inverter.prefix_model import encode_blocks, prompt_hidden
from lm_eval_inversion.inverter.tokens import BlockFormat
from lm_eval_inversion.training.calibration import SecondMoment, join, observe, round_weights

LAYOUT = BlockFormat(max_output_tokens=16)
POSITION = LAYOUT.prompt_position


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(0)

    def tokens(number):
        return torch.randint(3, 60, (number,), generator=generator).tolist()

    return [([[1, *tokens(3 + (index + n) % 4)] for n in range(5)], [1, *tokens(6 + index % 3), 2]) for index in range(12)]


def hidden_states(model, examples):
    states = []
    for blocks, prompt in examples:
        ids = torch.tensor([prompt])
        places = torch.arange(ids.shape[1])
        own = (places[None, :] <= places[:, None])[None]
        states.append(prompt_hidden(model, encode_blocks(model, [blocks]), ids, POSITION + places[None], own)[0])
    return torch.cat(states)


@torch.no_grad()
def test_rounding_with_calibration_changes_a_model_less_and_packs_what_it_leaves(examples):
    original = make_model(64, seed=3).eval()
    nearest, calibrated = copy.deepcopy(original), copy.deepcopy(original)
    for name, parameter in nearest.named_parameters():
        parameter.copy_(unpack_state(pack_named(name, parameter))[name])
    packed = round_weights(calibrated, examples, LAYOUT)
    for name, values in unpack_state(packed).items():
        assert torch.equal(calibrated.get_parameter(name), values)
    assert {name.partition("|")[0] for name in packed} == {name for name, _ in original.named_parameters()}
    wanted = hidden_states(original, examples)
    errors = [(hidden_states(model, examples) - wanted).square().mean().item() for model in (nearest, calibrated)]
    assert 0 < errors[1] < 0.8 * errors[0]


@torch.no_grad()
def test_observed_moments_know_no_padding_and_weigh_blocks_and_prompts_alike(examples):
    model = make_model(64, seed=3).eval()
    matrix = model.get_decoder().layers[0].self_attn.q_proj
    found = observe(model, [matrix], examples, LAYOUT)[0]
    # The first layer sees embeddings, whatever the positions: normalised rows of the embedding matrix.
    layer = model.get_decoder().layers[0]
    expected = SecondMoment()
    for blocks, prompt in examples:
        for kind, rows in (("blocks", blocks), ("prompts", [prompt[:-1]])):
            for row in rows:
                expected.add(kind, layer.input_layernorm(model.get_decoder().embed_tokens(torch.tensor(row))))
    assert torch.allclose(found, expected.value(), atol=2e-2 * expected.value().abs().max().item())
    assert found.trace() == pytest.approx(found.shape[0], rel=0.02)  # RMS-normalised inputs: every token counts once


@torch.no_grad()
def test_joined_prefixes_are_one_prefix(examples):
    model = make_model(64, seed=3).eval()
    blocks, prompt = examples[0]
    whole = encode_blocks(model, [blocks])
    joined = join([encode_blocks(model, [blocks[:2]]), encode_blocks(model, [blocks[2:]])])
    assert torch.equal(whole.mask, joined.mask)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole.keys, joined.keys))
