"""Task files; lm_eval reads this folder through the entry point group ``lm_eval.tasks``."""
