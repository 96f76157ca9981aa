"""How far a reconstruction can be trusted, told without the secret: a small logistic regression on what an attacker knows as well.

It is fitted on runs whose secrets are known (``training.confidence``) and says the chance that a reconstruction lies above the median
lift of those runs. It belongs to the inverter that it was fitted with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scipy.special import expit

SHIPPED = Path(__file__).with_name("confidence.json")


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
        return float(expit(odds))


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
