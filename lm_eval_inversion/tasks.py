"""Which tasks there are, what makes their protocols, and which parameters those take: what both hosts, plans and reports ask."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

# Key of a configuration and of results: the task of this package. lm_eval's results have it where a user's own task includes one.
BASE_TASK = "base_task"


def protocol_makers() -> dict[str, Callable[..., Any]]:
    """Task -> what checks the user's parameters and builds the task's protocol; called with the task's name and keywords.

    The one place that lists all tasks: a new kind of task needs one line here.
    """
    from lm_eval_inversion import canary, exposure, leakage, protocol

    return {
        **dict.fromkeys(protocol.TASKS, protocol.make_protocol),
        **dict.fromkeys(leakage.TASKS, leakage.make_leakage_protocol),
        **dict.fromkeys(canary.TASKS, canary.make_canary_protocol),
        **dict.fromkeys(exposure.TASKS, exposure.make_exposure_protocol),
    }


def task_parameters(task: str) -> dict[str, Any]:
    """Parameter of a task (a name in ``--metadata`` and ``-T``) -> its default.

    lm_eval merges ``--model_args`` into the dictionary of ``--metadata``, so none may be called as a common model argument is.

    Raises:
        KeyError: there is no such task.
    """
    found = list(signature(protocol_makers()[task]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in found}
