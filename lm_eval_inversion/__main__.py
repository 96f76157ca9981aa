"""``python -m lm_eval_inversion VERB …``: the same as the console script ``lm-eval-inversion``."""

from __future__ import annotations

import sys

from lm_eval_inversion.cli import main

if __name__ == "__main__":
    sys.exit(main())
