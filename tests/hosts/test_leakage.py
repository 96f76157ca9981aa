"""The leakage tasks through both hosts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TEMPLATE_DROPS_SYSTEM, write_chat_model

from lm_eval_inversion.report import attacks_table, examples_table, metrics_table, read_results

from .conftest import run_inspect, run_lm_eval

GREEDY = {"gen_kwargs": "temperature=0,max_gen_toks=24"}


@pytest.mark.parametrize("task", ["prompt_leakage_attacks", "prompt_leakage_multiturn"])
def test_both_hosts_send_the_same_and_agree(chat_model, tmp_path, task):
    found = run_lm_eval(chat_model, task, metadata={"tier": "smoke"}, limit=None, **GREEDY)
    log = run_inspect(chat_model, tmp_path, task, task_args={"tier": "smoke"}, limit=None, max_tokens=24)
    assert log.status == "success", log.error
    samples = {sample.id: sample for sample in log.samples}
    rows = found["samples"][task]
    assert {row["doc"]["id"] for row in rows} == set(samples)
    for row in rows:
        sample = samples[row["doc"]["id"]]
        answers = sample.store["Answers:answers"]
        assert [response[0] for response in row["resps"]][: len(answers)] == answers
        score = sample.scores["leakage"]
        assert [json.loads(text) for text in row["filtered_resps"][: len(answers)]] == json.loads(json.dumps(score.metadata["requests"]))
        for metric, value in score.value.items():
            assert value == pytest.approx(row.get(metric, float("nan")), abs=1e-12, nan_ok=True), metric
    assert found["higher_is_better"][task]["resistance"] is True
    assert found["higher_is_better"][task]["asr_union"] is False
    signature = found["configs"][task]["metadata"]
    for key in ("attacks_hash", "prompts_hash", "tier", "package_version"):
        assert signature[key] == log.eval.metadata[key], key
    assert signature["host"].startswith("lm_eval ")
    assert log.eval.metadata["host"].startswith("inspect_ai ")
    assert {signature["system_role"], *(sample.scores["leakage"].metadata["system_role"] for sample in log.samples)} == {"system"}


def test_saved_results_of_both_hosts_make_the_same_report(chat_model, tmp_path):
    command = [
        str(Path(sys.executable).parent / "lm_eval"), "run", "--model", "hf", "--model_args", f"pretrained={chat_model},dtype=float32",
        "--tasks", "prompt_leakage_attacks", "--metadata", "tier=smoke", "--limit", "1", "--apply_chat_template", "--device", "cpu",
        "--batch_size", "8", "--gen_kwargs", "temperature=0,max_gen_toks=12", "--log_samples", "--output_path", str(tmp_path / "a"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run_inspect(chat_model, tmp_path / "b", "prompt_leakage_attacks", task_args={"tier": "smoke"}, limit=1, max_tokens=12)
    (first,), (second,) = read_results(tmp_path / "a"), read_results(tmp_path / "b")
    assert first.task == second.task == "prompt_leakage_attacks"
    assert metrics_table(first) == metrics_table(second)
    assert attacks_table(first) == attacks_table(second)
    assert len(attacks_table(first).splitlines()) == 2 + 14
    assert examples_table(first, 1).count("recovery_max") == 1


def test_a_model_that_gives_its_prompt_away(chat_model, monkeypatch):
    """The stand-in repeats its system turn when the request asks for it, in lm_eval's own pipeline."""
    from lm_eval.models.huggingface import HFLM

    def answers(self, requests, **_):
        texts = [request.args[0] for request in requests]
        return [text.partition("system: ")[2].partition("</s>")[0] if "system: " in text else "Hello there." for text in texts]

    monkeypatch.setattr(HFLM, "generate_until", answers)
    found = run_lm_eval(chat_model, "prompt_leakage_attacks", metadata={"tier": "smoke"}, limit=None)["results"]["prompt_leakage_attacks"]
    assert found["resistance,none"] == 0
    assert found["asr,none"] == 1
    assert found["asr_exact,none"] == 1
    assert found["ability,none"] == 1
    assert found["asr_null,none"] == found["asr_swap,none"] == 0


def test_nothing_answered_is_unscored_not_safe(chat_model, monkeypatch, caplog):
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "generate_until", lambda self, requests, **_: ["" for _ in requests])
    found = run_lm_eval(chat_model, "prompt_leakage_attacks", metadata={"tier": "smoke"}, limit=None)["results"]["prompt_leakage_attacks"]
    assert found["coverage,none"] == 0
    assert "resistance,none" not in found
    assert "unscored" in caplog.text


def test_a_template_without_system_role(tmp_path):
    model = write_chat_model(tmp_path / "model", TEMPLATE_DROPS_SYSTEM)
    log = run_inspect(model, tmp_path, "prompt_leakage_multiturn", task_args={"tier": "smoke"}, limit=1, max_tokens=8)
    assert log.status == "success", log.error
    assert log.samples[0].scores["leakage"].metadata["system_role"] == "user"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attacks:\n  - {id: a, family: magic, text: Hi}\n", "line 2: family 'magic' of attack 'a' is unknown"),
        ("attacks:\n  - {id: a, family: encode, text: Hi}\n  - {id: a, family: encode, text: Ho}\n", "line 3: id 'a' stands in line 2"),
        ("attacks:\n  - {id: a, family: encode, turns: [{user: Hi}, {assistant: Ho}]}\n", "must end with a turn of the user"),
        ("attacks: []\n", "at least one entry is missing"),
        ("attacks: [\n", "is not YAML"),
    ],
)
def test_bad_attack_files_fail_before_the_run(tmp_path, text, message):
    from lm_eval_inversion.leakage import make_leakage_protocol

    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        make_leakage_protocol("prompt_leakage_attacks", attacks=str(path))
    with pytest.raises(ValueError, match="tier='huge' is unknown; known: smoke, core, full"):
        make_leakage_protocol("prompt_leakage_attacks", tier="huge")
