"""lm_eval with this package's tasks alone: indexing the thousands that ship with lm_eval takes it a quarter of a minute each time.

``python -m own_tasks ARGUMENTS`` is its command line, for tests that start it anew.
"""

from __future__ import annotations

import functools
from typing import Any


def own_task_manager(metadata: dict[str, Any]) -> Any:
    """A ``TaskManager`` that finds what the entry point names, and nothing else."""
    from lm_eval.tasks import TaskManager

    return TaskManager(metadata=metadata, include_defaults=False)


def index_own_tasks_only() -> None:
    """Let every ``TaskManager`` of this process, that of the command line included, leave out the tasks that ship with lm_eval."""
    from lm_eval.tasks import TaskManager

    TaskManager.__init__ = functools.partialmethod(TaskManager.__init__, include_defaults=False)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    index_own_tasks_only()
    cli_evaluate()
