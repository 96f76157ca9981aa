"""How far a reconstruction can be trusted, told without the secret: a small logistic regression on what an attacker knows as well.

It is fitted on runs whose secrets are known (``training.confidence``) and says the chance that a reconstruction lies above the median
lift of those runs. It belongs to the inverter that it was fitted with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_inversion.scoring.uncertainty import fewest_prompts

SHIPPED = Path(__file__).with_name("confidence.json")
PENALTY = 1.0  # on the squared weights of standardised features, beside the summed log loss
STEPS, FOLDS = 50, 10


@dataclass(frozen=True)
class Confidence:
    """A fitted model of "the lift is above ``threshold``".

    Attributes:
        inverter_hash: of the inverter whose reconstructions it judges.
        threshold: in token F1.
        weights: feature -> weight, for standardised features.
        means: feature -> mean.
        scales: feature -> standard deviation.
        intercept: of the log-odds.
        fitted: how well, on what and with which settings, for readers.
    """

    inverter_hash: str
    threshold: float
    weights: dict[str, float]
    means: dict[str, float]
    scales: dict[str, float]
    intercept: float
    fitted: dict[str, Any] = field(default_factory=dict)

    def of(self, features: Mapping[str, float]) -> float:
        """The chance, in [0, 1], that the lift of a reconstruction with these features is above the threshold.

        Raises:
            ValueError: a feature is missing.
        """
        missing = sorted(set(self.weights) - set(features))
        if missing:
            raise ValueError(f"the confidence needs the features {', '.join(missing)}, which were not measured: fit it anew")
        odds = self.intercept + sum(
            weight * (features[name] - self.means[name]) / self.scales[name] for name, weight in self.weights.items()
        )
        return float(_logistic(np.array(odds)))


def load_confidence(path: Path) -> Confidence:
    """Read what ``training.confidence`` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; python -m lm_eval_inversion.training.confidence writes one")
    try:
        found = Confidence(**json.loads(path.read_text(encoding="utf-8")))
        numbers = [found.threshold, found.intercept, *found.weights.values(), *found.means.values(), *found.scales.values()]
        if not set(found.weights) == set(found.means) == set(found.scales) or not all(map(math.isfinite, numbers)):
            raise TypeError("weights, means and scales do not fit together")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no fitted confidence ({error}); python -m lm_eval_inversion.training.confidence writes one") from error
    return found


def save_confidence(confidence: Confidence, path: Path) -> None:
    """Write a fitted model as JSON."""
    path.write_text(json.dumps(asdict(confidence), indent=2) + "\n", encoding="utf-8")


def fit(features: Sequence[Mapping[str, float]], lifts: Sequence[float], inverter_hash: str) -> Confidence:
    """Fit the chance of a lift above the median of ``lifts``.

    Args:
        features: per reconstruction, all with the same names.
        lifts: token F1 above the floor, one each.
        inverter_hash: of the inverter that made them.

    Raises:
        ValueError: there are no two reconstructions on each side of the median.
    """
    threshold = float(np.median(lifts))
    above = np.asarray(lifts) > threshold
    if min(above.sum(), (~above).sum()) < 2:
        raise ValueError(f"{len(lifts)} reconstructions, {int(above.sum())} above the median lift: give runs of more system prompts")
    return _fit(features, above, threshold, inverter_hash)


def _fit(features: Sequence[Mapping[str, float]], above: np.ndarray, threshold: float, inverter_hash: str) -> Confidence:
    names = sorted(features[0])
    table = np.array([[row[name] for name in names] for row in features], dtype=float)
    means, scales = table.mean(0), table.std(0)
    scales[scales < 1e-9] = 1.0  # a feature that never varies says nothing
    design = np.column_stack([np.ones(len(table)), (table - means) / scales])
    penalty = np.diag([0.0, *[PENALTY] * len(names)])
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):  # Newton's method; the penalty keeps the weights finite where the classes can be separated
        chance = _logistic(design @ weights)
        slope = design.T @ (above - chance) - penalty @ weights
        curvature = design.T @ (design * (chance * (1 - chance))[:, None]) + penalty + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(curvature, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    intercept, *rest = weights.tolist()
    return Confidence(
        inverter_hash, threshold, dict(zip(names, rest)), dict(zip(names, means.tolist())), dict(zip(names, scales.tolist())), intercept
    )


def cross_validated(
    features: Sequence[Mapping[str, float]], lifts: Sequence[float], groups: Sequence[str], folds: int = FOLDS
) -> list[float]:
    """The chance of each reconstruction by a fit on the others, one secret always on one side only.

    The threshold is the median of all: it is part of the question, not of the answer.

    Args:
        features: see ``fit``.
        lifts: likewise.
        groups: the secret behind each reconstruction; several runs may share it.
        folds: parts, at most as many as there are secrets.

    Raises:
        ValueError: without one part, all others lie on one side of the median.
    """
    above = np.asarray(lifts) > np.median(lifts)
    known = sorted(set(groups))
    fold = {group: place % folds for place, group in enumerate(np.random.default_rng(0).permutation(known).tolist())}
    chances = [math.nan] * len(lifts)
    for part in sorted(set(fold.values())):
        rest = [index for index, group in enumerate(groups) if fold[group] != part]
        if not rest or len(set(above[rest].tolist())) < 2:
            raise ValueError(f"{len(known)} system prompts are too few to cross-validate; give runs of more")
        fitted = _fit([features[index] for index in rest], above[rest], 0.0, "")
        for index, group in enumerate(groups):
            if fold[group] == part:
                chances[index] = fitted.of(features[index])
    return chances


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


def _logistic(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
