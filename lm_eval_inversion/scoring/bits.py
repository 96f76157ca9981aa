"""Bits leaked: how much likelier the prompt is, for this inverter, given the outputs than given the null outputs.

Usable information for one inverter, not mutual information: a lower bound in spirit, comparable only with the same inverter.
"""

from __future__ import annotations

import math


def bits_above_null(nll_null: float, nll_outputs: float) -> float:
    """[-log p(prompt | null outputs) + log p(prompt | outputs)] in bits; arguments in nats. Negative when outputs mislead."""
    return (nll_null - nll_outputs) / math.log(2)
