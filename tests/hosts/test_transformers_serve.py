"""Both hosts against a real OpenAI-compatible server on loopback, `transformers serve`: the answers are those of the model itself."""

import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from own_tasks import own_task_manager

from lm_eval_inversion.scoring.metrics import METRICS

from .conftest import run_lm_eval

TASK = "prompt_inversion_ordinary"
MAX_TOKENS = 12
PATIENCE = 180  # seconds until a server that does not answer counts as broken


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def healthy(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(chat_model, tmp_path_factory):
    """The address of a server of the tiny chat model."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    program = Path(sys.executable).parent / "transformers"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(program), "serve", str(chat_model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        end = time.monotonic() + PATIENCE
        while not healthy(port):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def in_process(chat_model, tiny_inverter_folder):
    """The same run without a server, rows by prompt id: greedy, one request at a time."""
    return rows_of(
        run_lm_eval(
            chat_model, TASK, metadata={"inverter": str(tiny_inverter_folder), "num_queries": 2}, limit=2, batch_size=1,
            gen_kwargs=f"temperature=0,max_gen_toks={MAX_TOKENS}",
        )  # fmt: skip
    )


def rows_of(results):
    return {row["doc"]["id"]: row for row in results["samples"][TASK]}


def answers_of(row):
    return [response[0].strip() for response in row["resps"]]


def test_lm_eval_gets_what_the_model_says(server, chat_model, arguments, in_process):
    import lm_eval

    found = rows_of(
        lm_eval.simple_evaluate(
            model="local-chat-completions",
            model_args=f"model={chat_model},base_url={server}/chat/completions,num_concurrent=4,max_retries=3",
            tasks=[TASK], task_manager=own_task_manager(arguments), metadata=arguments, apply_chat_template=True, limit=2,
            gen_kwargs=f"temperature=0,max_gen_toks={MAX_TOKENS}", bootstrap_iters=0,
        )  # fmt: skip
    )
    assert found.keys() == in_process.keys()
    for key, row in found.items():
        assert answers_of(row) == answers_of(in_process[key])
        assert all(answers_of(row))
        assert row["coverage"] == 1
        assert "bits" in row
        for metric in row.keys() & set(METRICS):
            assert row[metric] == pytest.approx(in_process[key][metric], abs=1e-9), metric
    # Greedy answers to the same questions: only the system prompts can have made the difference.
    first, second = (answers_of(row)[:2] for row in found.values())
    null = max(map(answers_of, found.values()), key=len)[2:]
    assert first != second
    assert first != null != second


@pytest.mark.parametrize("provider", ["openai-api/serve", "vllm", "sglang"])
def test_inspect_gets_what_the_model_says(server, chat_model, arguments, in_process, tmp_path, provider):
    """Inspect's vllm and sglang providers are clients of a server, and this one speaks the same protocol."""
    from inspect_ai import eval as inspect_eval

    log = inspect_eval(
        f"lm_eval_inversion/{TASK}", model=f"{provider}/{chat_model}", model_base_url=server, model_args={"api_key": "none"},
        task_args=arguments, limit=2, temperature=0, max_tokens=MAX_TOKENS, max_connections=4, max_retries=3, log_dir=str(tmp_path),
        display="none",
    )[0]  # fmt: skip
    assert log.status == "success", log.error
    assert {sample.id for sample in log.samples} == in_process.keys()
    for sample in log.samples:
        row = in_process[sample.id]
        assert [answer.strip() for answer in sample.store["Answers:answers"]] == answers_of(row)[:2]
        value = sample.scores["inversion"].value
        for metric in row.keys() & set(METRICS):
            assert value[metric] == pytest.approx(row[metric], abs=1e-9), metric
