import copy

import pytest
import torch
from conftest import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lm_eval_inversion.inverter import check_inverter, decoding, eight_bit, load_inverter
from lm_eval_inversion.inverter.eight_bit import (
    LEVELS,
    EightBitEmbedding,
    EightBitLinear,
    adopt_eight_bits,
    adopt_eight_bits_throughout,
    eight_bits,
)
from lm_eval_inversion.inverter.registry import choose_dtype


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(1, 40), st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_rounding_is_off_by_half_a_unit_at_most(rows, columns, scale, seed):
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    codes, unit = eight_bits(values)
    assert codes.dtype is torch.int8
    assert codes.abs().amax(1).eq(LEVELS).all()  # the largest of a row takes the last level
    assert ((codes * unit - values).abs() <= unit * 0.5001).all()


def test_a_row_of_zeros_stays_zeros():
    codes, unit = eight_bits(torch.zeros(2, 3))
    assert not codes.any()
    assert torch.isfinite(unit).all()


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 5), ()])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_near_the_one_that_it_stands_for(shape, bias):
    torch.manual_seed(0)
    linear = nn.Linear(64, 40, bias=bias)
    inputs = torch.randn(*shape, 64)
    with torch.inference_mode():
        expected, found = linear(inputs), EightBitLinear(linear)(inputs)
    assert found.shape == expected.shape
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_one_token_with_huge_inputs_costs_the_others_nothing():
    torch.manual_seed(0)
    layer = EightBitLinear(nn.Linear(64, 40))
    inputs = torch.randn(8, 64)
    with torch.inference_mode():
        alone = layer(inputs[1:])
        inputs[0] *= 1e4
        assert torch.equal(layer(inputs)[1:], alone)


def test_equal_inputs_of_two_layers_are_rounded_once_and_others_are_not_mistaken_for_them(monkeypatch):
    rounded = []
    monkeypatch.setattr(eight_bit, "eight_bits", lambda rows: rounded.append(rows.clone()) or eight_bits(rows))
    model = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 6)])
    wanted = copy.deepcopy(model)
    adopt_eight_bits(model)
    rounded.clear()  # of the weights
    with torch.inference_mode():
        for number in range(20):  # one tensor goes, the next may take its place in memory
            inputs = torch.randn(3, 8, generator=torch.Generator().manual_seed(number))
            for layer, exact in zip(model, wanted):
                assert (layer(inputs) - exact(inputs)).norm() < 0.03 * exact(inputs).norm()
            assert model[0]._rounding._found is not None
            del inputs
            assert model[0]._rounding._found is None  # not held until the next call: of all layers they are much
    assert len(rounded) == 20


def test_every_linear_layer_below_is_replaced():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Embedding(3, 4))
    adopt_eight_bits(model)
    assert isinstance(model[0][0], EightBitLinear)
    assert isinstance(model[1], nn.Embedding)


def test_an_inverter_in_eight_bits_knows_about_the_same(tiny_inverter_folder, tiny_inverter):
    small = load_inverter(tiny_inverter_folder, dtype="int8")
    assert sum(isinstance(module, EightBitLinear) for module in small.model.modules()) == 7 * small.model.config.num_hidden_layers + 1
    outputs, prompts = [["I bake bread.", "Ask me about rye."]] * 2, ["Be a baker.", "You are a sailor."]
    assert small.nll(outputs, prompts) == pytest.approx(tiny_inverter.nll(outputs, prompts), rel=0.01)
    texts = small.invert([*outputs, ["I sail."]], max_new_tokens=8)
    assert texts[0] == texts[1] == small.invert([outputs[0]], max_new_tokens=8)[0]


def test_embeddings_look_up_the_output_matrix_where_the_two_are_one(tiny_inverter_folder, tiny_inverter):
    small = load_inverter(tiny_inverter_folder, dtype="int8")
    for inverter in (small, copy.deepcopy(small)):  # a copy has matrices of its own, each once
        embeddings, head = inverter.model.get_input_embeddings(), inverter.model.get_output_embeddings()
        assert isinstance(embeddings, EightBitEmbedding)
        assert embeddings.codes.data_ptr() == head.codes.data_ptr()
        exact = tiny_inverter.model.get_input_embeddings()(torch.tensor([[5, 1], [1, 9]]))
        assert (embeddings(torch.tensor([[5, 1], [1, 9]])) - exact).norm() < 0.01 * exact.norm()
    assert copy.deepcopy(small).model.get_output_embeddings().codes.data_ptr() != small.model.get_output_embeddings().codes.data_ptr()


def test_embeddings_of_their_own_stay_in_full():
    model = make_model(40)
    own = model.get_input_embeddings()
    own.weight = nn.Parameter(own.weight.detach() + 1)
    adopt_eight_bits_throughout(model)
    assert model.get_input_embeddings() is own
    assert isinstance(model.get_output_embeddings(), EightBitLinear)


def test_a_prefix_of_fewer_bits_is_multiplied_alike_by_cpus_with_instructions_for_them_and_without(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    rows, matrix = torch.randn(3, 2, 4, 16, generator=generator), torch.randn(3, 2, 16, 50, generator=generator).bfloat16()
    found = []
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(decoding, "fast_dtype", lambda _, fast=fast: fast)
        found.append(decoding._product(rows, matrix))
        assert found[-1].dtype is torch.bfloat16
        torch.testing.assert_close(found[-1].float(), rows @ matrix.float(), rtol=0.02, atol=0.1)
    torch.testing.assert_close(*found, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("load", [check_inverter, load_inverter])
def test_what_eight_bits_are_not_for_is_refused_before_anything_runs(load, chat_model):
    with pytest.raises(ValueError, match="inverter_dtype='int8' is for checkpoints .*; for asked:.* give float32 or bfloat16"):
        load(f"asked:{chat_model}", dtype="int8")
    with pytest.raises(ValueError, match="inverter_dtype='int8' is for CPUs; on cuda:1 give auto or bfloat16"):
        choose_dtype("int8", "cuda:1")


def test_a_bad_device_is_refused_before_anything_is_generated():
    with pytest.raises(ValueError, match="inverter_device='abacus' cannot be used"):
        check_inverter("default", device="abacus")
    with pytest.raises(ValueError, match="inverter_dtype='int3' is unknown"):
        check_inverter("nearest", dtype="int3")
