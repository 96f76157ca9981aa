"""Area under the ROC curve of scores that tell two kinds apart, with its interval over system prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lm_eval_inversion.scoring.uncertainty import fewest_prompts


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The chance that a positive has the higher score than a negative, ties counted half; NaN where there is none of either."""
    yes = np.array([score for score, is_one in zip(scores, positive) if is_one])
    no = np.array([score for score, is_one in zip(scores, positive) if not is_one])
    if not yes.size or not no.size:
        return math.nan
    return float(((yes[:, None] > no).sum() + 0.5 * (yes[:, None] == no).sum()) / (yes.size * no.size))


def auroc_interval(scores: Sequence[float], positive: Sequence[bool], groups: Sequence[str], resamples: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of ``auroc`` over secrets; draws that leave one class empty do not count.

    NaN where there are too few secrets for one, and where all draws are alike: that would claim certainty.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    parts, generator, found = list(members.values()), np.random.default_rng(0), []
    for _ in range(resamples):
        drawn = [index for part in generator.integers(0, len(parts), len(parts)) for index in parts[part]]
        found.append(auroc([scores[index] for index in drawn], [positive[index] for index in drawn]))
    if len(parts) < fewest_prompts() or np.isnan(found).all():
        return math.nan, math.nan
    low, high = np.nanquantile(found, [0.025, 0.975])
    return (float(low), float(high)) if low < high else (math.nan, math.nan)
