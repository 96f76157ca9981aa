"""Inverters: outputs of a model in, the system prompt that they betray out."""

from lm_eval_inversion.inverter.base import Inverter
from lm_eval_inversion.inverter.checkpoint import CheckpointError
from lm_eval_inversion.inverter.registry import check_inverter, load_inverter

__all__ = ["CheckpointError", "Inverter", "check_inverter", "load_inverter"]
