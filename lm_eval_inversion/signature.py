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


def whole_seed(name: str, seed: Any) -> int:
    """A seed of a task as a whole number, which the command line of lm_eval hands over as -1.0 where -1 was typed.

    Raises:
        ValueError: it is none; ``name`` begins the message.
    """
    if isinstance(seed, float) and seed.is_integer():
        return int(seed)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"{name}={seed!r} is not a whole number")
    return seed
