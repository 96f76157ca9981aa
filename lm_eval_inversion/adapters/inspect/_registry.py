"""What Inspect finds through the package's entry point."""

from lm_eval_inversion.adapters.inspect.scorers import inversion
from lm_eval_inversion.adapters.inspect.solvers import ask_queries
from lm_eval_inversion.adapters.inspect.tasks import prompt_inversion, prompt_inversion_ordinary, prompt_inversion_paper

__all__ = ["ask_queries", "inversion", "prompt_inversion", "prompt_inversion_ordinary", "prompt_inversion_paper"]
