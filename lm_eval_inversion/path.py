"""Print the folder of the task files: ``lm_eval --include_path "$(python -m lm_eval_inversion.path)"``."""

from __future__ import annotations

from pathlib import Path

TASKS_FOLDER = Path(__file__).parent / "adapters" / "lm_eval" / "tasks"

if __name__ == "__main__":
    print(TASKS_FOLDER)
