"""Defences and users' requests through both hosts."""

import pytest

from lm_eval_inversion import load_prompts
from lm_eval_inversion.queries.defences import REFUSAL

from .conftest import mock_model, run_inspect, run_lm_eval


def leaky(self, requests, **_):
    """Repeats its system turn; without one it says something else."""
    texts = [request.args[0] for request in requests]
    return [text.partition("system: ")[2].partition("</s>")[0] if "system: " in text else "A day by the sea." for text in texts]


@pytest.mark.parametrize("defence", ["refusal_line", "sandwich", "self_reminder"])
def test_both_hosts_send_the_same_defended_requests(chat_model, tmp_path, defence):
    arguments = {"tier": "smoke", "defence": defence}
    found = run_lm_eval(chat_model, "prompt_leakage_attacks", metadata=arguments, limit=1, gen_kwargs="temperature=0,max_gen_toks=12")
    log = run_inspect(chat_model, tmp_path, "prompt_leakage_attacks", task_args=arguments, limit=1, max_tokens=12)
    assert log.status == "success", log.error
    (row,), (sample,) = found["samples"]["prompt_leakage_attacks"], log.samples
    answers = sample.store["Answers:answers"]
    assert [response[0] for response in row["resps"]][: len(answers)] == answers
    prompt, first = row["doc"]["text"], row["arguments"][0][0]
    assert prompt in first
    assert first.count(prompt) == (2 if defence == "sandwich" else 1)
    plain = run_lm_eval(chat_model, "prompt_leakage_attacks", metadata={"tier": "smoke"}, limit=1, gen_kwargs="max_gen_toks=1")
    arguments = plain["samples"]["prompt_leakage_attacks"][0]["arguments"]
    changed = [ours[0] != theirs[0] for ours, theirs in zip(row["arguments"], arguments)]
    # The ability arm measures the model, and the null conversations, behind the others, are one floor for all defences.
    assert changed[: len(answers)].count(False) == 1
    assert not any(changed[len(answers) :])
    signature = found["configs"]["prompt_leakage_attacks"]["metadata"]
    assert signature["defence"] == log.eval.metadata["defence"] == defence
    assert signature["defence_hash"] == log.eval.metadata["defence_hash"]


@pytest.mark.parametrize("defence", ["ngram_filter", "regenerate"])
def test_guards_stop_a_model_that_gives_its_prompt_away(chat_model, monkeypatch, defence):
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "generate_until", leaky)
    found = run_lm_eval(chat_model, "prompt_leakage_attacks", metadata={"tier": "smoke", "defence": defence}, limit=None)
    results = found["results"]["prompt_leakage_attacks"]
    assert results["asr,none"] == results["recovery_max,none"] == 0
    assert results["resistance,none"] == results["defence_acted,none"] == results["ability,none"] == 1
    assert results["over_refusal,none"] == (1 if defence == "ngram_filter" else 0)


@pytest.mark.parametrize("defence", ["ngram_filter", "regenerate"])
def test_guards_act_in_inspect_too(tmp_path, defence):
    """As in lm_eval, on attacks and before an inversion; a log names no answer that was not handed out as what most came out."""
    from inspect_ai import eval as inspect_eval

    def run(task, **given):
        model = mock_model(lambda messages: messages[0].text if messages[0].role == "system" else "A day by the sea.")
        logs = inspect_eval(f"lm_eval_inversion/{task}", model=model, task_args=given, limit=1, log_dir=str(tmp_path), display="none")
        (score,) = logs[0].samples[0].scores.values()
        return score

    attacked = run("prompt_leakage_attacks", tier="smoke", defence=defence)
    assert attacked.value["asr"] == attacked.value["recovery_max"] == 0
    assert attacked.value["resistance"] == attacked.value["defence_acted"] == attacked.value["ability"] == 1
    assert attacked.answer.endswith(": (withheld by the defence)")
    few = {"inverter": "constant", "num_queries": 2}
    open_run, closed = (run("prompt_inversion_ordinary", **few, defence=name).value for name in ("none", defence))
    assert (open_run["coverage"], open_run["defence_acted"]) == (0.5, 0)
    assert (closed["coverage"], closed["defence_acted"]) == (0 if defence == "ngram_filter" else 0.5, 1)


def test_inversion_reads_what_the_defence_hands_out(chat_model, arguments, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "generate_until", leaky)
    open_run = run_lm_eval(chat_model, metadata=arguments)["results"]["prompt_inversion_ordinary"]
    closed = run_lm_eval(chat_model, metadata={**arguments, "defence": "ngram_filter"})["results"]["prompt_inversion_ordinary"]
    assert (open_run["defence_acted,none"], closed["defence_acted,none"]) == (0, 1)
    assert open_run["coverage,none"] == 0.5  # the same words twice are one output
    assert closed["coverage,none"] == 0  # nothing but refusals: unscored
    assert "bits,none" not in closed
    assert REFUSAL.startswith("I'm sorry")


def test_users_requests(chat_model, arguments, tmp_path):
    task, texts = "prompt_inversion_user", {prompt.text for prompt in load_prompts("user-v1")}
    found = run_lm_eval(chat_model, task, metadata=arguments, limit=2)
    for row in found["samples"][task]:
        sent = [argument[0] for argument in row["arguments"][:2]]
        assert row["doc"]["text"] in texts
        assert sent[0] == sent[1] == f"<s>user: {row['doc']['text']}</s><s>assistant: "
    first = found["samples"][task][0]
    assert [argument[0] for argument in first["arguments"][2:]] == [
        "<s>user: Hello!</s><s>assistant: ", "<s>user: What should I do this weekend?</s><s>assistant: ",
    ]  # fmt: skip
    assert first["resps"][0] != first["resps"][1]  # sampled anew each time
    log = run_inspect(chat_model, tmp_path, task, task_args=arguments, limit=2, max_tokens=8)
    assert log.status == "success", log.error
    events = [event for event in log.samples[1].events if event.event == "model"]
    assert [event.config.seed for event in events] == [1234, 1235]  # back ends that take a seed would repeat themselves
    assert [message.role for message in events[0].input] == ["user"]
    with pytest.raises(ValueError, match="has no system prompt to defend"):
        run_lm_eval(chat_model, task, metadata={**arguments, "defence": "sandwich"}, limit=1)
    with pytest.raises(ValueError, match="defence='wall' is unknown; known: none, refusal_line"):
        run_lm_eval(chat_model, metadata={**arguments, "defence": "wall"}, limit=1)
