"""Which task of this package a run is of, whatever its user called it."""

from __future__ import annotations

from typing import Any

from lm_eval_inversion.tasks import BASE_TASK, protocol_makers

PACKAGE = "lm_eval_inversion"  # under which Inspect knows the tasks


def kind_of_log(log: Any) -> str:
    """The task of this package that a log of Inspect is of; its own name where that is not known.

    Inspect's registry knows a task that was renamed (``task_with``); one that a user's own task made and renamed left ``BASE_TASK``, or, in
    logs of before that, its description only.
    """
    own, metadata = protocol_makers(), log.eval.metadata or {}
    package, _, registered = str(log.eval.task_registry_name or "").partition("/")
    if package == PACKAGE and registered in own:
        return registered
    name = name_of_log(log)
    known = (name, metadata.get(BASE_TASK), _described().get(str(metadata.get("description"))))
    return next((task for task in known if task in own), name)


def name_of_log(log: Any) -> str:
    """The name of a log's task, without the package."""
    return str(log.eval.task).rpartition("/")[2]


def _described() -> dict[str, str]:
    """Description -> task, for logs of before ``BASE_TASK``."""
    from lm_eval_inversion import canary, exposure, leakage, protocol

    described = {found.description: name for name, found in protocol.TASKS.items()}
    described |= {description: name for name, (_, description) in leakage.TASKS.items()}
    return described | {description: name for tasks in (canary.TASKS, exposure.TASKS) for name, description in tasks.items()}
