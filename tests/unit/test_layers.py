"""Outputs that stop at a layer: what is read of them above, beside a model that they run through."""

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lm_eval_inversion.inverter.layers import TAKEN_APART
from lm_eval_inversion.inverter.prefix_model import encode_blocks

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
KINDS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
BLOCKS = [[[1, 5, 9, 4], [1, 7]], [[1, 30, 31, 32, 33]]]


@pytest.fixture(params=TAKEN_APART)
def model(request):
    torch.manual_seed(0)
    config, kind = KINDS[request.param]
    return kind(config(**SIZES)).eval()


def parts(prefix):
    return list(zip(prefix.keys, prefix.values))


@torch.no_grad()
def test_stopping_before_the_last_layer_changes_nothing(model):
    # The last layer's keys and values are those of what the layer before it gives, whether or not the tokens go on.
    whole, stopped = encode_blocks(model, BLOCKS), encode_blocks(model, BLOCKS, layers=2)
    assert torch.equal(whole.mask, stopped.mask)
    for one, other in zip(parts(whole), parts(stopped)):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_above_the_layer_where_they_stopped_outputs_are_read_where_they_stopped(model):
    whole, stopped = encode_blocks(model, BLOCKS), encode_blocks(model, BLOCKS, layers=1)
    for layer in (0, 1):
        torch.testing.assert_close(parts(stopped)[layer], parts(whole)[layer], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(stopped.keys[2], whole.keys[2], atol=1e-2)
    # As if the layer in between added nothing to them.
    for matrix in (model.get_decoder().layers[1].self_attn.o_proj, model.get_decoder().layers[1].mlp.down_proj):
        matrix.weight.zero_()
    torch.testing.assert_close(parts(stopped)[2], parts(encode_blocks(model, BLOCKS))[2], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_model_that_is_not_taken_apart_is_read_through_all_layers():
    torch.manual_seed(0)
    kind = Gemma3ForCausalLM(Gemma3TextConfig(**{**SIZES, "head_dim": 8})).eval()
    assert len(encode_blocks(kind, BLOCKS).keys) == 3


@torch.no_grad()
def test_outputs_run_through_no_more_layers_and_the_model_stays_whole(model):
    before = model(torch.tensor([BLOCKS[1][0]])).logits
    handles = [layer.register_forward_pre_hook(lambda *_: pytest.fail("ran")) for layer in model.get_decoder().layers[1:]]
    encode_blocks(model, BLOCKS, layers=1)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(torch.tensor([BLOCKS[1][0]])).logits, before)
