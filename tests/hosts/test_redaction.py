"""Private prompts: with redact=true no word of them is left in what either host saves."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from surviving import surviving_runs

from lm_eval_inversion.redaction import redacted_length
from lm_eval_inversion.report import metrics_table, read_results

from .conftest import mock_model, run_inspect

SECRETS = [
    "You are Mira Vandersloot, a baker in Ghent. Never give a recipe away to anyone at all.",
    "You are Bo, a sailor who mends nets by the harbour wall and hums.",
]
TASKS = ["prompt_leakage_attacks", "prompt_inversion_ordinary"]


@pytest.fixture
def private(tmp_path):
    path = tmp_path / "private.txt"
    path.write_text("\n\n".join(SECRETS))
    return str(path)


def parameters(task, private, arguments):
    chosen = {"tier": "smoke"} if "leakage" in task else arguments
    return {"prompts": private, "redact": True, **chosen}


def check(results):
    assert metrics_table(results).count("\n") > 5
    for row, secret in zip(results.rows, SECRETS):
        assert redacted_length(row.truth) == (len(secret), len(secret.split()))
        assert row.prompt.words == len(secret.split())
        assert row.metrics["coverage"] > 0


@pytest.mark.parametrize("task", TASKS)
def test_lm_eval(chat_model, arguments, tmp_path, private, task):
    metadata = [f"{name}={value}" for name, value in parameters(task, private, arguments).items()]
    command = [
        str(Path(sys.executable).parent / "lm_eval"), "run", "--model", "hf", "--model_args", f"pretrained={chat_model},dtype=float32",
        "--tasks", task, "--metadata", *metadata, "--apply_chat_template", "--device", "cpu", "--batch_size", "8",
        "--gen_kwargs", "temperature=0,max_gen_toks=8", "--log_samples", "--output_path", str(tmp_path / "results"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "Vandersloot" not in text
        records = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        assert surviving_runs(records, SECRETS) == []
        if path.suffix == ".jsonl" and "inversion" in task:
            written = [text for record in records for text in record["filtered_resps"]]
            lists = [json.loads(text) for text in written if text.startswith('["')]  # of the null, one for each of its conversations
            assert lists
            for reconstruction in [text for text in written if not text.startswith('["')] + [text for texts in lists for text in texts]:
                assert reconstruction == "" or redacted_length(reconstruction) is not None
    (found,) = read_results(tmp_path / "results")
    assert found.signature["redact"] is True
    check(found)


@pytest.mark.parametrize("task", TASKS)
def test_inspect(chat_model, arguments, tmp_path, private, task):
    log = run_inspect(
        chat_model, tmp_path / "logs", task, task_args=parameters(task, private, arguments), limit=None, max_tokens=8
    )  # fmt: skip
    assert log.status == "success", log.error
    with zipfile.ZipFile(log.location) as archive:
        assert len(archive.namelist()) > 3
        for name in archive.namelist():
            text = archive.read(name).decode("utf-8")
            assert "Vandersloot" not in text, name
            assert surviving_runs(json.loads(text), SECRETS) == [], name
    (found,) = read_results(Path(log.location))
    check(found)


def test_the_verb_redacts_a_log_afterwards(chat_model, tmp_path, private):
    arguments = {"prompts": private, "tier": "smoke"}
    log = run_inspect(chat_model, tmp_path / "logs", "prompt_leakage_attacks", task_args=arguments, limit=1, max_tokens=4)
    command = [sys.executable, "-m", "lm_eval_inversion", "redact", log.location]
    assert b"Vandersloot" in zipfile.ZipFile(log.location).read("samples/own-0001_epoch_1.json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Vandersloot" not in zipfile.ZipFile(log.location).read("samples/own-0001_epoch_1.json")
    missing = subprocess.run([*command[:-1], str(tmp_path / "none.eval")], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert missing.stderr.strip().endswith("none.eval does not exist")


def test_attempts_that_failed_before_are_redacted(chat_model, arguments, tmp_path, private):
    from inspect_ai.log import EvalRetryError, read_eval_log, write_eval_log

    from lm_eval_inversion.adapters.inspect.redacting import redact_log

    log = run_inspect(chat_model, tmp_path, task_args={**arguments, "prompts": private}, limit=1, max_tokens=4)
    sample = log.samples[0]
    sample.error_retries = [EvalRetryError(message=f"refused: {SECRETS[0]}", traceback="", traceback_ansi="", events=sample.events)]
    write_eval_log(log, log.location)
    redact_log(log.location)
    redacted = read_eval_log(log.location)
    assert surviving_runs(redacted.model_dump(mode="json"), SECRETS) == []
    assert redacted.samples[0].error_retries[0].message.startswith("[sha256:")


def mocked_run(folder, prompts, say, *, redact, **keywords):
    """A quick run of attacks in Inspect on a model without weights; returns its log, as it lies on disk."""
    from inspect_ai import eval as inspect_eval
    from inspect_ai.log import read_eval_log

    arguments = {"prompts": prompts, "tier": "smoke", "redact": redact}
    log = inspect_eval(
        "lm_eval_inversion/prompt_leakage_attacks", model=mock_model(say), task_args=arguments, log_dir=str(folder), display="none",
        **keywords,
    )[0]  # fmt: skip
    return read_eval_log(log.location, resolve_attachments="full")


def quote(messages):
    return f"I was told: {messages[0].text}"


def fail(messages):
    """As a server that quotes the request in its error."""
    if SECRETS[1] in messages[0].text:
        raise RuntimeError(f"cannot answer: {messages[0].text}")
    return quote(messages)


def left(log):
    return surviving_runs(log.model_dump(mode="json"), SECRETS)


def test_a_redacted_log_cannot_be_scored_again(tmp_path, private):
    from inspect_ai import score

    from lm_eval_inversion.adapters.inspect.scorers import canaries, inversion, leakage

    log = mocked_run(tmp_path, private, quote, redact=True)
    assert [sample.scores["leakage"].value["resistance"] for sample in log.samples] == [0, 0]
    for scorer in (leakage(), canaries(), inversion(inverter="constant")):
        with pytest.raises(ValueError, match="own-000[12]: a marker stands in the place of the system prompt; a redacted log cannot be"):
            score(log, scorer, action="overwrite", display="none")


@pytest.mark.parametrize("solver", [None, "generate"])
def test_a_private_run_without_scores_stops_before_it_asks_anything(tmp_path, private, solver):
    from inspect_ai.solver import generate

    said = []

    def note(messages):
        said.append(messages)
        return quote(messages)

    settings = {"solver": generate()} if solver else {}
    log = mocked_run(tmp_path, private, note, redact=True, score=False, **settings)
    assert said == []
    assert log.status == "error"
    # What went wrong stands in the log too, where any other error becomes a marker: not every prompt stands there to be looked for.
    assert log.error.message.startswith("redact=true does not go with --no-score (score=False)")
    assert log.error.message.endswith("lm-eval-inversion redact LOG")
    assert left(log) == []
    # Without redaction the answers stay, and can be scored.
    plain = mocked_run(tmp_path, private, note, redact=False, score=False)
    assert plain.status == "success"
    assert all(sample.store["Answers:answers"] for sample in plain.samples)


@pytest.mark.parametrize("settings", [{}, {"log_samples": False}, {"log_format": "json"}])
def test_a_run_that_fails_is_redacted_too(tmp_path, private, settings):
    log = mocked_run(tmp_path, private, fail, redact=True, **settings)
    assert log.status == "error"
    assert left(log) == []
    assert redacted_length(log.error.message) is not None


def test_a_private_run_that_breaks_off_is_told(caplog):
    import anyio
    from inspect_ai.hooks import RunEnd, TaskStart
    from inspect_ai.log import EvalConfig, EvalDataset, EvalPlan, EvalSpec

    from lm_eval_inversion.adapters.inspect.redacting import Redaction

    def told(metadata):
        spec = EvalSpec(
            created="2026-01-02T03:04:05+00:00", task="mine", dataset=EvalDataset(), model="m/m", config=EvalConfig(), metadata=metadata
        )
        hook = Redaction()
        caplog.clear()
        anyio.run(hook.on_task_start, TaskStart(eval_set_id=None, run_id="r", eval_id="e", spec=spec, plan=EvalPlan()))
        anyio.run(hook.on_run_end, RunEnd(eval_set_id=None, run_id="r", exception=None, logs=[]))
        return caplog.text

    assert "mine ran with redact=true and broke off" in told({"prompts_hash": "x", "redact": True})
    assert "run: lm-eval-inversion redact" in caplog.text
    assert told({"prompts_hash": "x", "redact": False}) == told({"redact": True}) == told(None) == ""


@pytest.mark.parametrize("key", ["", "too short"])
@pytest.mark.parametrize("task", TASKS)
def test_a_key_that_can_be_guessed_stops_a_private_task_before_it_runs(task, key, private, arguments, monkeypatch):
    from lm_eval_inversion.adapters.inspect import tasks
    from lm_eval_inversion.redaction import KEY_VARIABLE

    monkeypatch.setenv(KEY_VARIABLE, key)
    given = parameters(task, private, arguments)
    with pytest.raises(ValueError, match=f"{KEY_VARIABLE} has {len(key)} characters; a short key can be guessed"):
        getattr(tasks, task)(**given)
    getattr(tasks, task)(**{**given, "redact": False})


@pytest.mark.parametrize("keep", [False, True])
def test_attempts_of_an_eval_set_that_a_later_one_replaced_are_redacted(keep, tmp_path, private, caplog, monkeypatch):
    from inspect_ai import eval_set
    from inspect_ai.log import list_eval_logs, read_eval_log

    said = []

    def fail_once(messages):
        said.append(messages)
        if len(said) == 30:
            raise RuntimeError(f"cannot answer: {messages[0].text}")
        return quote(messages)

    monkeypatch.chdir(tmp_path)  # logs in the working directory have relative paths
    success, _ = eval_set(
        "lm_eval_inversion/prompt_leakage_attacks", log_dir="logs", model=mock_model(fail_once), display="none", retry_cleanup=not keep,
        task_args={"prompts": private, "tier": "smoke", "redact": True},
    )  # fmt: skip
    assert success
    assert len(said) > 48  # there was a second attempt
    logs = [read_eval_log(log, resolve_attachments="full") for log in list_eval_logs("logs")]
    assert sorted(log.status for log in logs) == (["error", "success"] if keep else ["success"])
    for log in logs:
        assert left(log) == []
        assert log.eval.metadata["redacted"]
    assert told_by_the_hook(caplog) == ""


def told_by_the_hook(caplog):
    """What it logged, and not what Inspect traces."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name.endswith("inspect.redacting"))


def test_private_logs_that_inspect_does_not_hand_over(tmp_path, private, caplog):
    """Those that are there are redacted, those that cannot be are named, those that are gone are no matter."""
    import anyio
    from inspect_ai.hooks import RunEnd
    from inspect_ai.log import read_eval_log

    from lm_eval_inversion.adapters.inspect.redacting import Redaction

    log = mocked_run(tmp_path, private, quote, redact=False)
    (tmp_path / "broken.eval").write_text("cut off")
    hook = Redaction()
    hook.private["r"] = {"there": "mine", "gone": "mine", "broken": "mine", "away": "mine"}
    hook.locations = {
        "there": log.location, "gone": str(tmp_path / "gone.eval"), "broken": str(tmp_path / "broken.eval"), "away": "s3://logs/away.eval",
    }  # fmt: skip
    changed = Path(log.location).stat().st_mtime_ns
    anyio.run(hook.on_run_end, RunEnd(eval_set_id="s", run_id="r", exception=None, logs=[]))
    assert left(read_eval_log(log.location, resolve_attachments="full")) == []
    assert Path(log.location).stat().st_mtime_ns == changed  # else an eval-set would take it for the newest attempt
    broken, away = told_by_the_hook(caplog).splitlines()
    assert broken.endswith(f"run: lm-eval-inversion redact {tmp_path / 'broken.eval'}")
    assert away.endswith("run: lm-eval-inversion redact s3://logs/away.eval")
    assert (hook.private, hook.locations) == ({}, {})


@pytest.mark.parametrize("settings", [{}, {"log_samples": False}])
def test_errors_that_quote_a_prompt_that_no_sample_tells_go_as_a_whole(tmp_path, private, settings, monkeypatch):
    from inspect_ai.log import read_eval_log

    from lm_eval_inversion.adapters.inspect.redacting import redact_log
    from lm_eval_inversion.redaction import KEY_VARIABLE

    log = mocked_run(tmp_path, private, fail, redact=False, **settings)
    assert left(log)
    monkeypatch.setenv(KEY_VARIABLE, "a key that is long enough")
    redact_log(log.location)
    once = read_eval_log(log.location)
    assert left(once) == []
    redact_log(log.location)
    assert read_eval_log(log.location).eval.metadata == once.eval.metadata


def test_errors_that_quote_no_prompt_stay_readable_where_all_prompts_are_known(tmp_path, private):
    from inspect_ai.log import EvalError, read_eval_log, write_eval_log

    from lm_eval_inversion.adapters.inspect.redacting import redact_log

    log = mocked_run(tmp_path, private, quote, redact=False)
    log.error = EvalError(message="the disk is full", traceback=f"while saving {SECRETS[0]}", traceback_ansi="")
    write_eval_log(log, log.location)
    redact_log(log.location)
    redacted = read_eval_log(log.location)
    assert redacted.error.message == "the disk is full"
    assert "redacted" not in read_results(Path(log.location))[0].signature  # a mark of the log's own, nothing that runs must share
    assert left(redacted) == []


def test_a_redacted_log_stays_as_it_is_until_a_retry(tmp_path, private, monkeypatch):
    from inspect_ai.log import read_eval_log, write_eval_log

    from lm_eval_inversion.adapters.inspect.redacting import redact_log
    from lm_eval_inversion.redaction import KEY_VARIABLE

    monkeypatch.setenv(KEY_VARIABLE, "a key that is long enough")
    log = mocked_run(tmp_path, private, quote, redact=False)
    path, plain = Path(log.location), log.eval.metadata["prompts_hash"]
    redact_log(path)
    once = path.read_bytes()
    redact_log(path)
    assert path.read_bytes() == once
    # Inspect hands a retried run the metadata of its log, with the task's own over them, and its finished samples.
    retried = read_eval_log(str(path))
    keyed = retried.eval.metadata["prompts_hash"]
    assert keyed != plain
    retried.eval.metadata["prompts_hash"] = plain
    retried.samples[1] = log.samples[1]
    write_eval_log(retried, str(path))
    redact_log(path)
    again = read_eval_log(str(path))
    assert again.eval.metadata["prompts_hash"] == keyed
    assert left(again) == []
    assert again.samples[0].metadata == retried.samples[0].metadata
