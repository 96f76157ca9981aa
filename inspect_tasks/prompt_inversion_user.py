"""File form of the package's task: ``inspect eval inspect_tasks/prompt_inversion_user.py``.

For published results use the package form, ``inspect eval lm_eval_inversion/prompt_inversion_user``: its log carries the version.
"""

from typing import Any

from inspect_ai import Task, task

from lm_eval_inversion.adapters.inspect import tasks


@task
def prompt_inversion_user(**task_args: Any) -> Task:
    """See ``lm_eval_inversion.adapters.inspect.tasks.prompt_inversion_user`` for the arguments."""
    return tasks.prompt_inversion_user(**task_args)
