"""The benchmark's system prompts, and files that users bring."""

from lm_eval_inversion.prompts.loading import PROMPT_SETS, load_prompts, prompts_hash, source_signature
from lm_eval_inversion.prompts.schema import Attribute, SystemPrompt

__all__ = ["PROMPT_SETS", "Attribute", "SystemPrompt", "load_prompts", "prompts_hash", "source_signature"]
