"""How well the answers can be told apart at all: identification by the model that wrote them, the best that any reader could do.

Command::

    python -m lm_eval_inversion.training.collect --model FOLDER --source v1 --split test --prompts 40 --shares ordinary16=16 \\
        --temperature 0.7 --message-tokens 64 --defence-share 0 --output answers.jsonl
    python benchmarks/ceiling.py answers.jsonl --model FOLDER [--hard] [--limit 20]

Every candidate of identification (the truth and the decoys that ``benchmarks/baselines.py`` takes, with ``--hard`` its hard ones too) is
put where the system prompt was, and the model that answered says how likely its answers are under it. Among candidates that are equally
likely beforehand, the likeliest one is the best guess there is (Bayes), so what this top-1 lacks of 1 no inverter can be expected to
find. Bits are those that the answers tell about which of the 16 it was, log2 of 16 times the truth's share of the likelihood: 4 at most.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from baselines import collected_answers, hard_decoys, limited
from tqdm import tqdm

from lm_eval_inversion.evaluation import decoys_for
from lm_eval_inversion.queries import load_query_set, query_set_names, user_turn
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import shown, shown_interval
from lm_eval_inversion.scoring.identification import identification_scores
from lm_eval_inversion.target import Target
from lm_eval_inversion.training.rows import read_pairs

HARD = "top-1, hard decoys"


def bits_among(log_likelihoods: Sequence[float]) -> float:
    """log2 of how much likelier the first candidate is after the answers than before, all being equally likely before."""
    most = max(log_likelihoods)
    total = sum(math.exp(value - most) for value in log_likelihoods)
    return (log_likelihoods[0] - most - math.log(total / len(log_likelihoods))) / math.log(2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="JSONL file of training.collect, system prompts only")
    parser.add_argument("--model", required=True, help="folder or hub name of the model that answered")
    parser.add_argument("--hard", action="store_true", help="also among the 15 prompts that are most like the truth; about twice the time")
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    rows = read_pairs(options.answers)
    try:
        answers = limited(collected_answers(rows, str(options.answers)), options.limit)
        target = Target.load(options.model, device=options.device, thinking=False)
    except ValueError as error:
        parser.error(str(error))
    if answers.secret != "system":
        parser.error(f"{options.answers} holds users' requests; give answers under system prompts")
    turns = {query.id: user_turn(query.text) for name in query_set_names() for query in load_query_set(name).queries}
    said = {row["prompt"]: row["answers"] for row in rows if row["prompt"] is not None}
    plain = dict(zip(answers.pool, decoys_for(answers.pool, answers.seed)))
    truths = [prompt.text for prompt in answers.prompts]
    found: dict[str, list[float]] = {"top-1": [], "bits about which of 16": []}
    found |= {HARD: []} if options.hard else {}
    hard = hard_decoys(truths, answers.pool) if options.hard else [[] for _ in truths]
    try:
        for truth, near in zip(tqdm(truths, desc="prompts"), hard):
            asked = [turns[query] for query, answer in said[truth] if answer]
            texts = [answer for _, answer in said[truth] if answer]
            known = {text: target.log_likelihood([(text, own) for own in asked], texts) for text in {truth, *plain[truth], *near}}
            own = [known[text] for text in (truth, *plain[truth])]
            found["top-1"].append(identification_scores(own)["top1"])
            if near:
                found[HARD].append(identification_scores([known[text] for text in (truth, *near)])["top1"])
            found["bits about which of 16"].append(bits_among(own))
    except KeyboardInterrupt:  # what has been measured is shown, and not lost
        print("interrupted; of the prompts so far:")
    print(f"{len(found['top-1'])} prompts, {target.tokens} tokens read by {options.model}\n")
    print("| | mean | 95 % interval |\n|---|---:|---:|")
    for name, values in found.items():
        metric = "identification_top1" if name.startswith("top-1") else "bits"
        estimate = metric_estimate(metric, values)
        print(f"| {name} | {shown(metric, estimate.mean)} | {shown_interval(metric, estimate.low, estimate.high)} |")


if __name__ == "__main__":
    main()
