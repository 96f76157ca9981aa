"""Zero-config discovery: lm_eval finds task folders of installed packages through the entry point group ``lm_eval.tasks``.

lm_eval up to 0.4.13 does not read that group itself. A ``.pth`` line runs ``install`` at interpreter start; it places one import
hook that sleeps until ``lm_eval.tasks.manager`` is imported, and then lets ``TaskManager`` prepend the packages named by the
group to ``include_path``. Where lm_eval defines the group itself, nothing is touched. ``LM_EVAL_INVERSION_DISCOVERY=0`` switches
it off; ``--include_path "$(python -m lm_eval_inversion.path)"`` then does the same by hand.

This module runs in every Python process of the environment: standard library only, and nothing heavy of that.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

MANAGER_MODULE = "lm_eval.tasks.manager"
ENTRY_POINT_GROUP = "lm_eval.tasks"
OWN_GROUP_ATTRIBUTE = "TASKS_ENTRY_POINT_GROUP"  # defined by versions of lm_eval that read the group themselves
SWITCH = "LM_EVAL_INVERSION_DISCOVERY"


class _ManagerHook:
    """A meta-path finder that wraps the loader of one module, once."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != MANAGER_MODULE:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_extend(module: ModuleType) -> None:
            execute(module)
            extend_task_manager(module)

        spec.loader.exec_module = execute_and_extend  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Place the hook, unless it is switched off or there already."""
    if os.environ.get(SWITCH) == "0" or any(isinstance(finder, _ManagerHook) for finder in sys.meta_path):
        return
    if MANAGER_MODULE in sys.modules:
        extend_task_manager(sys.modules[MANAGER_MODULE])
    else:
        sys.meta_path.insert(0, _ManagerHook())  # type: ignore[arg-type]


def extend_task_manager(module: ModuleType) -> None:
    """Let ``TaskManager`` of ``lm_eval.tasks.manager`` also scan the folders of ``plugin_folders``."""
    manager = getattr(module, "TaskManager", None)
    if manager is None or hasattr(module, OWN_GROUP_ATTRIBUTE) or getattr(manager, "_reads_entry_points", False):
        return
    original = manager.__init__

    def initialise(self: Any, *arguments: Any, **keywords: Any) -> None:
        # Positional use stays as it is: (verbosity, include_path, ...).
        given = arguments[1] if len(arguments) > 1 else keywords.get("include_path")
        given_list = [] if not given else list(given) if isinstance(given, (list, tuple)) else [given]
        folders = [folder for folder in plugin_folders() if folder not in map(str, given_list)]
        if folders:
            paths = [*folders, *given_list]
            if len(arguments) > 1:
                arguments = (arguments[0], paths, *arguments[2:])
            else:
                keywords["include_path"] = paths
        original(self, *arguments, **keywords)

    manager.__init__ = initialise
    manager._reads_entry_points = True


def plugin_folders() -> list[str]:
    """Folders of all packages that the entry point group names; a broken entry is reported and left out."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    folders = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            spec = find_spec(entry.value)
        except ImportError as error:
            print(f"lm_eval.tasks entry point {entry.name!r} was left out: {error}", file=sys.stderr)
            continue
        if spec is not None and spec.submodule_search_locations:
            folders += list(spec.submodule_search_locations)
    return sorted(folders)
