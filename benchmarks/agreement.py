"""What it is worth to give the reconstruction that others agree with, and what it costs, by how many are sampled.

Command::

    python -m lm_eval_inversion.training.collect --model FOLDER --source v1 --split dev --prompts 50 --shares ordinary16=16 \\
        --temperature 0.7 --message-tokens 64 --defence-share 0 --output dev.jsonl
    python benchmarks/agreement.py dev.jsonl [--samples 0 4 8 16] [--inverter default] [--dtype auto] [--limit N]

Answers are those that ``benchmarks/baselines.py`` takes. Prints one line per number of samples (0 is the greedy reconstruction, which a
run gives), with 95 % intervals: token F1, its lift above the mean over what is written for the null answers and parts of them, token F1
above that of the same texts with the file's other prompts, cosine, and how much token F1 exceeds the greedy one's, prompt by prompt. Of a
larger number the smaller ones are part, so that they are sampled once. Seconds are processor seconds per prompt: of reading and the greedy
text, and of reading and the most samples.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from baselines import limited, read_answers
from decoding_settings import scores
from tqdm import tqdm

from lm_eval_inversion.arguments import positive_whole
from lm_eval_inversion.evaluation import NullCondition
from lm_eval_inversion.inverter import Inverter, check_inverter, load_inverter
from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import shown_estimate
from lm_eval_inversion.reranking import TEMPERATURE, most_agreed
from lm_eval_inversion.scoring.embedding import cosine


def timed(inverter: Inverter, lines: tuple[str, ...], most: int) -> tuple[list[str], float]:
    """The greedy reconstruction and the samples behind it, and the processor seconds that they took."""
    began = time.process_time()
    (texts,) = inverter.sample([lines], most, TEMPERATURE, 0, DEFAULT_MAX_NEW_TOKENS)
    return texts, time.process_time() - began


def cell(metric: str, values: list[float]) -> str:
    """Mean and interval, those of a metric of this kind."""
    return shown_estimate(metric, metric_estimate(metric, values))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="see benchmarks/baselines.py")
    parser.add_argument("--samples", type=positive_whole, nargs="+", default=[4, 8, 16], help="numbers of samples, beside 0")
    parser.add_argument("--inverter", default="default", help="a checkpoint")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    options = parser.parse_args()
    try:
        answers = limited(read_answers(options.answers), options.limit)
        check_inverter(options.inverter, dtype=options.dtype)
    except ValueError as error:
        parser.error(str(error))
    # As in a run: what gave nothing to invert is unscored.
    usable = [(prompt.text, outputs.lines) for prompt, outputs in zip(answers.prompts, answers.outputs) if outputs.usable]
    if not answers.null.usable:
        parser.error(f"{options.answers}: the answers without a system prompt hold no output, so there is no floor; collect them again")
    if len(usable) < 2:
        parser.error(f"{len(usable)} prompts with outputs; give at least two, because texts are compared with other prompts")
    inverter = load_inverter(options.inverter, dtype=options.dtype).of(answers.secret)
    if not inverter.has_sampling():
        parser.error(f"--inverter {options.inverter} writes one reconstruction and cannot sample; give a checkpoint")
    numbers = sorted({0, *options.samples})
    nulls = [timed(inverter, lines, numbers[-1])[0] for lines in NullCondition(inverter, answers.null.lines).parts]
    drawn, seconds, greedy_seconds = [], [], []
    for _, lines in tqdm(usable, desc="system prompts"):
        texts, spent = timed(inverter, lines, numbers[-1])
        began = time.process_time()
        inverter.invert([lines], DEFAULT_MAX_NEW_TOKENS)
        greedy_seconds.append(time.process_time() - began)
        drawn.append(texts)
        seconds.append(spent)
    truths = [truth for truth, _ in usable]
    print(f"{len(truths)} of {len(answers.prompts)} prompts with outputs, inverter {options.inverter} {inverter.hash}\n")
    print("| samples | token F1 | of the null | lift | above other prompts' | cosine | token F1 more than greedy | words |")
    print("|---:|---|---:|---|---|---|---|---:|")
    greedy: list[float] = []
    for number in numbers:
        texts, floors = ([own[most_agreed(own[: number + 1])] for own in sets] for sets in (drawn, nulls))
        found = {**scores(truths, texts, floors), "cosine": [cosine(truth, text) for truth, text in zip(truths, texts)]}
        greedy = greedy or found["token_f1"]
        more = cell("token_f1_lift", [one - two for one, two in zip(found["token_f1"], greedy)]) if number else ""
        floor = statistics.fmean(one - two for one, two in zip(found["token_f1"], found["lift"]))
        cells = [cell("token_f1_lift", found["lift"]), cell("token_f1_lift", found["above"]), cell("cosine", found["cosine"])]
        words = statistics.fmean(len(text.split()) for text in texts)
        print(f"| {number} | {cell('token_f1', found['token_f1'])} | {floor:.3f} | {' | '.join(cells)} | {more} | {words:.0f} |")
    print(
        f"\nprocessor seconds per prompt, median: {statistics.median(greedy_seconds):.1f} greedy, "
        f"{statistics.median(seconds):.1f} with {numbers[-1]} samples"
    )


if __name__ == "__main__":
    main()
