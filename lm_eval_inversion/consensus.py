"""Which of several reconstructions to give: the one that the others agree with most.

A greedy reconstruction follows one likeliest word after another, and one early word decides all that follows. Several are drawn instead,
which say together what the inverter is sure of, and that one is given which has the most words in common with the others: the choice of
least expected loss, if the secret is as likely as a draw to be any of them (minimum Bayes risk, Kumar and Byrne 2004; of draws, Eikema and
Aziz 2020). The draws hang on nothing but the outputs. What it is worth: ``docs/LOG.md``, "The text that others agree with".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from lm_eval_inversion.inverter.base import Inverter, OutputSets
from lm_eval_inversion.scoring.text import token_f1
from lm_eval_inversion.signature import whole_seed

SAMPLES = 0  # beside the greedy reconstruction, where nobody asks for more: on a CPU they take longer than all the rest
MOST_SAMPLES = 256
TEMPERATURE, SEED = 0.8, 0


def whole_samples(given: Any) -> int:
    """A number of sampled reconstructions, as configurations, command lines and Python hand it over.

    Raises:
        ValueError: it is not a whole number from 0 to ``MOST_SAMPLES``.
    """
    number = whole_seed("inverter_samples", given)
    if not 0 <= number <= MOST_SAMPLES:
        raise ValueError(
            f"inverter_samples={number}: give how many reconstructions are sampled, from 0 (the greedy one alone) to {MOST_SAMPLES}"
        )
    return number


def agreements(texts: Sequence[str]) -> list[float]:
    """Mean token F1 of each text with the others, from 0 to 1; 1 for a single one."""
    shared: list[list[float]] = [[] for _ in texts]
    for place, other in combinations(range(len(texts)), 2):
        found = 1.0 if texts[place] == texts[other] else token_f1(texts[place], texts[other])
        shared[place].append(found)
        shared[other].append(found)
    return [fmean(own) if own else 1.0 for own in shared]


def most_agreed(texts: Sequence[str]) -> int:
    """The place of the text that the others agree with most; of equals the first."""
    found = agreements(texts)
    return found.index(max(found))


def reconstruct(
    inverter: Inverter, outputs: OutputSets, inverter_samples: int, max_new_tokens: int, batch_size: int | None = None
) -> list[str]:
    """One reconstruction per system prompt: the most agreed with of the greedy one and those sampled.

    Args:
        inverter: one that cannot sample writes what it writes.
        outputs: see ``Inverter.invert``.
        inverter_samples: how many; 0 gives the greedy reconstruction.
        max_new_tokens: see ``Inverter.invert``.
        batch_size: of greedy reconstructions, see ``Inverter.invert``.
    """
    if not inverter_samples or not inverter.has_sampling():
        return inverter.invert(outputs, max_new_tokens, batch_size=batch_size)
    return [texts[most_agreed(texts)] for texts in inverter.sample(outputs, inverter_samples, TEMPERATURE, SEED, max_new_tokens)]
