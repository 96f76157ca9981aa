"""lm_eval's own vLLM and SGLang back ends, as far as they go without a GPU: the engines below them are stand-ins, see ``engines.py``."""

import pytest
from conftest import write_chat_model
from own_tasks import own_task_manager

from lm_eval_inversion.scoring.metrics import EXPOSURE_HIGHER_IS_BETTER, METRICS

from . import engines
from .conftest import run_lm_eval

TASK = "prompt_inversion_ordinary"
EXPOSURE = "prompt_leakage_exposure"
BACK_ENDS = ["vllm", "sglang"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield engines.install(patch, tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory):
    """A tiny chat model that says no special tokens: lm_eval has ``hf`` leave them out of its answers, and these engines keep them in."""
    from transformers import GenerationConfig

    folder = write_chat_model(tmp_path_factory.mktemp("plain_model"))
    settings = GenerationConfig.from_pretrained(folder)
    settings.suppress_tokens = [0, 1, 2]
    settings.save_pretrained(folder)
    return folder


@pytest.fixture
def engine(installed):
    installed.requests, installed.answer = [], ""
    return installed


def run(back_end, folder, task=TASK, *, metadata, limit=2, gen_kwargs="temperature=0,max_gen_toks=12", **model_args):
    import lm_eval

    return lm_eval.simple_evaluate(
        model=back_end, model_args={"pretrained": str(folder), **model_args}, tasks=[task], task_manager=own_task_manager(metadata),
        metadata=metadata, apply_chat_template=True, limit=limit, batch_size="auto", gen_kwargs=gen_kwargs, bootstrap_iters=0,
    )  # fmt: skip


def by_prompt(results, task=TASK):
    return {row["doc"]["id"]: row for row in results["samples"][task]}


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_answers_and_scores_are_those_of_the_hf_back_end(engine, plain_model, arguments, back_end):
    expected = by_prompt(run_lm_eval(plain_model, metadata=arguments, limit=2, batch_size=1, gen_kwargs="temperature=0,max_gen_toks=12"))
    found = by_prompt(run(back_end, plain_model, metadata=arguments))
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert row["resps"] == expected[key]["resps"]
        assert "bits" in row
        for metric in row.keys() & set(METRICS):
            assert row[metric] == pytest.approx(expected[key][metric], abs=1e-9), metric
    assert len(engine.requests) == 2 * 2 + 2


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_log_likelihoods_are_those_of_the_hf_back_end(engine, chat_model, back_end):
    metadata = {"tier": "smoke"}
    expected = by_prompt(run_lm_eval(chat_model, EXPOSURE, metadata=metadata, limit=1, batch_size=32), EXPOSURE)
    found = by_prompt(run(back_end, chat_model, EXPOSURE, metadata=metadata, limit=1, gen_kwargs=None), EXPOSURE)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        for metric in EXPOSURE_HIGHER_IS_BETTER:
            assert row[metric] == pytest.approx(expected[key][metric], abs=1e-3), metric


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_the_tasks_settings_reach_the_engine(engine, chat_model, back_end):
    engine.answer = "Bread."
    run(back_end, chat_model, metadata={"inverter": "constant", "num_queries": 2}, gen_kwargs=None, max_model_len=2048, custom="given")
    assert engine.arguments["custom"] == "given"  # such as enable_prefix_caching: passed on as it is
    for _, settings in engine.requests:
        assert settings["temperature"] == 0.7
        assert settings.get("max_tokens", settings.get("max_new_tokens")) == 64
        assert settings["stop"] == ["</s>"]  # not the first blank line


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_request_that_the_engine_would_cut_stops_the_run(engine, chat_model, back_end):
    with pytest.raises(ValueError, match="max_length"):
        run(back_end, chat_model, metadata={"inverter": "constant"}, gen_kwargs=None, max_model_len=80)
    assert not engine.requests


# In which order requests arrive: what a prefix cache can do depends on it, and docs/serving.md says it.


def prompts_in_order(sent):
    """The system prompts of requests as they came, runs of the same one once."""
    return [prompt for place, prompt in enumerate(sent) if place == 0 or sent[place - 1] != prompt]


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_engines_get_requests_by_length(engine, chat_model, back_end):
    engine.answer = "Bread."
    run(back_end, chat_model, metadata={"inverter": "constant", "num_queries": 4}, limit=8)
    lengths = [len(ids) for ids, _ in engine.requests]
    assert lengths == sorted(lengths, reverse=True)
    sent = [engine.tokenizer.decode(ids).partition("user: ")[0] for ids, _ in engine.requests]
    assert len(set(sent)) == 8 + 1  # without a system prompt, too
    assert len(prompts_in_order(sent)) > 8 + 1  # the same system prompt comes back after others


@pytest.mark.parametrize("connections", [1, 4])
def test_chat_servers_get_the_requests_of_one_system_prompt_together(monkeypatch, connections):
    from lm_eval.models.openai_completions import LocalChatCompletion

    sent = []

    def answer(self, messages, **_):
        sent.append([message for message in self.create_message(messages) if message["role"] == "system"])
        return {"choices": [{"index": 0, "message": {"content": "Bread."}}]}

    async def answer_later(self, session, sem, messages, **_):
        async with sem:
            return self.parse_generations([answer(self, messages)])

    monkeypatch.setattr(LocalChatCompletion, "model_call", answer)
    monkeypatch.setattr(LocalChatCompletion, "amodel_call", answer_later)
    import lm_eval

    metadata = {"inverter": "constant", "num_queries": 4}
    lm_eval.simple_evaluate(
        model="local-chat-completions", model_args=f"model=m,base_url=http://127.0.0.1:9/v1/chat/completions,num_concurrent={connections}",
        tasks=[TASK], task_manager=own_task_manager(metadata), metadata=metadata, apply_chat_template=True, limit=8, bootstrap_iters=0,
    )  # fmt: skip
    assert len(sent) == 8 * 4 + 4
    assert len(prompts_in_order(sent)) == 8 + 1
