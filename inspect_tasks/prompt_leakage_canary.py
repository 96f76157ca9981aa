"""File form of the package's task: ``inspect eval inspect_tasks/prompt_leakage_canary.py``.

For published results use the package form, ``inspect eval lm_eval_inversion/prompt_leakage_canary``: its log carries the version.
"""

from typing import Any

from inspect_ai import Task, task

from lm_eval_inversion.adapters.inspect import tasks


@task
def prompt_leakage_canary(**task_args: Any) -> Task:
    """See ``lm_eval_inversion.adapters.inspect.tasks.prompt_leakage_canary`` for the arguments."""
    return tasks.prompt_leakage_canary(**task_args)
