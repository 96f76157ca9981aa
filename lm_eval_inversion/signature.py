"""What every result says of the software that made it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import lm_eval_inversion

HASH_ENDING = "_hash"  # of a signature's keys that say what was asked, and with what it was scored
MODEL_NAMES = ("pretrained", "tokenizer", "model", "model_path", "tokenizer_path", "peft")  # arguments that name a model or its folder
# Key of lm_eval's results: those that named a folder or file where the run was. "demo/model" there may be a hub's name elsewhere.
LOCAL_ARGUMENTS = "local_arguments"


def local_arguments(arguments: Mapping[str, Any]) -> dict[str, list[str]]:
    """``LOCAL_ARGUMENTS`` -> which of the model's arguments name something on this machine; {} where no argument of a model is known."""
    names = [name for name in MODEL_NAMES if isinstance(arguments.get(name), str)]
    return {LOCAL_ARGUMENTS: [name for name in names if os.path.exists(arguments[name])]} if names else {}


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
