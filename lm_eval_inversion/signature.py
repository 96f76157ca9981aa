"""What every result says of the software that made it."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import lm_eval_inversion


def run_signature(host: str, system_role: str | None) -> dict[str, Any]:
    """Versions of package, host and libraries, and how the system prompt reached the model (None where not known yet)."""
    return {
        "package_version": lm_eval_inversion.__version__,
        "system_role": system_role,
        "host": f"{host} {version(host)}",
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
