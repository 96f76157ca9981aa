import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lm_eval_inversion.target import token_logits
from lm_eval_inversion.training import generation
from lm_eval_inversion.training.shared_prefix import PLAIN_MODELS, can_share

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
}  # fmt: skip


def model_of(kind, **changes):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **changes})).eval()


@pytest.mark.parametrize("kind", PLAIN_MODELS)
@pytest.mark.parametrize("beginnings", [(9, 3, 6), (0, 4, 2), (0, 0, 0)])
def test_a_beginning_that_is_kept_once_gives_the_same_answers(monkeypatch, kind, beginnings):
    """Also where conversations end early, all of one beginning do, or there is no beginning at all."""
    model, rng = model_of(kind), random.Random(1)
    shared = [[rng.randrange(64) for _ in range(length)] for length in beginnings]
    conversations = [[[*start, *(rng.randrange(64) for _ in range(length))] for length in (3, 8, 1, 5)] for start in shared]
    settings = {
        "max_tokens": [[12, 3, 20, 4], [1, 1, 2, 1], [20, 2, 20, 20]], "temperatures": [[0.0, 0.9, 1.2, 0.0]] * 3, "stop_ids": {7, 9},
    }  # fmt: skip
    answers = []
    for share in (True, False):
        monkeypatch.setattr(generation, "can_share", lambda _, share=share: share)
        drawn = torch.Generator().manual_seed(5)
        answers.append(generation.sample_answers(model, conversations, generator=drawn, **settings))
    assert answers[0] == answers[1]
    assert model.config._attn_implementation == "sdpa"  # put back


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 0.05}),
    ],
)
def test_logits_are_those_of_the_models_own_forward(kind, changes):
    model, ids = model_of(kind, **changes), torch.arange(6)[None]
    with torch.inference_mode():
        hidden = model.base_model(ids).last_hidden_state
        found = token_logits(model, hidden)
        torch.testing.assert_close(found, model(ids).logits)
        assert torch.allclose(found, model.get_output_embeddings()(hidden)) is not bool(changes)


def test_models_with_other_attention_are_sampled_from_in_the_general_way():
    assert can_share(model_of("llama"))
    assert not can_share(model_of("gemma2"))
    windowed = model_of("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=0)
    assert not can_share(windowed)
