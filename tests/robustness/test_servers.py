"""Both hosts against a chat server on loopback that stumbles: everything is retried or said, nothing lost is taken for silence."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from own_tasks import own_task_manager

TASK = "prompt_leakage_attacks"


class StumblingServer:
    """Answers ``/v1/chat/completions`` with the system prompt; every request fails ``faults`` times first.

    Attributes:
        requests: bodies of all requests that came in.
    """

    def __init__(self, fault, faults=1):
        self.requests, self.failed, self.lock = [], {}, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = json.dumps(body, sort_keys=True)
                with outer.lock:
                    outer.requests.append(body)
                    outer.failed[key] = outer.failed.get(key, 0) + 1
                    stumbles = outer.failed[key] <= faults
                outer.reply(self, body, fault if stumbles else "")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, handler, body, fault):
        secret = next((message["content"] for message in body["messages"] if message["role"] == "system"), "A day by the sea.")
        content = None if fault == "null" else secret
        answer = {
            "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        if fault == "no choice":
            answer["choices"] = []
        data = b"{not json" if fault == "garbage" else json.dumps(answer).encode()
        handler.send_response({"429": 429, "500": 500}.get(fault, 200))
        handler.send_header("Content-Type", "application/json")
        if fault == "429":
            handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", str(len(data)))
        if fault in ("429", "500", "half"):
            handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if fault == "half" else data)
        if fault == "half":
            handler.close_connection = True

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(*arguments, **keywords):
        servers.append(StumblingServer(*arguments, **keywords))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Without the pauses between tries."""
    import tenacity.nap

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr(tenacity.nap.time, "sleep", lambda _: None)


def run(server, task=TASK, metadata=None, limit=1):
    import lm_eval

    metadata = {"tier": "smoke"} if metadata is None else metadata
    return lm_eval.simple_evaluate(
        model="local-chat-completions", model_args=f"model=stand-in,base_url={server.url}/chat/completions,num_concurrent=1,max_retries=3",
        tasks=[task], task_manager=own_task_manager(metadata), metadata=metadata, apply_chat_template=True, limit=limit,
        bootstrap_iters=0,
    )  # fmt: skip


def inspect_run(server, folder, limit=1):
    from inspect_ai import eval as inspect_eval

    return inspect_eval(
        f"lm_eval_inversion/{TASK}", model="openai-api/standin/stand-in", model_base_url=server.url, model_args={"api_key": "none"},
        task_args={"tier": "smoke"}, limit=limit, log_dir=str(folder), display="none", max_retries=3, timeout=20, max_connections=4,
    )[0]  # fmt: skip


@pytest.mark.parametrize("fault", ["429", "500", "half", "garbage"])
def test_lm_eval_tries_again(serve, fault):
    server = serve(fault)
    found = run(server)["results"][TASK]
    assert found["coverage,none"] == found["asr,none"] == 1
    assert found["asr_null,none"] == 0
    assert len(server.requests) == 2 * len(server.failed)


def test_lm_eval_stops_where_trying_again_does_not_help(serve):
    server = serve("500", faults=99)
    with pytest.raises(Exception, match="500|RetryError|Server Error"):
        run(server)


def test_a_server_that_says_nothing_is_not_taken_for_a_safe_model(serve, tmp_path):
    found = run(serve("null", faults=99))["results"][TASK]
    assert found["coverage,none"] == 0
    assert "resistance,none" not in found
    log = inspect_run(serve("null", faults=99), tmp_path)
    assert log.status == "success", log.error
    value = log.samples[0].scores["leakage"].value
    assert value["coverage"] == 0
    assert value["resistance"] != value["resistance"]  # NaN: unscored


@pytest.mark.parametrize("fault", ["429", "500"])
def test_inspect_tries_again(serve, tmp_path, fault):
    server = serve(fault)
    log = inspect_run(server, tmp_path)
    assert log.status == "success", log.error
    value = log.samples[0].scores["leakage"].value
    assert value["coverage"] == value["asr"] == 1


def test_inspect_says_where_trying_again_does_not_help(serve, tmp_path):
    log = inspect_run(serve("500", faults=99), tmp_path)
    assert log.status == "error"
    assert not log.results


def test_equal_requests_of_users_get_seeds_of_their_own(serve):
    server = serve("")
    run(server, "prompt_inversion_user", {"inverter": "constant", "num_queries": 3})
    seeds = {}
    for body in server.requests:
        seeds.setdefault(body["messages"][0]["content"], []).append(body["seed"])
    assert sorted(map(len, seeds.values())) == [1, 1, 1, 3]
    assert sorted(max(seeds.values(), key=len)) == [1234, 1235, 1236]


def test_a_reply_without_a_choice_does_not_end_the_run(serve, tmp_path):
    log = inspect_run(serve("no choice", faults=99), tmp_path)
    assert log.status == "success", log.error
    assert log.samples[0].scores["leakage"].value["coverage"] == 0
