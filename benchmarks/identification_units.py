"""What it is worth to compare candidates in units of their noise, on the same answers.

Command::

    python -m lm_eval_inversion.training.collect --model FOLDER --source v1 --split dev --prompts 50 --shares ordinary16=16 \\
        --temperature 0.7 --message-tokens 64 --defence-share 0 --output dev.jsonl
    python benchmarks/identification_units.py dev.jsonl

Of every prompt the same likelihoods of the same 16 candidates, ranked by pointwise mutual information as it is, in nats, and in units of
each candidate's noise (``scoring.identification.noise``): top-1, and in how many prompts only the one or only the other finds the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from baselines import filling_of, limited, read_answers
from tqdm import tqdm

from lm_eval_inversion import load_inverter
from lm_eval_inversion.evaluation import decoys_for, null_condition
from lm_eval_inversion.report.tables import metric_estimate
from lm_eval_inversion.scoring.identification import identification_scores


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="as of benchmarks/baselines.py")
    parser.add_argument("--inverter", default="default")
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    options = parser.parse_args()
    try:
        answers = limited(read_answers(options.answers), options.limit)
    except ValueError as error:
        parser.error(str(error))
    inverter = load_inverter(options.inverter).of(answers.secret)
    null = null_condition(inverter, answers.null.lines)
    decoys = dict(zip(answers.pool, decoys_for(answers.pool, answers.seed, filling_of(answers.secret))))
    found: dict[str, list[float]] = {"nats": [], "units of noise": []}
    for prompt, outputs in zip(tqdm(answers.prompts, desc="prompts"), answers.outputs):
        candidates = [prompt.text, *decoys[prompt.text]]
        pmi = null.pmi(outputs.lines, candidates)
        found["nats"].append(identification_scores(pmi)["top1"])
        found["units of noise"].append(null.identify(candidates, pmi)["top1"])
    print(f"{options.inverter} {inverter.hash}, {len(answers.prompts)} prompts, 16 candidates each\n")
    print("| compared in | top-1 | 95 % interval | found by this alone |\n|---|---:|---|---:|")
    for name, values in found.items():
        other = next(rest for kind, rest in found.items() if kind != name)
        estimate = metric_estimate("identification_top1", values)
        alone = sum(one > two for one, two in zip(values, other))
        print(f"| {name} | {estimate.mean:.3f} | {estimate.low:.3f} to {estimate.high:.3f} | {alone} |")


if __name__ == "__main__":
    main()
