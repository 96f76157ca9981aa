"""By what should candidates of identification be ranked? Nats of likelihood, of words, of both (as the package does), or units of noise?

Command::

    python -m lm_eval_inversion.training.collect --model FOLDER --source v1 --split dev --prompts 50 --shares ordinary16=16 \\
        --temperature 0.7 --message-tokens 64 --defence-share 0 --output dev.jsonl
    python benchmarks/identification_units.py dev.jsonl [--inverter default] [--limit N] [--cohort benchmarks/data/pairs_i.jsonl.xz]

The likelihood of a long prompt moves by more than that of a short one whatever is read. The noise of a prompt is how far its tokens'
likelihoods move between the halves of the answers without a system prompt. Every prompt is scored after the answers under every
other; top-1 is the mean over many draws of 15 decoys among the file's own prompts. With ``--cohort``, a file of training pairs, prompts are
also compared in units of how far their likelihood moves from one set of its outputs to the next (Z-norm of speaker verification), as seen
from the answers without a system prompt or from the mean over those sets. Two collections of the same model's answers differ as
much as two units do (``docs/LOG.md``): look at more than one. Takes 15 minutes for 50 prompts on one core, and a third more with a cohort.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from baselines import limited, read_answers
from tqdm import tqdm

from lm_eval_inversion import load_inverter
from lm_eval_inversion.scoring.identification import CANDIDATES, identification_scores
from lm_eval_inversion.training.pairs import load_pairs

DRAWS = 300  # of decoys
LEAST_NOISE = 1e-3  # nats; a prompt that the halves do not tell apart at all has no noise to divide by
POWERS = (0.0, 0.25, 0.5, 1.0)  # of the noise; 0 compares in nats


def noise(one: Sequence[float], other: Sequence[float]) -> float:
    """Root of the summed squares of how far each token's -log p moves between two sets of outputs that tell nothing of the prompt."""
    return max(LEAST_NOISE, float(np.linalg.norm(np.subtract(one, other))))


def cohort_sets(path: Path, count: int) -> list[list[str]]:
    """Outputs under the first so many system prompts of a file of training pairs.

    Raises:
        ValueError: the file has fewer, or cannot be read.
    """
    found = [pair.outputs for pair in load_pairs([path]) if pair.prompt][:count]
    if len(found) < count:
        raise ValueError(f"--cohort {path} has {len(found)} system prompts, not {count}")
    return found


def top1(scores: np.ndarray, draws: Sequence[Sequence[Sequence[int]]]) -> float:
    """Mean over draws and prompts.

    Args:
        scores: (prompts, prompts), of every prompt after the outputs of the first.
        draws: per draw and prompt, the candidates, the truth first.
    """
    return fmean(
        identification_scores(scores[truth, candidates].tolist())["top1"]
        for draw in draws
        for truth, candidates in enumerate(draw)
    )  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="as of benchmarks/baselines.py")
    parser.add_argument("--inverter", default="default")
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    parser.add_argument("--cohort", type=Path, help="training pairs whose outputs show how far a prompt's likelihood moves by accident")
    parser.add_argument("--cohort-sets", type=int, default=16, help="outputs of so many of its prompts (default 16)")
    options = parser.parse_args()
    try:
        answers = limited(read_answers(options.answers), options.limit)
        cohort = cohort_sets(options.cohort, options.cohort_sets) if options.cohort else []
    except ValueError as error:
        parser.error(str(error))
    texts = [prompt.text for prompt in answers.prompts]
    if len(texts) < CANDIDATES:
        parser.error(f"{options.answers} has {len(texts)} prompts; identification among {CANDIDATES} needs as many")
    inverter, lines = load_inverter(options.inverter).of(answers.secret), answers.null.lines

    def tokens_after(outputs: Sequence[str]) -> list[list[float]]:
        return inverter.token_nll([outputs] * len(texts), texts)

    floor = np.array(list(map(sum, tokens_after(lines))))
    noises = np.array([noise(even, odd) for even, odd in zip(tokens_after(lines[0::2]), tokens_after(lines[1::2]))])
    nats = np.array([floor - list(map(sum, tokens_after(outputs.lines))) for outputs in tqdm(answers.outputs, desc="prompts")])
    draw = random.Random(0)
    places = range(len(texts))
    draws = [
        [[truth, *draw.sample([place for place in places if place != truth], CANDIDATES - 1)] for truth in places] for _ in range(DRAWS)
    ]
    print(f"{options.inverter} {inverter.hash}, {len(texts)} prompts, {CANDIDATES} candidates, mean of {DRAWS} draws of decoys\n")
    words = np.array([inverter.word_evidence([outputs.lines] * len(texts), texts) for outputs in answers.outputs])
    of_null = np.array(inverter.word_evidence([lines] * len(texts), texts))
    print("| ranked by | top-1 |\n|---|---:|")
    print(f"| nats of likelihood and of words | {top1(nats + words, draws):.3f} |")
    print(f"| nats of words alone | {top1(words, draws):.3f} |")
    print(f"| the same, above those of the null answers | {top1(words - of_null, draws):.3f} |")
    print("\n| nats of likelihood divided by | top-1 |\n|---|---:|")
    for power in POWERS:
        print(f"| noise to the power of {power:g} | {top1(nats / noises**power, draws):.3f} |")
    if cohort:
        read = np.array([list(map(sum, tokens_after(outputs))) for outputs in tqdm(cohort, desc="cohort")])
        centre, spread = read.mean(0), read.std(0, ddof=1)
        print(f"| spread over {len(cohort)} sets of {options.cohort.name} | {top1(nats / spread, draws):.3f} |")
        print(f"| the same, above their mean | {top1((nats + centre - floor) / spread, draws):.3f} |")
        print(f"| nothing, above their mean | {top1(nats + centre - floor, draws):.3f} |")


if __name__ == "__main__":
    main()
