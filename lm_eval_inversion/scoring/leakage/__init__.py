"""Leak detection: how much of a secret stands in an output, whatever its form."""

from lm_eval_inversion.scoring.leakage.detector import Leak, detect_leak

__all__ = ["Leak", "detect_leak"]
