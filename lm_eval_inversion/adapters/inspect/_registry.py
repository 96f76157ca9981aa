"""What Inspect finds through the package's entry point."""

from lm_eval_inversion.adapters.inspect.likelihoods import exposure, rank_candidates
from lm_eval_inversion.adapters.inspect.redacting import Redaction
from lm_eval_inversion.adapters.inspect.scorers import canaries, inversion, leakage
from lm_eval_inversion.adapters.inspect.solvers import ask_queries, refuse_unscored
from lm_eval_inversion.adapters.inspect.tasks import (
    prompt_inversion,
    prompt_inversion_ordinary,
    prompt_inversion_paper,
    prompt_inversion_user,
    prompt_leakage_attacks,
    prompt_leakage_canary,
    prompt_leakage_exposure,
    prompt_leakage_multiturn,
)

__all__ = [
    "Redaction",
    "ask_queries",
    "canaries",
    "exposure",
    "inversion",
    "leakage",
    "prompt_inversion",
    "prompt_inversion_ordinary",
    "prompt_inversion_paper",
    "prompt_inversion_user",
    "prompt_leakage_attacks",
    "prompt_leakage_canary",
    "prompt_leakage_exposure",
    "prompt_leakage_multiturn",
    "rank_candidates",
    "refuse_unscored",
]
