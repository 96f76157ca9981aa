"""``python -m lm_eval_inversion.report RESULTS [--examples 8]``: short for ``lm-eval-inversion report``."""

from __future__ import annotations

import sys

from lm_eval_inversion.cli import main as run_verb


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    return run_verb(["report", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
