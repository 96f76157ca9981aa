"""The parameters that users give to any task, and which of them are refused: no run may go on without what was asked for."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lm_eval_inversion.tasks import protocol_makers, task_parameters

logger = logging.getLogger(__name__)

LIKENESS = 0.8  # of two names of which one is a misspelt other
NAMES_ONE = {"prompts": "file", "attacks": "file", "inverter": "inverter"}  # parameter -> what it names one of
# Options of Inspect, which split a value at its commas, quoted or not -> how else one gets through.
COMMAS = {
    "-T": 'write "{name}: {value}" into a YAML file and give --task-config FILE.yaml, or rename it',
    "-S": "rename it",
}


@lru_cache(maxsize=1)
def known_parameters() -> tuple[str, ...]:
    """Of all tasks: one command may hold several, and each passes over what only the others know."""
    return tuple(dict.fromkeys([*(name for task in protocol_makers() for name in task_parameters(task)), "redact"]))


def refuse_slips(given: Iterable[str], task: str, option: str, known: Sequence[str] | None = None) -> list[str]:
    """Check the names of parameters; returns those that are not known.

    Args:
        given: as the user wrote them.
        task: that they were given to.
        option: of the host that took them, as in "--metadata".
        known: names of parameters; None means those of all tasks.

    Raises:
        ValueError: one is a parameter's name but for a slip.
    """
    known = known_parameters() if known is None else known
    unknown = [name for name in given if name not in known]
    for name in unknown:
        if meant := difflib.get_close_matches(name, known, 1, cutoff=LIKENESS):
            raise ValueError(f"{option} {name}=… is no parameter of {task}; did you mean {meant[0]}?")
    return unknown


def refuse_unserved(unused: Mapping[str, Any], task: str, option: str) -> None:
    """Refuse what a run without it would not only leave out but belie: secrecy, prompts of the user's own, a defence.

    Args:
        unused: name -> value of the parameters that were given and that the task does not use.
        task: that they were given to.
        option: of the host that took them, as in "-T".

    Raises:
        ValueError: one of them is such a parameter.
    """
    from lm_eval_inversion.queries.defences import load_defence

    lost = {
        "redact": flag("redact", unused.get("redact", False)),
        "prompts": unused.get("prompts") is not None,
        "defence": load_defence(unused.get("defence")).id != "none",
    }
    for name in (name for name, asked in lost.items() if asked):
        raise ValueError(f"{task} has no {name}, and would run without it: leave {option} {name}=… out, or give it to other tasks apart")


def flag(name: str, value: Any) -> bool:
    """A parameter that is true or false; hosts hand it over as they read it, as a word or a number too.

    Raises:
        ValueError: it is neither.
    """
    words = {"true": True, "1": True, "false": False, "0": False}
    found = words.get(str(value).lower())
    if found is None:
        raise ValueError(f"{name}={value!r} is neither true nor false; give one of them")
    return found


def check_given(task: str, option: str, **given: Any) -> None:
    """Refuse parameters without a value, which hosts hand over as None and which do not stand for the task's own, and lists of files.

    Args:
        task: that they were given to.
        option: of the host that took them, as in "--metadata".
        given: name -> value.

    Raises:
        ValueError: one is None, or see ``refuse_lists``; the message names it.
    """
    refuse_lists(task, option, **given)
    for name in (name for name, value in given.items() if value is None):
        raise ValueError(f"{option} {name}= names no {name} for {task}; give a value, or leave the parameter out")


def refuse_lists(task: str, option: str, **given: Any) -> None:
    """Refuse several files where one is read. Taken as a text, the list would be a file of a strange name that is not there.

    Args:
        task: or scorer that they were given to.
        option: of the host that took them, as in "-T".
        given: name -> value.

    Raises:
        ValueError: several files or inverters are given; the message says so, and how a name with a comma in it is given.
    """
    for name, value in given.items():
        if name not in NAMES_ONE or not isinstance(value, (list, tuple)):
            continue
        mend = "put all into it, or run once for each" if NAMES_ONE[name] == "file" else "run once for each"
        if option in COMMAS:
            whole = ",".join(map(str, value))
            mend += f". If {whole} is the name of one: {option} splits it at its commas, quoted too; " + COMMAS[option].format(
                name=name, value=whole
            )
        raise ValueError(f"{name}={value!r} is a list, and {task} takes one {NAMES_ONE[name]}; {mend}")
