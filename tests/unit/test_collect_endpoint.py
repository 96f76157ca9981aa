"""Collection from an endpoint: a real HTTP server on the loopback interface, which misbehaves."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lm_eval_inversion.training import collect
from lm_eval_inversion.training.asking import DEFENCE_LINES, NULL_EVERY, Settings, plan, with_nulls
from lm_eval_inversion.training.endpoint import Endpoint, EndpointError, collect_from_endpoint, retry_after
from lm_eval_inversion.training.pairs import load_pairs
from lm_eval_inversion.training.rows import only_writer, read_pairs

PROMPTS = [f"You are pilot number {number}." for number in range(12)]


class Server(ThreadingHTTPServer):
    """Answers with what a request says, unless ``trouble`` does something else with it.

    Attributes:
        trouble: called with (handler, request, times that this very request came before); True when it has dealt with the request.
        requests: all requests, in order of arrival.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.trouble = lambda handler, request, before: False
        self.requests, self.headers = [], []
        self.lock = threading.Lock()
        self.most_at_once = self.at_once = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        self.send(404, b"")

    def do_POST(self):  # noqa: N802
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            before = self.server.requests.count(request)
            self.server.requests.append(request)
            self.server.headers.append(dict(self.headers))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            assert self.path == "/v1/chat/completions"
            if not self.server.trouble(self, request, before):
                self.send(200, completion(answer_to(request)))
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def send(self, status, body, headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


def answer_to(request):
    system = request["messages"][0]["content"] if request["messages"][0]["role"] == "system" else "nobody"
    return f"{system} | {request['messages'][-1]['content']} | {request.get('seed')} ☺"


def completion(text, tokens=7):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"completion_tokens": tokens}}).encode()


@pytest.fixture
def server():
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def endpoint(server, request):
    """An endpoint that notes its waits and does not wait."""
    waits = []
    patience = 0.5 if "time-out" in request.node.name or "time_out" in request.node.name else 60.0
    found = Endpoint(server.url, "model-x", tries=4, timeout=patience, connections=4, sleep=waits.append)
    found.waits = waits
    yield found
    found.close()


def places(number=12, **settings):
    return plan(PROMPTS[:number], Settings(**settings), seed=3)


def first(places):
    """One place with one conversation."""
    place = places[0]
    return place.messages(place.asked[0], "system"), place.asked[0]


def half_a_body(handler):
    whole = completion("This must never be seen.")
    handler.send(200, whole[:20], length=len(whole))
    handler.close_connection = True


TROUBLES = {
    "429": lambda handler: handler.send(429, b"slow down"),
    "500": lambda handler: handler.send(500, b"<html>oops</html>"),
    "503": lambda handler: handler.send(503, b""),
    "time-out": lambda handler: time.sleep(1.0),
    "half a body": half_a_body,
    "no JSON": lambda handler: handler.send(200, b"<html>welcome</html>"),
    "other JSON": lambda handler: handler.send(200, b'{"error": "overloaded"}'),
    "no choices": lambda handler: handler.send(200, b'{"choices": []}'),
    "null message": lambda handler: handler.send(200, b'{"choices": [{"message": null}]}'),
    "message of text": lambda handler: handler.send(200, b'{"choices": [{"message": "Ahoy!"}]}'),
    "content of numbers": lambda handler: handler.send(200, b'{"choices": [{"message": {"content": 5}, "finish_reason": "length"}]}'),
    "null content": lambda handler: handler.send(200, completion(None)),
    "no bytes": lambda handler: setattr(handler, "close_connection", True),
    "bad letters": lambda handler: handler.send(200, b'{"choices": "\xff\xfe"}'),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_passing_trouble_is_tried_again(server, endpoint, trouble):
    server.trouble = lambda handler, request, before: before < 2 and (TROUBLES[trouble](handler), True)[1]
    messages, asked = first(places())
    reply = endpoint.ask(messages, asked)
    assert reply.text == answer_to(server.requests[-1])
    assert reply.tokens == 7
    assert len(server.requests) == 3
    # Waits double, up to a quarter more each.
    assert [1 <= endpoint.waits[0] <= 1.25, 2 <= endpoint.waits[1] <= 2.5, len(endpoint.waits)] == [True, True, 2]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_lasting_trouble_is_a_missing_answer_not_an_empty_one(server, endpoint, trouble):
    server.trouble = lambda handler, request, before: (TROUBLES[trouble](handler), True)[1]
    reply = endpoint.ask(*first(places()))
    assert reply.text is None
    assert "after 4 tries" in reply.reason
    assert len(server.requests) == 4


def test_an_empty_answer_is_an_answer(server, endpoint):
    server.trouble = lambda handler, request, before: (handler.send(200, completion("")), True)[1]
    assert endpoint.ask(*first(places())).text == ""
    assert len(server.requests) == 1


def test_a_request_that_is_refused_for_good_is_not_sent_again(server, endpoint):
    server.trouble = lambda handler, request, before: (handler.send(400, b"prompt too long"), True)[1]
    reply = endpoint.ask(*first(places()))
    assert (reply.text, reply.reason) == (None, "HTTP 400: prompt too long")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 401, 404])
def test_an_endpoint_that_cannot_work_stops_the_run(server, endpoint, status, tmp_path):
    server.trouble = lambda handler, request, before: (handler.send(status, b"who are you?"), True)[1]
    with pytest.raises(EndpointError, match=f"answers {status} .who are you.*--api-key-env"):
        collect_from_endpoint(endpoint, places(), tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == []


def test_retry_after_is_honoured(server, endpoint):
    server.trouble = lambda handler, request, before: before == 0 and (handler.send(429, b"", [("Retry-After", "17")]), True)[1]
    assert endpoint.ask(*first(places())).text
    assert endpoint.waits[0] == 17
    # Nobody else asks in the meantime either.
    assert 16 < endpoint.waits[1] <= 17


def test_retry_after_is_a_number_or_a_date():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert retry_after(None) == retry_after("soon") == retry_after("-3") == retry_after("nan") == 0
    assert retry_after("2.5") == 2.5
    assert retry_after(format_datetime(now + timedelta(seconds=40), usegmt=True), now) == 40
    assert retry_after(format_datetime(now - timedelta(seconds=40), usegmt=True), now) == 0
    assert retry_after("86400") == 600


def test_what_is_sent(server, endpoint, tmp_path):
    wanted = places(2, shares={"ordinary16": 2, "intro4x16": 1}, temperatures=(0.2, 0.9), message_tokens=(11,), list_tokens=(99,))
    endpoint.body = {"top_p": 0.5, "seed": None}
    endpoint.length_field = "max_completion_tokens"
    server.trouble = lambda handler, request, before: (handler.send(200, completion("ok")), True)[1]
    collect_from_endpoint(endpoint, wanted, tmp_path / "pairs.jsonl")
    assert len(server.requests) == 6
    for request in server.requests:
        assert set(request) == {"model", "messages", "temperature", "max_completion_tokens", "top_p"}
        assert request["model"] == "model-x"
        assert 0.2 <= request["temperature"] <= 0.9
        assert request["max_completion_tokens"] == (99 if "16" in request["messages"][-1]["content"] else 11)
        assert [message["role"] for message in request["messages"]] == ["system", "user"]
        assert request["messages"][0]["content"].split("\n\n")[0] in PROMPTS
    asked = [asked for place in wanted for asked in place.asked]
    assert Counter(request["temperature"] for request in server.requests) == Counter(one.temperature for one in asked)


def test_the_prompt_goes_into_the_user_turn_where_there_is_no_system_role(server, endpoint, tmp_path):
    collect_from_endpoint(endpoint, places(2), tmp_path / "pairs.jsonl", system_role="user")
    assert {len(request["messages"]) for request in server.requests} == {1}
    assert all(request["messages"][0]["content"].startswith("You are pilot number ") for request in server.requests)


def misbehave(handler, request, before):
    """Trouble that depends on the request only, so that every run meets the same."""
    kinds = list(TROUBLES)
    draw = request["seed"] % 23
    if draw < len(kinds) and kinds[draw] != "time-out" and before < 2:
        TROUBLES[kinds[draw]](handler)
        return True
    if draw == 22:  # never answered
        handler.send(500, b"broken")
        return True
    return False


def test_rows_are_written_in_order_and_say_what_is_missing(server, endpoint, tmp_path):
    server.trouble = misbehave
    wanted = places(defence_share=0.5)
    heard = []
    missing = collect_from_endpoint(endpoint, wanted, tmp_path / "pairs.jsonl", progress=lambda *counts: heard.append(counts))
    rows = read_pairs(tmp_path / "pairs.jsonl")
    assert [(row["place"], row["prompt"]) for row in rows] == list(enumerate(PROMPTS))
    assert sum(answers for answers, _ in heard) == 12 * 8
    expected_missing = 0
    for row, place in zip(rows, wanted):
        answered = [asked for asked in place.asked if asked.seed % 23 != 22]
        system = f"{place.prompt}\n\n{place.defence}" if place.defence else place.prompt
        assert row["answers"] == [[asked.query.id, f"{system} | {asked.query.text} | {asked.seed} ☺"] for asked in answered]
        assert row["temperatures"] == [asked.temperature for asked in answered]
        assert row["max_tokens"] == [asked.max_tokens for asked in answered]
        assert row.get("defence") == place.defence
        lost = [asked.query.id for asked in place.asked if asked.seed % 23 == 22]
        assert row.get("missing", []) == [[query, "HTTP 500: broken (after 4 tries)"] for query in lost]
        expected_missing += len(lost)
    assert missing == expected_missing > 0
    assert server.most_at_once <= 4
    # The target stays the prompt alone, and a missing answer is no output.
    pairs = load_pairs([tmp_path / "pairs.jsonl"])
    assert [pair.prompt for pair in pairs] == PROMPTS
    assert all(pair.outputs and "broken" not in " ".join(pair.outputs) for pair in pairs)


def test_an_interrupted_collection_goes_on_and_writes_the_same(server, endpoint, tmp_path):
    server.trouble = misbehave
    collect_from_endpoint(endpoint, places(), tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    part = tmp_path / "part.jsonl"
    for kept in (0, 1, len(whole) // 3, len(whole) // 2, whole.index(b"\n"), whole.index(b"\n") + 1, len(whole) - 1, len(whole)):
        part.write_bytes(whole[:kept])
        server.requests.clear()  # every request meets its trouble anew
        collect_from_endpoint(endpoint, places(), part)
        assert part.read_bytes() == whole
        if kept == len(whole):
            assert not server.requests


def test_a_killed_process_goes_on(server, tmp_path):
    """The command line itself, killed while it waits for answers."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n\n".join(PROMPTS))
    output = tmp_path / "pairs.jsonl"
    command = [
        sys.executable, "-m", "lm_eval_inversion.training.collect", "--endpoint", server.url, "--model", "m", "--source", str(prompts),
        "--connections", "2", "--first-wait", "0.01", "--tries", "3", "--shares", "ordinary16=3", "--output", str(output),
    ]  # fmt: skip
    release = threading.Event()

    def stall(handler, request, before):
        if len(server.requests) > 14:
            release.wait(20)
        return False

    server.trouble = stall
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(server.requests) <= 14 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    release.set()
    done = len(read_pairs(output))
    assert 0 < done < 12
    server.trouble = lambda handler, request, before: False
    server.requests.clear()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "answer/s" in finished.stderr or "s/answer" in finished.stderr
    assert "tokens/s" in finished.stderr
    assert len(server.requests) <= (12 - done + 1) * 3  # one place more: the null one
    again = output.read_bytes()
    output.unlink()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert output.read_bytes() == again


def test_an_outage_stops_the_run_and_costs_no_rows(server, endpoint, tmp_path):
    wanted = places()
    dead = {asked.seed for place in wanted[5:] for asked in place.asked}
    server.trouble = lambda handler, request, before: request["seed"] in dead and (handler.send(503, b"down"), True)[1]
    with pytest.raises(EndpointError, match="3 system prompts in a row got no answer at all.*HTTP 503: down"):
        collect_from_endpoint(endpoint, wanted, tmp_path / "pairs.jsonl")
    assert len(read_pairs(tmp_path / "pairs.jsonl")) == 5
    server.trouble = lambda handler, request, before: False
    assert collect_from_endpoint(endpoint, wanted, tmp_path / "pairs.jsonl") == 0
    assert all(len(row["answers"]) == 8 for row in read_pairs(tmp_path / "pairs.jsonl"))


def test_one_prompt_that_is_refused_does_not_stop_the_run(server, endpoint, tmp_path):
    server.trouble = lambda handler, request, before: (
        PROMPTS[4] in request["messages"][0]["content"] and (handler.send(400, b"too long"), True)[1]
    )
    assert collect_from_endpoint(endpoint, places(), tmp_path / "pairs.jsonl") == 8
    rows = read_pairs(tmp_path / "pairs.jsonl")
    assert [len(row["answers"]) for row in rows] == [0 if number == 4 else 8 for number in range(12)]


def forbid(handler, request, before):
    """A filter in front of the model, which takes offence at some system prompts."""
    if PROMPTS[0] in request["messages"][0]["content"] or PROMPTS[5] in request["messages"][0]["content"]:
        handler.send(403, b"your input was flagged")
        return True
    return False


def test_a_filter_that_forbids_some_prompts_does_not_stop_the_run(server, endpoint, tmp_path):
    server.trouble = forbid
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    assert collect_from_endpoint(endpoint, places(), whole) == 16
    rows = read_pairs(whole)
    assert [len(row["answers"]) for row in rows] == [0 if number in (0, 5) else 8 for number in range(12)]
    assert {reason for _, reason in rows[5]["missing"]} == {"HTTP 403: your input was flagged"}
    # Started again where the next prompt is a forbidden one, also where it is the last.
    part.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:5]))
    assert collect_from_endpoint(endpoint, places(6), part) == 8
    assert read_pairs(part) == rows[:6]


def test_a_filter_that_forbids_several_prompts_in_a_row_does_not_stop_the_run(server, endpoint, tmp_path):
    server.trouble = lambda handler, request, before: (
        any(prompt in request["messages"][0]["content"] for prompt in PROMPTS[2:7]) and (handler.send(403, b"flagged"), True)[1]
    )
    assert collect_from_endpoint(endpoint, places(), tmp_path / "pairs.jsonl") == 40
    rows = read_pairs(tmp_path / "pairs.jsonl")
    assert [len(row["answers"]) for row in rows] == [0 if 2 <= number < 7 else 8 for number in range(12)]


def test_a_key_that_is_revoked_near_the_end_leaves_its_places_to_be_asked_again(server, endpoint, tmp_path):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "pairs.jsonl"
    collect_from_endpoint(endpoint, places(6), whole)
    server.trouble = lambda handler, request, before: (
        PROMPTS[5] in request["messages"][0]["content"] or len(request["messages"]) == 1
    ) and (handler.send(403, b"revoked"), True)[1]  # fmt: skip
    with pytest.raises(EndpointError, match="the last 1 system prompts got no answer at all .HTTP 403: revoked., nor does a greeting"):
        collect_from_endpoint(endpoint, places(6), output)
    assert len(read_pairs(output)) == 5
    server.trouble = lambda handler, request, before: False
    collect_from_endpoint(endpoint, places(6), output)
    assert output.read_bytes() == whole.read_bytes()


def test_a_server_that_goes_down_near_the_end_leaves_its_places_to_be_asked_again(server, endpoint, tmp_path):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "pairs.jsonl"
    collect_from_endpoint(endpoint, places(6), whole)
    output.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:4]))
    server.trouble = lambda handler, request, before: (handler.send(503, b"down"), True)[1]
    with pytest.raises(EndpointError, match="the last 2 system prompts got no answer at all .*503.*, nor does a greeting"):
        collect_from_endpoint(endpoint, places(6), output)
    server.trouble = lambda handler, request, before: False
    collect_from_endpoint(endpoint, places(6), output)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("number", [1, 12])
def test_a_key_that_may_nothing_stops_the_run(server, endpoint, tmp_path, number):
    server.trouble = lambda handler, request, before: (handler.send(403, b"no access"), True)[1]
    with pytest.raises(EndpointError, match="got no answer at all.*HTTP 403: no access.*the key in --api-key-env"):
        collect_from_endpoint(endpoint, places(number), tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == []


def test_two_collectors_do_not_write_one_file(server, tmp_path, capsys):
    output = tmp_path / "folder" / "pairs.jsonl"
    command = ["--endpoint", server.url, "--model", "m", "--prompts", "2", "--shares", "training=1", "--output", str(output)]
    with only_writer(output):
        with pytest.raises(SystemExit):
            collect.main(command)
        assert f"another collector writes {output}" in capsys.readouterr().err
        assert output.read_bytes() == b""
        assert not server.requests
    collect.main(command)
    assert len(read_pairs(output)) == 3


def test_what_two_collectors_wrote_into_one_file_is_refused(server, endpoint, tmp_path):
    output = tmp_path / "pairs.jsonl"
    collect_from_endpoint(endpoint, places(3), output)
    row = output.read_text().splitlines(keepends=True)[1]
    output.write_text(output.read_text() + row)
    with pytest.raises(ValueError, match=r"pairs\.jsonl holds place 1 twice: two collectors"):
        load_pairs([output])
    # The same place of another plan is another one.
    other = json.loads(row)
    output.write_text(output.read_text().removesuffix(row) + json.dumps({**other, "temperatures": [0.5] * 8}) + "\n")
    assert len(load_pairs([output])) == 4


def test_a_refusal_that_is_no_unicode_is_written(server, endpoint, tmp_path):
    body = b'{"choices": [{"message": {"content": null, "refusal": "no \\ud83d"}, "finish_reason": "stop"}]}'
    server.trouble = lambda handler, request, before: request["seed"] % 5 == 0 and (handler.send(200, body), True)[1]
    assert collect_from_endpoint(endpoint, places(), tmp_path / "pairs.jsonl") > 0
    assert {reason for row in read_pairs(tmp_path / "pairs.jsonl") for _, reason in row.get("missing", [])} == {"refused: no ?"}


def test_an_answer_that_drips_in_is_a_time_out(server, endpoint):
    def drip(handler, request, before):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with suppress(OSError):  # the client has gone
            for _ in range(100):
                handler.wfile.write(b"1\r\n \r\n")
                time.sleep(0.1)
        handler.close_connection = True
        return True

    server.trouble = drip
    endpoint.tries = 1
    assert "ReadTimeout: the answer was not whole after 0.5 seconds" in endpoint.ask(*first(places())).reason


def test_an_error_in_place_of_an_answer_is_the_reason(server, endpoint):
    body = b'{"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}'
    server.trouble = lambda handler, request, before: (handler.send(200, body), True)[1]
    assert "Rate limit exceeded: free-models-per-day" in endpoint.ask(*first(places())).reason


def test_a_plan_of_few_prompts_has_a_null_and_goes_on_as_a_longer_one(server, endpoint, tmp_path):
    assert with_nulls(PROMPTS) == [*PROMPTS, None]
    many = [f"You are pilot number {number}." for number in range(60)]
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    collect_from_endpoint(endpoint, plan(with_nulls(many), Settings(), seed=3), whole)
    collect_from_endpoint(endpoint, plan(with_nulls(many[:12]), Settings(), seed=3), part)
    assert [row["prompt"] for row in read_pairs(part)] == [*many[:12], None]
    collect_from_endpoint(endpoint, plan(with_nulls(many), Settings(), seed=3), part)
    assert part.read_bytes() == whole.read_bytes()


def test_other_arguments_are_refused_instead_of_mixed(server, endpoint, tmp_path):
    output = tmp_path / "pairs.jsonl"
    collect_from_endpoint(endpoint, places(), output)
    for other in (plan(PROMPTS, Settings(), seed=4), plan(PROMPTS[::-1], Settings(), seed=3), places(11)):
        with pytest.raises(ValueError, match="choose another --output"):
            collect_from_endpoint(endpoint, other, output)
    output.write_text("nonsense\n")
    with pytest.raises(ValueError, match="line 1 is no row of this command"):
        collect_from_endpoint(endpoint, places(), output)


def test_shards_are_disjoint_and_together_the_whole():
    prompts = with_nulls([f"Prompt {number}" for number in range(200)])
    whole = plan(prompts, Settings(), seed=1)
    shards = [plan(prompts, Settings(), seed=1, shard=(which, 8)) for which in range(1, 9)]
    assert [place.number for place in shards[1]] == list(range(1, len(prompts), 8))
    assert sorted((place for shard in shards for place in shard), key=lambda place: place.number) == whole
    with pytest.raises(ValueError, match="shard 9/8"):
        plan(prompts, Settings(), shard=(9, 8))


def test_the_plan_holds_every_condition_in_its_share():
    prompts = with_nulls([f"Prompt {number}" for number in range(1950)])
    places = plan(prompts, Settings(), seed=1)
    assert len(places) == 2000
    nulls = [place for place in places if place.prompt is None]
    assert len(nulls) == 2000 / NULL_EVERY
    assert all(place.given is None and place.defence is None for place in nulls)
    # Not all in one shard of eight.
    assert len({place.number % 8 for place in nulls}) == 8
    defended = [place for place in places if place.defence]
    assert 0.07 < len(defended) / 1950 < 0.13
    assert {place.defence for place in defended} == set(DEFENCE_LINES)
    assert all(place.given == f"{place.prompt}\n\n{place.defence}" for place in defended)
    asked = [one for place in places for one in place.asked]
    kinds = Counter(one.kind for one in asked)
    assert (kinds["message"], kinds["list"]) == (7 * 2000, 2000)
    temperatures = [one.temperature for one in asked]
    assert min(temperatures) == 0
    assert max(temperatures) == 1
    assert 0.48 < sum(temperatures) / len(temperatures) < 0.52
    assert {one.max_tokens for one in asked if one.kind == "message"} == {32, 64, 128}
    assert {one.max_tokens for one in asked if one.kind == "list"} == {256, 512}
    assert len({one.query.id for one in asked}) == 16 + 24 + 4


def test_a_plan_of_users_messages_asks_each_so_often_and_nothing_else():
    requests = [f"Which bread is number {number}?" for number in range(195)]
    places = plan(with_nulls(requests), Settings({"ordinary16": 16}, secret="user"), seed=1)
    assert [place.secret for place in places] == ["user"] * 200
    for place in places:
        assert place.defence is None
        sent = [place.messages(asked, "system") for asked in place.asked]
        if place.prompt is None:  # what a model says to the queries when nobody asks anything secret
            assert len({json.dumps(messages) for messages in sent}) == 16
            assert all(len(messages) == 1 for messages in sent)
        else:
            assert sent == [[{"role": "user", "content": place.prompt}]] * 16
    # Among other prompts than users' messages the very same plan has defences.
    assert any(place.defence for place in plan(with_nulls(requests), Settings({"ordinary16": 16}), seed=1))


def test_a_file_of_somebody_else_is_left_as_it_is(server, endpoint, tmp_path):
    output = tmp_path / "pairs.jsonl"
    collect_from_endpoint(endpoint, places(2), output)
    rows = output.read_bytes()
    for data in (b"notes without a line's end", b'{"place": 7', b"\0\0", rows + b"notes", rows.rstrip(b"\n") + b" and notes\nmore"):
        output.write_bytes(data)
        with pytest.raises(ValueError, match=r"line \d is no row of this command; choose another --output"):
            collect_from_endpoint(endpoint, places(3), output)
        assert output.read_bytes() == data
    # A whole file and something behind it.
    output.write_bytes(rows + b'{"place": 2, "prompt": ')
    with pytest.raises(ValueError, match="line 3 is no row of this command"):
        collect_from_endpoint(endpoint, places(2), output)


def test_users_messages_are_collected_and_not_mixed_with_system_prompts(server, tmp_path, capsys):
    source, output = tmp_path / "requests.txt", tmp_path / "pairs.jsonl"
    source.write_text("\n\n".join(f"Which bread is number {number}?" for number in range(4)))
    command = ["--endpoint", server.url, "--model", "m", "--source", str(source), "--output", str(output)]
    collect.main([*command, "--secret", "user"])
    rows = read_pairs(output)
    asked = Counter(request["messages"][0]["content"] for request in server.requests if len(request["messages"]) == 1)
    assert len(server.requests) == sum(asked.values()) == 16 * len(rows)
    assert {row["prompt"]: asked[row["prompt"]] for row in rows if row["prompt"]} == dict.fromkeys(source.read_text().split("\n\n"), 16)
    assert {row["secret"] for row in rows} == {"user"}
    assert not any("defence" in row for row in rows)
    pairs = [pair for pair in load_pairs([output]) if pair.prompt]
    assert {pair.secret for pair in pairs} == {"user"}
    assert all(len(pair.outputs) == 16 for pair in pairs)
    # Once more: nothing is asked. As system prompts: another file.
    server.requests.clear()
    collect.main([*command, "--secret", "user"])
    assert not server.requests
    with pytest.raises(SystemExit):
        collect.main([*command, "--shares", "ordinary16=16"])
    assert "was written with other arguments" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--model", "another"], ["--temperature", "0.5"], ["--message-tokens", "99"]])
def test_a_file_of_other_settings_is_not_gone_on_with(server, tmp_path, capsys, more):
    source, output = tmp_path / "prompts.txt", tmp_path / "pairs.jsonl"
    source.write_text("You bake.\n\nYou sail.")
    command = ["--endpoint", server.url, "--model", "m", "--source", str(source), "--output", str(output)]
    collect.main(command)
    before = output.read_bytes()
    with pytest.raises(SystemExit):
        collect.main([*command, *more])
    assert "was written with other arguments (model, prompts, seed" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_an_address_that_is_none_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        collect.main(["--endpoint", "http://localhost:abc/v1", "--model", "m", "--output", str(tmp_path / "pairs.jsonl"), "--prompts", "1"])
    assert "is no address" in capsys.readouterr().err


def test_rows_are_not_written_under_a_compressed_name(tmp_path, capsys):
    with pytest.raises(SystemExit):
        collect.main(["--model", "m", "--output", str(tmp_path / "pairs.jsonl.xz")])
    assert "give a .jsonl file" in capsys.readouterr().err
    (tmp_path / "pairs.jsonl.xz").write_text('{"prompt": null, "answers": []}\n')
    with pytest.raises(ValueError, match="is not compressed as its name says"):
        read_pairs(tmp_path / "pairs.jsonl.xz")


def test_settings_that_cannot_be_asked():
    for settings, message in (
        (Settings({"ordinary16": 17}), "'ordinary16' has 16 queries"),
        (Settings({"nosuch": 1}), "'nosuch' does not exist"),
        (Settings({"ordinary16": 0}), "no queries"),
        (Settings(temperatures=(1.0, 0.5)), "temperatures 1.0 to 0.5"),
        (Settings(message_tokens=(0,)), "at least 1"),
        (Settings(defence_share=2), "defence share 2"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(PROMPTS, settings)


def test_mistakes_on_the_command_line(server, tmp_path, capsys, monkeypatch):
    common = ["--model", "m", "--output", str(tmp_path / "pairs.jsonl"), "--prompts", "2"]
    monkeypatch.delenv("NO_KEY", raising=False)
    for extra, message in (
        (["--endpoint", "localhost:8000"], "is no URL"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "cannot be reached"),
        (["--endpoint", server.url, "--api-key-env", "NO_KEY"], "NO_KEY: this environment variable is not set"),
        (["--endpoint", server.url, "--shard", "3/2"], "'3/2' is no shard"),
        (["--endpoint", server.url, "--shares", "ordinary16"], "give QUERY_SET=NUMBER"),
        (["--endpoint", server.url, "--body", "[]"], "give a JSON object"),
        (["--endpoint", server.url, "--source", "nowhere.txt"], "nowhere.txt"),
        (["--endpoint", server.url, "--temperature", "0", "1", "2"], "give one number, or two ends"),
        (["--endpoint", server.url, "--connections", "0"], "argument --connections: '0' is not a whole number above 0"),
        (["--endpoint", server.url, "--split", "dev"], "--split dev: only shipped sets have splits; add --source v1"),
        (["--endpoint", server.url, "--source", "prompts.txt", "--split", "dev"], "--split dev: only shipped sets have splits"),
        (["--endpoint", server.url, "--device", "cpu"], "--device is for local models"),
        (["--endpoint", server.url, "--batch-prompts", "3"], "--batch-prompts is for local models"),
        (["--endpoint", server.url, "--revision", "main"], "--revision is for local models"),
        (["--endpoint", server.url, "--timeout", "-1"], "argument --timeout: '-1' is not a number above 0"),
        (["--connections", "3"], "--connections is for --endpoint"),
        (["--system-role", "user"], "--system-role is for --endpoint"),
        (["--body", '{"top_p": 1}'], "--body is for --endpoint"),
        (["--endpoint", server.url, "--body", '{"temperature": 0}'], "another 'temperature' than was sent; give --temperature"),
        (["--endpoint", server.url, "--body", '{"seed": 1}'], "another 'seed' than was sent; give --seed"),
        (["--endpoint", server.url, "--body", '{"model": "b"}'], "another 'model' than was sent; give --model"),
        (["--endpoint", server.url, "--body", '{"messages": []}'], "another 'messages' than was sent; they are planned"),
        (["--endpoint", server.url, "--body", '{"max_tokens": 9}'], "another 'max_tokens' than was sent; give --message-tokens"),
        (["--endpoint", server.url, "--body", '{"max_completion_tokens": 9}'], "another 'max_completion_tokens' than was sent"),
    ):
        with pytest.raises(SystemExit) as stopped:
            collect.main([*common, *extra])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert not server.requests
    # What is taken away is told of.
    collect.main([*common, "--endpoint", server.url, "--body", '{"seed": null, "top_p": 0.5}', "--shares", "training=1"])
    assert {"seed" in request for request in server.requests} == {False}


def test_the_key_is_sent_and_written_nowhere(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    output = tmp_path / "pairs.jsonl"
    collect.main([
        "--endpoint", server.url, "--model", "m", "--output", str(output), "--prompts", "2", "--api-key-env", "SOME_KEY",
        "--shares", "training=1",
    ])  # fmt: skip
    assert {headers.get("Authorization", headers.get("authorization")) for headers in server.headers} == {"Bearer sk-secret"}
    assert "sk-secret" not in output.read_text()


def ended(reason, content, **more):
    """A completion that says why it ended."""
    choice = {"finish_reason": reason, "message": {"role": "assistant", "content": content, **more}}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": 9}}).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ended("length", None), "give longer --message-tokens"),
        (ended("length", "", reasoning_content="Hm. The user"), "give longer --message-tokens"),
        (ended("length", "<think>Hm. The user"), "give longer --message-tokens"),
        (ended("length", [{"type": "thinking", "thinking": []}]), "give longer --message-tokens"),
        (ended("stop", None, refusal="I can't  help."), "refused: I can't help."),
        (ended("stop", [{"type": "refusal", "refusal": "I can't  help."}]), "refused: I can't help."),
        (ended("content_filter", None), "no content (finish_reason content_filter)"),
        (ended("content_filter", ""), "no content (finish_reason content_filter)"),
        (ended("stop", None), "no content (finish_reason stop)"),
    ],
)
def test_what_another_try_would_not_change_is_not_asked_for_again(server, endpoint, body, reason):
    server.trouble = lambda handler, request, before: (handler.send(200, body), True)[1]
    reply = endpoint.ask(*first(places()))
    assert (reply.text, reply.tokens) == (None, 9)
    assert reason in reply.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (ended("stop", [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]), "Hi!"),
        (ended("stop", ""), ""),
        (ended("length", "<think>Hm.</think>Hi, y"), "<think>Hm.</think>Hi, y"),
        (ended("content_filter", "Hi, y"), "Hi, y"),
    ],
)
def test_answers_in_parts_and_of_few_words_are_answers(server, endpoint, body, text):
    server.trouble = lambda handler, request, before: (handler.send(200, body), True)[1]
    assert endpoint.ask(*first(places())).text == text
    assert len(server.requests) == 1


def test_an_endpoint_whose_model_thinks_until_it_is_cut_off_is_told_of(server, endpoint, tmp_path, caplog):
    def think(handler, request, before):
        if request["seed"] % 4 == 0:
            return False
        handler.send(200, ended("length", ""))
        return True

    server.trouble = think
    missing = collect_from_endpoint(endpoint, places(), tmp_path / "pairs.jsonl")
    assert caplog.text.count("answers say nothing once their reasoning is taken away: model-x seems to think") == 1
    rows = read_pairs(tmp_path / "pairs.jsonl")
    assert missing == sum(len(row["missing"]) for row in rows) > 48
    assert all(answer for row in rows for _, answer in row["answers"])
