"""Identification: can the true prompt be picked out among decoys?

Candidates are ranked by pointwise mutual information, NLL under the null minus NLL under the outputs, because raw NLL favours prompts
that are likely anyway; to it is added what the words of the outputs say (``Inverter.word_evidence``). Chance is 1 / candidates by
construction.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from statistics import fmean

CANDIDATES = 16


def choose_decoys(truths: Iterable[str], pool: Iterable[str], seed: int, candidates: int = CANDIDATES) -> list[list[str]]:
    """``candidates - 1`` other prompts for every truth, each a pure function of truth, pool and seed.

    So the decoys of a prompt do not depend on ``--limit``, on the rank that scores it, or on the host.

    Raises:
        ValueError: the pool holds too few other prompts.
    """
    ordered = sorted(set(pool))
    chosen = []
    for truth in truths:
        place = bisect_left(ordered, truth)
        own = ordered[place : place + 1] == [truth]
        others = len(ordered) - own
        if others < candidates - 1:
            raise ValueError(f"identification among {candidates} needs {candidates - 1} other prompts, the pool holds {others}")
        # Places among the others: those behind the truth stand one further in the pool.
        picked = random.Random(f"{seed}/{truth}").sample(range(others), candidates - 1)
        chosen.append([ordered[pick + (own and pick >= place)] for pick in picked])
    return chosen


def rank_of_first(scores: Sequence[float]) -> float:
    """Rank (from 1) of the first score among all, higher is better; ties share the mean of their ranks."""
    first, *rest = scores
    return 1.0 + sum(score > first for score in rest) + 0.5 * sum(score == first for score in rest)


def identification_scores(evidence: Sequence[float]) -> dict[str, float]:
    """``top1`` (0 or 1) and ``mrr`` (1 / rank) of the first candidate, the truth.

    Where others tie with it, both are the mean over the places that they share, which keeps them at chance where all are alike.

    Args:
        evidence: what speaks for every candidate, in bits or nats, the truth first.
    """
    first, *rest = evidence
    ties = sum(score == first for score in rest)
    ahead = sum(score > first for score in rest)
    return {"top1": 0.0 if ahead else 1.0 / (1 + ties), "mrr": fmean(1.0 / place for place in range(ahead + 1, ahead + ties + 2))}
