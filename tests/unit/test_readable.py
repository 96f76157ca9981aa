"""Which models this package can read token by token, and that it refuses the others instead of getting them wrong."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lm_eval_inversion.attention import slides
from lm_eval_inversion.inverter.registry import choose_dtype
from lm_eval_inversion.target import require_readable, token_logits
from lm_eval_inversion.training.generation import sample_answers

SIZES = {
    "vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def make(kind, **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **more}), dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.0625}),
        ("gemma2", {"final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}),
        ("qwen3", {}),
        ("gemma3n_text", {"num_kv_shared_layers": 1, "num_hidden_layers": 2, "layer_types": ["full_attention", "full_attention"]}),
    ],
)
def test_models_whose_logits_are_known(kind, more):
    require_readable(make(kind, **more), "--model x")


def test_recurrent_models_are_refused():
    model = make("mamba", state_size=8, hidden_size=32)
    with pytest.raises(ValueError, match="--model x is a recurrent or hybrid model .mamba"):
        require_readable(model, "--model x")


def test_models_that_do_not_read_the_cache_are_refused():
    model = make("rwkv", attention_hidden_size=32, context_length=64)
    with pytest.raises(ValueError, match="--model x is a r"):
        require_readable(model, "--model x")


def test_logits_that_are_made_in_another_way_are_refused(monkeypatch):
    model = make("llama")
    forward = type(model).forward

    def scaled(self, *arguments, **keywords):
        found = forward(self, *arguments, **keywords)
        found.logits = 4 * found.logits
        return found

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(ValueError, match="makes its logits in a way that is not known here"):
        require_readable(model, "--model x")


def test_hyperclova_multiplies_where_granite_divides():
    hidden = torch.ones(1, 32)
    granite = make("granite", logits_scaling=8.0)
    plain = granite.get_output_embeddings()(hidden)
    assert torch.allclose(token_logits(granite, hidden), plain / 8)
    granite.config.model_type = "hyperclovax"
    assert torch.allclose(token_logits(granite, hidden), plain * 8)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("mistral", {"sliding_window": 8}), ("gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 8}), ("llama", {})],
)
def test_a_window_does_not_count_padding(kind, more):
    model = make(kind, **more)
    assert slides(model.config) is (kind != "llama")
    generator = torch.Generator().manual_seed(1)
    start = torch.randint(3, 120, (6,), generator=generator).tolist()
    conversations = [[[*start, *torch.randint(3, 120, (length,), generator=generator).tolist()] for length in (2, 4, 3)]]
    expected = []
    for ids in conversations[0]:
        row = list(ids)
        for _ in range(8):
            row.append(int(model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
        expected.append(row[len(ids) :])
    (found,) = sample_answers(
        model, conversations, max_tokens=[[8] * 3], temperatures=[[0.0] * 3], stop_ids=set(), generator=torch.Generator().manual_seed(0)
    )
    assert found == expected


def test_the_first_cpu_is_a_cpu():
    assert choose_dtype("auto", "cpu:0") is torch.float32
    assert choose_dtype("int8", "cpu:0") is torch.int8
    assert choose_dtype("auto", "cuda:0") is torch.bfloat16
