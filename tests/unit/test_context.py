"""The context of a model is found wherever its configuration keeps it, and guards every place that asks."""

from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from lm_eval_inversion.context import context_of


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_5_vl", "mistral3", "llama4"])
def test_models_that_also_see_have_a_context(kind):
    config = AutoConfig.for_model(kind)
    assert getattr(config, "max_position_embeddings", None) is None  # what made them pass for models without a limit
    assert context_of(config) == config.text_config.max_position_embeddings > 0


def test_models_of_text_have_their_own():
    assert context_of(AutoConfig.for_model("llama", max_position_embeddings=77)) == 77
    assert context_of(AutoConfig.for_model("gpt2", n_positions=33)) == 33


def test_a_model_without_a_limit_has_none():
    assert context_of(AutoConfig.for_model("mamba")) is None


@pytest.fixture
def seeing_model():
    """What Inspect holds of a model that also sees, with room for 64 tokens; one word is one token."""
    config = AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 64})
    api = SimpleNamespace(
        model=SimpleNamespace(config=config), tokenizer=lambda text, **_: {"input_ids": text.split()}, tokenizer_call_args={},
        hf_chat=lambda messages, tools: " ".join(message.content for message in messages),
    )  # fmt: skip
    return SimpleNamespace(api=api, config=SimpleNamespace(max_tokens=None))


def test_inspect_refuses_requests_that_would_be_cut(seeing_model):
    from lm_eval_inversion.adapters.inspect.solvers import _check_requests

    def request(words):
        return [{"role": "user", "content": " ".join(["Be", *["kind"] * (words - 1)])}]

    _check_requests(seeing_model, {"id": "p", "text": "Be kind"}, [request(64)])
    with pytest.raises(ValueError, match="more than the model's context of 64"):
        _check_requests(seeing_model, {"id": "p", "text": "Be kind"}, [request(65)])


def test_inspect_refuses_candidates_that_do_not_fit(seeing_model):
    from lm_eval_inversion.adapters.inspect.likelihoods import continuation_log_likelihoods

    with pytest.raises(ValueError, match="more than the model's context of 64"):
        continuation_log_likelihoods(seeing_model, "p", "word " * 64, ["last"])


def test_inspect_is_told_the_context(seeing_model, monkeypatch):
    from lm_eval_inversion.adapters.inspect import solvers

    told = []
    monkeypatch.setattr(solvers, "set_model_info", lambda name, info: told.append(info.context_length))
    seeing_model.api.tokenizer = SimpleNamespace(chat_template="any")
    solvers.system_role(seeing_model)
    assert told == [64]


def test_likelihoods_of_answers_that_do_not_fit_are_refused(seeing_model):
    from conftest import make_tokenizer

    from lm_eval_inversion.target import Target

    target = Target("seeing", seeing_model.api.model, make_tokenizer())
    with pytest.raises(ValueError, match="more than the model's context of 64"):
        target.log_likelihood([("You are a careful baker.", [{"role": "user", "content": "Hello! " * 64}])], ["I bake bread."])
