"""Conversations and the system-role guard: one code for both hosts.

Some chat templates refuse a system message, some drop it without a word. Either way the secret would not reach the
model and the run would measure nothing. ``detect_system_role`` finds out before the first request, ``conversation``
folds the prompt into the first user turn where there is no system role, and ``require_prompt_in_request`` checks every
finished request.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

SystemRole = Literal["system", "user"]
Message = dict[str, str]

SENTINEL = "sentinel-4f1c9e27 must reach the model"

logger = logging.getLogger(__name__)


def user_turn(text: str) -> list[Message]:
    """A conversation of one user message."""
    return [{"role": "user", "content": text}]


def conversation(system_prompt: str | None, turns: str | Sequence[Message], system_role: SystemRole = "system") -> list[Message]:
    """The messages of one conversation; without a system prompt, only the turns.

    Args:
        turns: one user message, or user and (scripted) assistant messages in turn, the user's first.
    """
    messages = user_turn(turns) if isinstance(turns, str) else [dict(turn) for turn in turns]
    if system_prompt is None:
        return messages
    if system_role == "user":
        first, *rest = messages
        return [{**first, "content": f"{system_prompt}\n\n{first['content']}"}, *rest]
    return [{"role": "system", "content": system_prompt}, *messages]


def detect_system_role(render: Callable[[list[Message]], Any]) -> SystemRole:
    """Whether a chat template passes a system message on, found by rendering a sentinel.

    Args:
        render: turns messages into the request (text, or a chat API's JSON).

    Returns:
        "system", or "user" where the template refuses or drops a system message (then one warning is logged). Another is logged where the
        prompt is written more than once.

    Raises:
        ValueError: not even a user message reaches the rendered request.
    """
    try:
        times = str(render(conversation(SENTINEL, "Hello!", "system"))).count(SENTINEL)
        reason = "drops the system message"
    except Exception as error:  # templates raise jinja2's TemplateError, hosts wrap it in their own
        times, reason = 0, f"refuses a system message ({type(error).__name__}: {error})"
    if times:
        _warn_of_repeats(times)
        return "system"
    times = str(render(conversation(SENTINEL, "Hello!", "user"))).count(SENTINEL)
    if not times:
        raise ValueError(
            "the model's chat template drops user messages too, so no system prompt can reach the model; "
            "give the model a chat template that renders its messages"
        )
    logger.warning(
        "The chat template %s: system prompts are put at the start of the first user message instead "
        "(recorded in the results as system_role=user).",
        reason,
    )
    _warn_of_repeats(times)
    return "user"


def _warn_of_repeats(times: int) -> None:
    """Tell where a chat template writes the system prompt more than once: a prompt that is read twice is another condition."""
    if times > 1:
        logger.warning(
            "The chat template writes the system prompt %d times into every request. Scores are those of a prompt that the model reads %d "
            "times; do not compare them with others, or use a chat template that writes it once.",
            times,
            times,
        )


def prompt_in_request(system_prompt: str, request: Any) -> bool:
    """Whether a rendered request carries the system prompt.

    Args:
        request: the rendered text, or a string of JSON messages (chat APIs).
    """
    text = str(request)
    wanted = system_prompt.strip()
    if wanted in text or json.dumps(wanted, ensure_ascii=False)[1:-1] in text or json.dumps(wanted)[1:-1] in text:
        return True
    # Templates may normalise white space; the words must still all be there, in order.
    return " ".join(wanted.split()) in " ".join(text.split())


def require_prompt_in_request(system_prompt: str, request: Any, prompt_id: str | None = None) -> None:
    """Check ``prompt_in_request``.

    Args:
        prompt_id: names the prompt in the error, because its text may be private.

    Raises:
        ValueError: the prompt is not in the request.
    """
    if not prompt_in_request(system_prompt, request):
        named = f"{prompt_id!r}" if prompt_id is not None else f"of {len(system_prompt.strip())} characters"
        raise ValueError(
            f"the chat template changed or dropped the system prompt {named}: the request that would be sent does not contain it; use a "
            "chat template that passes system messages on unchanged"
        )


def require_room(prompt_id: str, request_tokens: int, answer_tokens: int, context_tokens: int, mend: str) -> None:
    """Check that a request and its answer fit the model's context: hosts cut what is too long, at the system prompt's end.

    Args:
        mend: what to change, in the words of the host's options.

    Raises:
        ValueError: they do not fit.
    """
    if request_tokens + answer_tokens > context_tokens:
        raise ValueError(
            f"the request for system prompt {prompt_id!r} has {request_tokens} tokens; with {answer_tokens} tokens for the answer that is "
            f"more than the model's context of {context_tokens}, and its beginning, the system prompt, would be cut off: {mend}"
        )


def without_thinking(tokenizer: Any) -> dict[str, bool]:
    """What tells a chat template that the model shall not think first; nothing where it knows no such setting."""
    return {"enable_thinking": False} if "enable_thinking" in str(tokenizer.chat_template) else {}
