"""Scores how easily a model's hidden system prompt is recovered: a plugin for lm-evaluation-harness and Inspect.

The public API is loaded on first use, so importing the package loads neither torch nor a host.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval_inversion.evaluation import Evaluation as Evaluation
    from lm_eval_inversion.evaluation import PromptResult as PromptResult
    from lm_eval_inversion.evaluation import evaluate as evaluate
    from lm_eval_inversion.inverter import Inverter as Inverter
    from lm_eval_inversion.inverter import load_inverter as load_inverter
    from lm_eval_inversion.outputs import Outputs as Outputs
    from lm_eval_inversion.outputs import parse_outputs as parse_outputs
    from lm_eval_inversion.prompts import SystemPrompt as SystemPrompt
    from lm_eval_inversion.prompts import load_prompts as load_prompts
    from lm_eval_inversion.queries import load_query_set as load_query_set
    from lm_eval_inversion.scoring import score_reconstruction as score_reconstruction
    from lm_eval_inversion.scoring.leakage import Leak as Leak
    from lm_eval_inversion.scoring.leakage import detect_leak as detect_leak

    __version__: str

_HOME = {
    "Evaluation": "evaluation",
    "Inverter": "inverter",
    "Leak": "scoring.leakage",
    "Outputs": "outputs",
    "PromptResult": "evaluation",
    "SystemPrompt": "prompts",
    "detect_leak": "scoring.leakage",
    "evaluate": "evaluation",
    "load_inverter": "inverter",
    "load_prompts": "prompts",
    "load_query_set": "queries",
    "parse_outputs": "outputs",
    "score_reconstruction": "scoring",
}
__all__ = [*_HOME, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return globals().setdefault(name, _version())
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def _version() -> str:
    # Imported late: adapters/lm_eval/discovery.py imports this package in every process of the environment.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lm-eval-inversion")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)
