"""Answers from any OpenAI-compatible endpoint: patient with servers that are busy, slow or broken.

A request that fails for a passing reason (429, 5xx, a time-out, half a body, a body that is no JSON) is sent again after a wait that
doubles each time, or that the server asks for (``Retry-After``). After the last try the answer is recorded as missing: an empty answer is
something that a model said, a missing one is not. Missing at once is what the same request would not bring either: an answer that the
server or its filter withheld, and one that was cut off while the model still thought. A 403 is taken for such a filter: if it is the key,
no system prompt gets any answer, which stops the run.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from lm_eval_inversion.queries.conversations import Message, SystemRole
from lm_eval_inversion.thinking import strip_thinking
from lm_eval_inversion.training.asking import Asked, Place
from lm_eval_inversion.training.rows import as_line, resume, row_of
from lm_eval_inversion.training.silence import Silence

LONGEST_BACKOFF, LONGEST_RETRY_AFTER = 60.0, 600.0  # seconds
PASSING_STATUSES = {408, 409, 425, 429}  # and every 5xx
FORBIDDEN = "HTTP 403"  # how the reason of such a reply begins
HOPELESS_STATUSES = {401, 404, 405}  # the next request will fare no better; after a 403, of a filter, it may
LOOK_AHEAD = 4  # places asked ahead of the one that is written next, per connection
MOST_PLACES_WITHOUT_ANSWER = 3  # in a row; then the endpoint is taken to be down
CUT_OFF = "cut off before it said anything: the model thinks; give longer --message-tokens and --list-tokens"


class EndpointError(ValueError):
    """The endpoint cannot be used; the message names the mend."""


@dataclass(frozen=True)
class Reply:
    """What came back for one conversation.

    Attributes:
        text: the answer, "" when the model ended without a word; None when no answer arrived, or only thoughts that were cut off.
        tokens: what the model wrote, as the server counts, 0 where it does not say.
        reason: why there is no answer.
    """

    text: str | None
    tokens: int = 0
    reason: str = ""


class Endpoint:
    """Chat completions of one model behind one URL; safe to use from several threads.

    Args:
        url: up to and with the version, as in ``http://localhost:8000/v1``, or with ``/chat/completions``.
        model: its name there.
        api_key: sent as a bearer token; None sends none.
        tries: requests per conversation before its answer counts as missing.
        timeout: seconds after which a request has failed, also one whose answer comes in byte by byte.
        first_wait: seconds before the second try; doubles with each further one.
        length_field: how this server calls the longest answer ("max_tokens", or "max_completion_tokens").
        body: fields that are added to every request; a value of None takes a field away.
        connections: requests at a time.
        sleep: how to wait; None waits until the time is over or ``close`` is called.

    Raises:
        EndpointError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        tries: int = 8,
        timeout: float = 120.0,
        first_wait: float = 1.0,
        length_field: str = "max_tokens",
        body: Mapping[str, Any] | None = None,
        connections: int = 8,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        import httpx

        if not url.startswith(("http://", "https://")):
            raise EndpointError(f"--endpoint {url!r} is no URL; give one such as http://localhost:8000/v1")
        self.url = url.rstrip("/")
        if not self.url.endswith("/chat/completions"):
            self.url += "/chat/completions"
        self._closed = threading.Event()
        self.model, self.tries, self.timeout, self.first_wait = model, tries, timeout, first_wait
        self.sleep: Callable[[float], Any] = sleep or self._closed.wait
        self.length_field, self.body, self.connections = length_field, dict(body or {}), connections
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(timeout=timeout, limits=limits, headers=headers)
        self._resume_at = 0.0  # a busy server is left alone by all threads
        self._lock = threading.Lock()

    def check(self) -> None:
        """Find out at once whether anybody listens.

        Raises:
            EndpointError: nobody does.
        """
        import httpx

        try:
            self._client.get(self.url)
        except httpx.InvalidURL as error:
            raise EndpointError(f"--endpoint {self.url} is no address ({error}); give one as in http://localhost:8000/v1") from error
        except httpx.ConnectError as error:
            raise EndpointError(f"{self.url} cannot be reached ({error}); start the server, or correct --endpoint") from error
        except httpx.HTTPError:
            pass  # somebody listens; requests have their own patience

    def request(self, messages: Sequence[Message], asked: Asked) -> dict[str, Any]:
        """The JSON that is sent."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            "temperature": asked.temperature,
            self.length_field: asked.max_tokens,
            "seed": asked.seed,
            **self.body,
        }
        return {key: value for key, value in body.items() if value is not None}

    def ask(self, messages: Sequence[Message], asked: Asked) -> Reply:
        """The answer to one conversation, after as many tries as it takes and as are allowed.

        Raises:
            EndpointError: the server refuses in a way that will not pass.
        """
        import httpx

        body = self.request(messages, asked)
        reason = ""
        for attempt in range(self.tries):
            if (wait := self._resume_at - time.monotonic()) > 0:
                self.sleep(wait)
            if self._closed.is_set():
                break
            demanded = 0.0
            try:
                status, headers, content = self._post(body)
                if status == 200:
                    return _reply(json.loads(content))
                said = _shown(content.decode("utf-8", "replace"))
                if status in HOPELESS_STATUSES or 300 <= status < 400:
                    raise EndpointError(f"{self.url} answers {status} ({said}); check --endpoint, --model and the key in --api-key-env")
                reason = f"HTTP {status}: {said}"
                if status < 500 and status not in PASSING_STATUSES:
                    return Reply(None, reason=reason)
                demanded = retry_after(headers.get("Retry-After"))
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
            except EndpointError:
                raise
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                reason = f"no chat completion ({type(error).__name__}: {_shown(str(error))})"
            if attempt + 1 < self.tries:
                self._wait(attempt, demanded)
        return Reply(None, reason=f"{reason} (after {self.tries} tries)")

    def _post(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content of one response; the client's own time-out starts anew with every byte."""
        import httpx

        end = time.monotonic() + self.timeout
        parts = []
        with self._client.stream("POST", self.url, json=body) as response:
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"the answer was not whole after {self.timeout:g} seconds")
        return response.status_code, response.headers, b"".join(parts)

    def _wait(self, attempt: int, demanded: float) -> None:
        # Up to a quarter more, so that connections that failed together do not come back together.
        backoff = min(LONGEST_BACKOFF, self.first_wait * 2**attempt) * (1 + 0.25 * random.random())
        if demanded:
            with self._lock:
                self._resume_at = max(self._resume_at, time.monotonic() + demanded)
        self.sleep(max(backoff, demanded))

    def close(self) -> None:
        """Close all connections; whoever waits for a next try gives up."""
        self._closed.set()
        self._client.close()


def retry_after(header: str | None, now: datetime | None = None) -> float:
    """Seconds that a ``Retry-After`` header asks for (a number or a date), at most ``LONGEST_RETRY_AFTER``; 0 for none or nonsense."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        seconds = (moment - (now or datetime.now(timezone.utc))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else 0.0


def collect_from_endpoint(
    endpoint: Endpoint,
    places: Sequence[Place],
    output: Path,
    *,
    system_role: SystemRole = "system",
    progress: Callable[[int, int], None] = lambda answers, tokens: None,
) -> int:
    """Ask what is planned and append the rows to ``output`` in the order of the plan.

    Args:
        endpoint: who answers.
        places: the plan; those that ``output`` holds already are not asked again.
        output: JSONL file.
        system_role: "user" puts system prompts into the first user message.
        progress: called with (answers, tokens) of each row, also of those found in the file (0 tokens).

    Returns:
        The number of missing answers among those asked now.

    Raises:
        EndpointError: the endpoint refuses, or ``MOST_PLACES_WITHOUT_ANSWER`` places in a row got no answer at all, or every place of a
            shorter plan, unless a filter forbade them (403) that lets a greeting pass; or fewer at the end, where a greeting gets none
            either. Their rows are not written, so that the command asks them again when it is started again.
        ValueError: the file was written with other arguments.
    """
    done = resume(output, places, endpoint.model)
    for place in places[:done]:
        progress(len(place.asked), 0)
    missing, silent = 0, ""
    silent_rows = 0
    silence = Silence(endpoint.model)
    with output.open("a", encoding="utf-8") as stream:
        for place, replies in _in_order(endpoint, places[done:], system_role):
            reasons = {index: reply.reason for index, reply in enumerate(replies) if reply.text is None}
            line = as_line(row_of(place, endpoint.model, [reply.text for reply in replies], reasons))
            missing += len(reasons)
            silence.add(reply.text or "" for reply in replies if reply.text is not None or reply.reason == CUT_OFF)
            if len(reasons) == len(replies):
                silent, silent_rows = silent + line, silent_rows + 1
                if silent_rows == min(MOST_PLACES_WITHOUT_ANSWER, len(places)):
                    if not replies[-1].reason.startswith(FORBIDDEN) or _is_locked_out(endpoint, place.asked[0]):
                        raise EndpointError(
                            f"{endpoint.url}: {silent_rows} system prompts in a row got no answer at all, the last because of "
                            f"{replies[-1].reason}; see what the server says, check --model and the key in --api-key-env, and start the "
                            "same command again (if it knows no system role, add --system-role user)"
                        )
                    # A filter dislikes what these prompts say; several such may stand side by side.
                    stream.write(silent)
                    silent, silent_rows = "", 0
            else:
                stream.write(silent + line)
                stream.flush()
                silent, silent_rows = "", 0
            progress(len(replies), sum(reply.tokens for reply in replies))
        if silent and _is_locked_out(endpoint, places[-1].asked[0]):
            raise EndpointError(
                f"{endpoint.url}: the last {silent_rows} system prompts got no answer at all ({replies[-1].reason}), nor does a greeting; "
                "see what the server says, check the key in --api-key-env, and start the same command again"
            )
        stream.write(silent)
    return missing


def _is_locked_out(endpoint: Endpoint, asked: Asked) -> bool:
    """Whether a greeting without a system prompt is not answered either: then it is not what the last prompts say."""
    reply = endpoint.ask([{"role": "user", "content": "Hello!"}], asked)
    return reply.text is None and reply.reason != CUT_OFF


def _in_order(endpoint: Endpoint, places: Sequence[Place], system_role: SystemRole) -> Iterator[tuple[Place, list[Reply]]]:
    """Places with their replies, in order, while later ones are asked already."""
    ahead: deque[tuple[Place, list[Future[Reply]]]] = deque()
    waiting = iter(places)
    pool = ThreadPoolExecutor(endpoint.connections, thread_name_prefix="endpoint")
    try:
        while True:
            while len(ahead) < LOOK_AHEAD * endpoint.connections and (place := next(waiting, None)) is not None:
                ahead.append((place, [pool.submit(endpoint.ask, place.messages(asked, system_role), asked) for asked in place.asked]))
            if not ahead:
                return
            place, futures = ahead.popleft()
            yield place, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _reply(data: Any) -> Reply:
    """What a chat completion says.

    Raises:
        LookupError, TypeError, ValueError: it is none; another try may bring one.
    """
    if isinstance(data, dict) and not data.get("choices") and (error := data.get("error")):
        raise ValueError(error.get("message") or error if isinstance(error, dict) else error)
    choice = data["choices"][0]
    message, end = choice["message"], choice.get("finish_reason")
    if not isinstance(message, dict):
        raise TypeError(f"the message is {type(message).__name__}, not an object")
    content = message.get("content")
    refusal = message.get("refusal")
    if isinstance(content, list):  # thoughts, texts and refusals in parts
        refusal = refusal or " ".join(part["refusal"] for part in content if part["type"] == "refusal")
        content = "".join(part["text"] for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"the message's content is {type(content).__name__}, not a string")
    usage = data.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    tokens = counted if isinstance(counted, int) else 0
    if not content and refusal:
        return Reply(None, tokens, f"refused: {_shown(str(refusal))}")
    if end == "length" and not strip_thinking(content or ""):
        return Reply(None, tokens, CUT_OFF)
    if end and (content is None or (end == "content_filter" and not content)):
        return Reply(None, tokens, f"no content (finish_reason {_shown(str(end))})")
    if content is None:
        raise TypeError("the message has no content")
    return Reply(content, tokens)


def _shown(text: str) -> str:
    return " ".join(text.split())[:200]
