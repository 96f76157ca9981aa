"""Fit the confidence of an inverter on reranked runs whose system prompts are known, such as those of the ``dev`` split.

Command, after ``lm-eval-inversion rerank`` of each run (one model a file)::

    lm-eval-inversion rerank results/dev --model FOLDER_OR_HUB_NAME -o dev.jsonl
    python -m lm_eval_inversion.training.confidence dev.jsonl other_model.jsonl -o confidence.json

It prints how well the fit does on system prompts that it has not seen (cross-validated) and writes the fit on all of them.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lm_eval_inversion.confidence import Confidence, save_confidence
from lm_eval_inversion.reranking import FEATURES, read_reranked
from lm_eval_inversion.scoring.auroc import auroc, auroc_interval

SMALLEST = 20  # reconstructions; fewer tell nothing about ten held-out parts
PENALTY = 1.0  # on half of the squared weights of standardised features, beside the summed log loss
FOLDS = 10  # parts of the secrets, or as many as there are


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
    scaler = StandardScaler()
    design = scaler.fit_transform(np.array([[row[name] for name in names] for row in features], dtype=float))
    # The penalty keeps the weights finite where the classes can be separated.
    found = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=1000).fit(design, above)
    weights, means, scales = (
        dict(zip(names, values.tolist())) for values in (found.coef_[0], scaler.mean_, scaler.scale_)
    )  # fmt: skip
    return Confidence(inverter_hash, threshold, weights, means, scales, float(found.intercept_[0]))


def cross_validated(features: Sequence[Mapping[str, float]], lifts: Sequence[float], groups: Sequence[str]) -> list[float]:
    """The chance of each reconstruction by a fit on the others (``FOLDS`` parts), one secret always on one side only.

    The threshold is the median of all: it is part of the question, not of the answer.

    Args:
        features: see ``fit``.
        lifts: likewise.
        groups: the secret behind each reconstruction; several runs may share it.

    Raises:
        ValueError: without one part, all others lie on one side of the median.
    """
    above = np.asarray(lifts) > np.median(lifts)
    known = sorted(set(groups))
    fold = {group: place % FOLDS for place, group in enumerate(np.random.default_rng(0).permutation(known).tolist())}
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


def fit_reranked(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = FEATURES) -> Confidence:
    """Fit on lines of ``read_reranked``; what the fit is worth stands in its ``fitted``.

    Args:
        rows: of one inverter, of any number of runs.
        names: features that the fit may use.

    Raises:
        ValueError: too few rows, several inverters, rows without a feature, or one secret twice in one run.
    """
    if len(rows) < SMALLEST:
        raise ValueError(f"{len(rows)} reconstructions are too few to fit on; give at least {SMALLEST}")
    inverters = sorted({row["inverter_hash"] for row in rows})
    if len(inverters) > 1:
        raise ValueError(f"the files are of several inverters ({', '.join(inverters)}); rerank all runs with one --inverter")
    types = sorted({row.get("inverter_dtype", "auto") for row in rows})
    if len(types) > 1:
        raise ValueError(f"the inverter computed in several types ({', '.join(types)}); give runs of one inverter_dtype")
    lacking = [name for name in names if any(name not in row["features"] for row in rows)]
    if lacking:
        raise ValueError(f"the files lack {', '.join(lacking)}; known: {', '.join(sorted(rows[0]['features']))}")
    twice = [key for key, number in Counter((row["run"], row["prompt_id"], row["truth"]) for row in rows).items() if number > 1]
    if twice:
        raise ValueError(f"system prompt {twice[0][1]} of {twice[0][0]} is there {len(twice)} times too often; give each run once")
    measured = [{name: float(row["features"][name]) for name in names} for row in rows]
    lifts, secrets = [float(row["lift"]) for row in rows], [row["truth"] for row in rows]
    fitted = fit(measured, lifts, inverters[0])
    above = [lift > fitted.threshold for lift in lifts]
    chances = cross_validated(measured, lifts, secrets)
    low, high = auroc_interval(chances, above, secrets)
    alone = {name: auroc([row[name] for row in measured], above) for name in names}
    return replace(
        fitted,
        fitted={
            "auroc": auroc(chances, above),
            "auroc_interval": [low, high] if low < high else None,
            "brier": fmean((chance - is_above) ** 2 for chance, is_above in zip(chances, above)),
            "auroc_of_single_features": alone,
            "reconstructions": len(rows),
            "system_prompts": len(set(secrets)),
            "models": dict(Counter(Path(row["target_model"]).name for row in rows)),
            "tasks": dict(Counter(row["task"] for row in rows)),
        },
    )


def describe(found: Confidence) -> str:
    """A fit in a few lines."""
    about = found.fitted
    interval, single = about["auroc_interval"], about["auroc_of_single_features"]
    told = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ", too few for an interval"
    return "\n".join([
        f"{about['reconstructions']} reconstructions of {about['system_prompts']} system prompts, inverter {found.inverter_hash}",
        f"a lift above the median ({found.threshold:.3f}), cross-validated: AUROC {about['auroc']:.3f}{told}, "
        f"Brier score {about['brier']:.3f} (a coin: 0.250)",
        *(f"  {name}: weight {found.weights[name]:+.2f}, alone AUROC {alone:.3f}" for name, alone in single.items()),
    ])  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.confidence", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("reranked", type=Path, nargs="+", metavar="FILE", help="what lm-eval-inversion rerank -o wrote")
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=list(FEATURES), help="default: all")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="for rerank --confidence FILE")
    given = parser.parse_args(arguments)
    try:
        found = fit_reranked([row for path in given.reranked for row in read_reranked(path)], given.features)
        save_confidence(found, given.output)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(describe(found))


if __name__ == "__main__":
    main()
