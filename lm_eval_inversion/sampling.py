"""The settings with which the evaluated model is sampled: what they mean in all hosts and back ends, and which are refused."""

from __future__ import annotations

import math
from typing import Any

from lm_eval_inversion.parameters import flag

TEMPERATURE = 0.7  # of the evaluated model, unless the user says otherwise
API_SEED = 1234  # sent to back ends that take a seed; the lm_eval default
# What else the longest answer is called, beside the harness's ``max_gen_toks``, which stands in the task's own settings and would win.
LIMIT_NAMES = ("max_new_tokens", "max_completion_tokens", "max_tokens")
# Not ``best_of`` and ``num_beams``, which choose among several answers and return one.
ANSWER_NAMES = ("n", "num_return_sequences")


def with_one_limit(settings: dict[str, Any]) -> dict[str, Any]:
    """Generation settings in which the longest answer has the harness's name, whichever it was given.

    Raises:
        ValueError: a limit is not a whole number of at least 1; the message has the name that it was given under.
    """
    limits = {name: _limit(name, settings[name]) for name in (*LIMIT_NAMES, "max_gen_toks") if name in settings}
    others = {name: value for name, value in settings.items() if name not in LIMIT_NAMES}
    return {**others, "max_gen_toks": next(iter(limits.values()))} if limits else others


def _limit(name: str, value: Any) -> int:
    """A longest answer; the harness reads it from a text or a float, too, but some of its back ends pass it on as it is."""
    readable = isinstance(value, (int, str)) or (isinstance(value, float) and value.is_integer())
    try:
        found = int(value) if readable and not isinstance(value, bool) else 0
    except ValueError:
        found = 0
    if found < 1:
        raise ValueError(f"{name}={value!r}: give a whole number of at least 1, or leave it out for the task's own longest answer")
    return found


def normalise_sampling(settings: dict[str, Any]) -> dict[str, Any]:
    """Make ``do_sample`` follow ``temperature``, on which hosts and back ends disagree, and check the rest that a run depends on.

    Raises:
        ValueError: a setting has a value that it cannot have, or asks for several answers; the message names it and the mend.
    """
    found = with_one_limit(settings)
    temperature = found.get("temperature", TEMPERATURE)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature!r}: give a number of at least 0")
    if not flag("do_sample", found.get("do_sample", True)):
        temperature = 0.0
    for name in ANSWER_NAMES:
        # Back ends return the answers of all requests in one list, where a second answer would pass as that to the next request.
        if found.get(name, 1) not in (1, None):
            raise ValueError(f"{name}={found[name]!r}: a task reads one answer to each request; give {name}=1, or leave it out")
    if "until" in found:
        found["until"] = _stops(found["until"])
    return {**found, "temperature": float(temperature), "do_sample": temperature > 0}


def _stops(value: Any) -> list[str]:
    """The texts that end an answer, as a list; none for None, of which some of the harness's back ends make a stop text."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"until={value!r}: give a text or a list of texts that end an answer, [] for none")
    return list(texts)
