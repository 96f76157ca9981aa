"""Seconds that scoring takes apart from the inverter: all metrics of reconstructions, and the bootstrap over prompts.

Command::

    python benchmarks/score_speed.py [--prompts 10000] [--threads 1] [--with-cosine]
    python benchmarks/score_speed.py --quick

The prompts are those that the training grammar writes; a reconstruction keeps about half of the words of its prompt and takes the others
from another one. The inverter is a stand-in that costs nothing and knows these texts. First every metric by itself, then ``evaluate`` and
``Evaluation.summary`` as both hosts call them. Seconds are those of the processor, all threads together, so that other programs on the
machine do not count; with one thread on a free core the clock shows the same.

The sentence embedding behind ``cosine`` is a neural network of its own, and costs more than all other metrics together. It is measured on
its own, on ``EMBEDDED`` texts, and left out of the total (every text gets the same vector) unless ``--with-cosine`` is given.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from lm_eval_inversion.evaluation import decoys_for, evaluate
from lm_eval_inversion.inverter.base import Inverter, OutputSets
from lm_eval_inversion.outputs import Outputs, parse_outputs
from lm_eval_inversion.prompts import SystemPrompt, load_prompts
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.scoring import embedding
from lm_eval_inversion.scoring.attributes import attribute_scores
from lm_eval_inversion.scoring.text import bleu, kept_tokens, rouge, token_f1
from lm_eval_inversion.scoring.uncertainty import estimate
from lm_eval_inversion.training.grammar import generate, load_banks

QUICK, EMBEDDED = 200, 50


def prompts_of(number: int) -> list[SystemPrompt]:
    """Distinct prompts with the attributes of the shipped ones."""
    banks, attributes = load_banks(), cycle([prompt.attributes for prompt in load_prompts("v1", split=None)])
    texts: dict[str, None] = {}
    index = 0
    while len(texts) < number:
        texts[generate(banks, 11, index).text] = None
        index += 1
    return [SystemPrompt(f"p{index}", text, attributes=next(attributes)) for index, text in enumerate(texts)]


def reconstruction_of(truth: str, other: str) -> str:
    """About half of the words of either, in their places."""
    rng, others = random.Random(truth), cycle(other.split())
    return " ".join(word if rng.random() < 0.5 else next(others) for word in truth.split())


class StandIn(Inverter):
    """Answers what it was told, at no cost: the answers of prompt ``i`` are ``["i"]``."""

    name, hash = "stand-in", "0"

    def __init__(self, reconstructions: Sequence[str]) -> None:
        self.reconstructions = reconstructions

    def invert(self, outputs: OutputSets, max_new_tokens: int = 256, batch_size: int | None = None) -> list[str]:
        """See ``Inverter.invert``."""
        return [self.reconstructions[int(lines[0])] for lines in outputs]

    def nll(self, outputs: OutputSets, prompts: Sequence[str]) -> list[float]:
        """See ``Inverter.nll``: numbers without a meaning."""
        return [float(len(prompt) * (7 + len(lines) % 3) % 97) for lines, prompt in zip(outputs, prompts)]


def outputs_of(number: int) -> list[Outputs]:
    """What a model answered under each prompt: its number, so that the stand-in finds it."""
    queries = load_query_set("ordinary16").first(1)
    return [parse_outputs([str(index)], queries) for index in range(number)]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and the result."""
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def by_metric(prompts: Sequence[SystemPrompt], reconstructions: Sequence[str]) -> dict[str, float]:
    """Seconds of each metric by itself, once per prompt."""
    pairs = [(prompt.text, text) for prompt, text in zip(prompts, reconstructions)]
    rng = random.Random(0)
    values = [rng.random() for _ in pairs]
    return {
        "token F1": timed(lambda: [token_f1(*pair) for pair in pairs])[0],
        "BLEU": timed(lambda: [bleu(*pair) for pair in pairs])[0],
        "ROUGE-1 and ROUGE-L": timed(lambda: [rouge(*pair) for pair in pairs])[0],
        "attributes": timed(lambda: [attribute_scores(prompt.attributes, text) for prompt, text in zip(prompts, reconstructions)])[0],
        "choosing decoys": timed(lambda: decoys_for([prompt.text for prompt in prompts]))[0],
        "bootstrap of one metric": timed(lambda: estimate(values))[0],
    }


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} prompts")
    parser.add_argument("--with-cosine", action="store_true", help="embed all texts as well")
    options = parser.parse_args()
    import numpy
    import torch

    torch.set_num_threads(options.threads)
    number = QUICK if options.quick else options.prompts
    prompts = prompts_of(number)
    reconstructions = [reconstruction_of(prompt.text, prompts[index - 1].text) for index, prompt in enumerate(prompts)]
    words = sum(len(prompt.text.split()) for prompt in prompts) / number
    print(f"{number} prompts of {words:.0f} words on average, {options.threads} thread(s); {peak():.0f} MiB before scoring\n")
    print("| by itself | seconds | ms per prompt |\n|---|---:|---:|")
    for name, seconds in by_metric(prompts, reconstructions).items():
        print(f"| {name} | {seconds:.2f} | {1000 * seconds / number:.3f} |", flush=True)
    embedding.embed("warm")
    seconds, _ = timed(lambda: [embedding.embed(text) for text in reconstructions[:EMBEDDED]])
    print(f"| embedding of one text |  | {1000 * seconds / EMBEDDED:.3f} |", flush=True)
    if not options.with_cosine:
        vector = numpy.eye(1, 384, dtype=numpy.float32)[0]
        embedding.embed = lambda text: vector
    kept_tokens.cache_clear()
    before = peak()
    scored, evaluation = timed(lambda: evaluate(prompts, outputs_of(number), outputs_of(1)[0], StandIn(reconstructions)))
    summed, _ = timed(evaluation.summary)
    print(f"\nevaluate {scored:.1f} s, summary {summed:.1f} s, together {scored + summed:.1f} s, cosine " + (
        "included" if options.with_cosine else "left out"
    ) + f"; peak {peak():.0f} MiB ({before:.0f} before)")


if __name__ == "__main__":
    main()
