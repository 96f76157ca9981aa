"""What the settings of decoding are worth: every setting on the same encoded answers, each compared with the shipped one prompt by prompt.

Command::

    python -m lm_eval_inversion.training.collect --model FOLDER --source v1 --split dev --prompts 50 --shares ordinary16=16 \\
        --temperature 0.7 --message-tokens 64 --defence-share 0 --output dev.jsonl
    python benchmarks/decoding_settings.py dev.jsonl [--minimum 0 32 64] [--guidance 0 0.5 1 1.5] [--inverter default]

Answers are those that ``benchmarks/baselines.py`` takes. Choose on ``dev`` prompts, never on ``test``. Prints one line per setting, with
95 % intervals: token F1, its lift above the mean over what is written for the null answers and parts of them, token F1 above that of
the same texts with other prompts (which hangs on no draw of null answers), and how much the last two exceed the shipped setting's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path

import torch
from baselines import Answers, limited, read_answers
from tqdm import tqdm

from lm_eval_inversion.evaluation import NullCondition
from lm_eval_inversion.inverter import load_inverter
from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS
from lm_eval_inversion.inverter.decoding import decode
from lm_eval_inversion.inverter.sparse_prefix import GUIDANCE, REPEAT_RUN, SparsePrefixInverter
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import shown_estimate
from lm_eval_inversion.scoring.text import token_f1

Setting = tuple[int, float]  # fewest tokens, guidance
SHIPPED: Setting = (0, GUIDANCE)
BATCH = 8


@torch.inference_mode()
def reconstructions(inverter: SparsePrefixInverter, answers: Answers, settings: list[Setting]) -> dict[Setting, list[str]]:
    """One text per prompt, and behind them those of the null (``NullCondition.parts``), for every setting."""
    sets = [outputs.lines for outputs in answers.outputs] + [*NullCondition(inverter, answers.null.lines).parts]
    found: dict[Setting, list[str]] = {setting: [] for setting in settings}
    layout = inverter.layout
    for start in tqdm(range(0, len(sets), BATCH), desc="batches of prompts"):
        prefix = inverter.encode([inverter.tokenizer.blocks(lines) for lines in sets[start : start + BATCH]])
        for minimum, guidance in settings:
            written = decode(
                inverter.model, prefix, start_id=layout.opening(answers.secret), end_id=layout.end_id, position=layout.prompt_position,
                max_new_tokens=DEFAULT_MAX_NEW_TOKENS, repeat_run=REPEAT_RUN, min_new_tokens=minimum, guidance=guidance,
            )  # fmt: skip
            found[minimum, guidance] += [inverter.tokenizer.decode(tokens) for tokens in written]
    return found


def scores(truths: list[str], texts: list[str], nulls: list[str]) -> dict[str, list[float]]:
    """Token F1, lift, and token F1 above other prompts', one each per prompt.

    Args:
        truths: the prompts.
        texts: their reconstructions.
        nulls: what was written for the null answers, or for parts of them: the lift is above the mean over these.
    """
    own = [token_f1(truth, text) for truth, text in zip(truths, texts)]
    lift = [score - statistics.fmean(token_f1(truth, null) for null in nulls) for truth, score in zip(truths, own)]
    swap = [statistics.fmean(token_f1(other, text) for other in truths if other != truth) for truth, text in zip(truths, texts)]
    return {"token_f1": own, "lift": lift, "above": [score - other for score, other in zip(own, swap)]}


def cell(values: list[float]) -> str:
    """Mean and interval."""
    return shown_estimate("token_f1_lift", metric_estimate("token_f1_lift", values))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="see benchmarks/baselines.py")
    parser.add_argument("--inverter", default="default", help="a checkpoint")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--minimum", type=int, nargs="+", default=[0, 32, 48, 64], help="fewest tokens of a reconstruction")
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.0, 0.5, 1.0, 1.5])
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    options = parser.parse_args()
    inverter = load_inverter(options.inverter, dtype=options.dtype)
    if not isinstance(inverter, SparsePrefixInverter):
        parser.error(f"--inverter {options.inverter}: give a checkpoint; others have no such settings")
    answers = limited(read_answers(options.answers), options.limit)
    if len(answers.prompts) < 2:
        parser.error("one prompt has no other prompts to compare with; give at least two")
    settings = [SHIPPED, *(setting for setting in itertools.product(options.minimum, options.guidance) if setting != SHIPPED)]
    truths = [prompt.text for prompt in answers.prompts]
    written = reconstructions(inverter.of(answers.secret), answers, settings)
    found = {setting: scores(truths, texts[: len(truths)], texts[len(truths) :]) for setting, texts in written.items()}
    print(f"{len(truths)} prompts, inverter {options.inverter} {inverter.hash}; the shipped setting comes first\n")
    print("| at least so many tokens | guidance | token F1 | lift | more than shipped | above other prompts' | more than shipped |")
    print("|---:|---:|---|---|---|---|---|")
    for (minimum, guidance), own in found.items():
        cells = [cell(own["token_f1"])]
        for score in ("lift", "above"):
            cells += [cell(own[score]), cell([one - two for one, two in zip(own[score], found[SHIPPED][score])])]
        print(f"| {minimum} | {guidance} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
