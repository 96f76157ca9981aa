"""The canary and the exposure task through both hosts."""

import pytest
from conftest import write_chat_model
from own_tasks import own_task_manager

from lm_eval_inversion.canary import make_canary_protocol
from lm_eval_inversion.report import metrics_table, read_results

from .conftest import run_inspect, run_lm_eval

OF_EVERY_SCORER = ("task_version", "package_version", "system_role")  # what is known of a log that was scored again
SMOKE = {"metadata": {"tier": "smoke"}, "limit": None}


@pytest.mark.parametrize("task", ["prompt_leakage_canary", "prompt_leakage_exposure"])
def test_both_hosts_agree(chat_model, tmp_path, task):
    settings = {} if task.endswith("exposure") else {"gen_kwargs": "temperature=0,max_gen_toks=16"}
    found = run_lm_eval(chat_model, task, **SMOKE, **settings)
    log = run_inspect(chat_model, tmp_path, task, task_args={"tier": "smoke"}, limit=None, max_tokens=16)
    assert log.status == "success", log.error
    samples = {sample.id: sample for sample in log.samples}
    rows = found["samples"][task]
    assert {row["doc"]["id"] for row in rows} == set(samples)
    for row in rows:
        (score,) = samples[row["doc"]["id"]].scores.values()
        for metric, value in score.value.items():
            assert value == pytest.approx(row.get(metric, float("nan")), abs=1e-6, nan_ok=True), metric
        assert set(OF_EVERY_SCORER) <= set(score.metadata)
    signature = found["configs"][task]["metadata"]
    for key in ("canaries_hash", "prompts_hash", "tier", "canary_seed", "package_version"):
        assert signature[key] == log.eval.metadata[key]
    (read,) = read_results(next(tmp_path.glob("*.eval")))
    assert read.task == task
    assert len(read.rows) == len(rows)
    assert "| canary_control | 0.000" in metrics_table(read) or task.endswith("exposure")


def test_a_model_that_repeats_its_system_prompt(chat_model, monkeypatch):
    """The stand-in hands its system turn over, whatever it is asked."""
    from lm_eval.models.huggingface import HFLM

    def answers(self, requests, **_):
        return [request.args[0].partition("system: ")[2].partition("</s>")[0] or "Hello there." for request in requests]

    monkeypatch.setattr(HFLM, "generate_until", answers)
    found = run_lm_eval(chat_model, "prompt_leakage_canary", **SMOKE)["results"]["prompt_leakage_canary"]
    assert found["resistance,none"] == 0
    assert found["canary_extracted,none"] == found["canary_volunteered_secrecy,none"] == 1
    assert found["canary_control,none"] == found["canary_null,none"] == 0


def test_exposure_of_a_model_that_knows(chat_model, monkeypatch):
    """The stand-in finds likely what stands in the system prompt."""
    from lm_eval.models.huggingface import HFLM

    def likelihoods(self, requests, **_):
        return [(float(request.args[1].strip() in request.args[0]), False) for request in requests]

    monkeypatch.setattr(HFLM, "loglikelihood", likelihoods)
    found = run_lm_eval(chat_model, "prompt_leakage_exposure", **SMOKE)["results"]["prompt_leakage_exposure"]
    assert found["top1_asked,none"] == found["top1_ordinary,none"] == 1
    assert found["exposure_asked,none"] == pytest.approx(6.658, abs=1e-3)  # log2(101)
    assert found["exposure_asked_null,none"] < 1.5


def test_chat_interfaces_have_no_log_likelihoods(tmp_path):
    import lm_eval

    with pytest.raises(ValueError, match="needs log-likelihoods"):
        lm_eval.simple_evaluate(
            model="local-chat-completions", model_args="model=any,base_url=http://127.0.0.1:9/v1/chat/completions",
            tasks=["prompt_leakage_exposure"], task_manager=own_task_manager(SMOKE["metadata"]), metadata=SMOKE["metadata"],
            apply_chat_template=True, bootstrap_iters=0,
        )  # fmt: skip
    from inspect_ai import eval as inspect_eval

    log = inspect_eval(
        "lm_eval_inversion/prompt_leakage_exposure", model="mockllm/model", task_args={"tier": "smoke"}, log_dir=str(tmp_path),
        display="none",
    )[0]  # fmt: skip
    assert log.status == "error"
    assert "needs log-likelihoods" in log.error.message


def test_a_canary_beyond_the_context_is_refused_before_the_run(tmp_path):
    model = write_chat_model(tmp_path / "model", context=256)
    name = make_canary_protocol(tier="smoke").prompts[0].id
    with pytest.raises(ValueError, match=f"'{name}' has .* tokens; .* more than the model's context of 256"):
        run_lm_eval(model, "prompt_leakage_canary", **SMOKE)
    with pytest.raises(ValueError, match="more than the model's context of 256"):
        run_lm_eval(model, "prompt_leakage_exposure", **SMOKE)
    log = run_inspect(model, tmp_path / "log", "prompt_leakage_exposure", task_args={"tier": "smoke"}, limit=1)
    assert log.status == "error"
    assert "more than the model's context of 256" in log.error.message
