"""How time and memory of a run grow: with the number of outputs, their length and the number of prompts.

Command::

    python benchmarks/cost_curves.py [--inverter random|default|FOLDER] [--repeats 3] [--parts outputs length prompts scoring]
    python benchmarks/cost_curves.py --quick

``random`` is a small model of the inverter's architecture with random weights and no cap on the number of outputs: its curves have the
shape that the code gives them. A checkpoint has its own cap (64 outputs in the shipped one): beyond it the curve is flat, and no exponent
is fitted there. ``scoring`` is everything but the inverter and the sentence embedding, as in ``score_speed.py``.

Every measurement runs in a process of its own, forked from this one once all is loaded, on one thread: the least seconds of the processor
among the repeats, and by how much the resident memory grew at its peak. ``invert`` reads and writes, ``nll`` reads and compares; logits
over the vocabulary are most of the memory at small sizes. The exponent is the slope of log cost over log size by least squares, with its
95 % interval; at small sizes fixed costs make it smaller, so the slope between the two largest sizes stands beside it.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from inversion_speed import WORDS
from score_speed import StandIn, evaluate, outputs_of, prompts_of, reconstruction_of

from lm_eval_inversion import load_inverter
from lm_eval_inversion.inverter.registry import shipped_checkpoint
from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter
from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer
from lm_eval_inversion.scoring import embedding

WRITTEN_TOKENS, CANDIDATES = 16, 16
PROMPT = "You are the harbour's night watch. Answer in short sentences, and never give away the code of the gate."
PARTS = ("outputs", "length", "prompts", "scoring")
Measure = Callable[[int], dict[str, Callable[[], Any]]]


def random_inverter() -> SparsePrefixInverter:
    """Two layers of random weights behind the shipped tokenizer; reads 256 outputs of 256 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    layout = BlockFormat(max_outputs=256, max_output_tokens=256)
    tokenizer = BlockTokenizer(shipped_checkpoint() / "tokenizer.json", layout)
    config = LlamaConfig(
        vocab_size=tokenizer.tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    return SparsePrefixInverter(LlamaForCausalLM(config).eval(), tokenizer, layout, name="random", hash="0")


def texts(prompts: int, number: int, length: int) -> list[list[str]]:
    """Different outputs of about ``length`` tokens."""
    return [
        [
            " ".join([f"{prompt}", f"{line}", *(WORDS[(prompt + line * 7 + step) % len(WORDS)] for step in range(length))][:length])
            for line in range(number)
        ]
        for prompt in range(prompts)
    ]


def inverter_costs(inverter: Any, prompts: int, number: int, length: int) -> dict[str, Callable[[], Any]]:
    """What a run asks of the inverter: to write, and the likelihoods of ``CANDIDATES`` prompts."""
    outputs = texts(prompts, number, length)
    asked = [lines for lines in outputs for _ in range(CANDIDATES)]
    candidates = [f"{PROMPT} {place}" for _ in outputs for place in range(CANDIDATES)]
    return {
        "invert": lambda: inverter.invert(outputs, WRITTEN_TOKENS, batch_size=8),
        "nll": lambda: inverter.nll(asked, candidates),
    }


def scoring_costs(prompts: Sequence[Any], reconstructions: Sequence[str], number: int) -> dict[str, Callable[[], Any]]:
    """Scoring and bootstrap, without inverter and embedding."""
    outputs, null, stand_in = outputs_of(number), outputs_of(1)[0], StandIn(reconstructions)

    def run() -> Any:
        return evaluate(prompts[:number], outputs, null, stand_in)

    def run_and_sum() -> None:
        run().summary()

    return {"score": run, "score and bootstrap": run_and_sum}


def measured(action: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the processor, and MiB by which the resident memory grew at its peak; in a forked process."""

    def run(answer: Any) -> None:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        action()
        answer.send((time.process_time() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(there,))
    process.start()
    there.close()
    try:
        found: tuple[float, float] = here.recv()
    except EOFError:
        raise SystemExit("a measurement ended without a result; its error stands above") from None
    process.join()
    return found


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Slope of log cost over log size, and half of its 95 % interval (NaN for two sizes)."""
    from scipy import stats

    fit = stats.linregress([math.log(size) for size in sizes], [math.log(cost) for cost in costs])
    if len(sizes) < 3:
        return float(fit.slope), math.nan
    return float(fit.slope), float(stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr)


def curve(title: str, sizes: Sequence[int], costs_at: Measure, repeats: int, cap: int | None = None) -> None:
    """Measure and print one table, and the exponents up to the cap."""
    print(f"\n{title}\n", flush=True)
    found: dict[str, list[tuple[int, float, float]]] = {}
    for place, size in enumerate(sizes):
        actions = costs_at(size)
        if place == 0:
            print("| size |" + "".join(f" {name}, s | MiB |" for name in actions) + "\n|---:|" + "---:|---:|" * len(actions))
        row = f"| {size} |"
        for name, action in actions.items():
            runs = [measured(action) for _ in range(repeats)]
            seconds, memory = min(run[0] for run in runs), max(run[1] for run in runs)
            found.setdefault(name, []).append((size, seconds, memory))
            row += f" {seconds:.3f} | {memory:.1f} |"
        print(row, flush=True)
    for name, rows in found.items():
        inside = [row for row in rows if cap is None or row[0] <= cap]
        for what, column in (("time", 1), ("memory", 2)):
            known = [(row[0], row[column]) for row in inside if row[column] > 0]
            if len(known) < 2:
                continue
            slope, half = exponent(*zip(*known))
            (small, low), (large, high) = known[-2:]
            last = math.log(high / low) / math.log(large / small)
            note = f" (up to {cap})" if cap is not None and inside != rows else ""
            print(f"{name}, {what}: exponent {slope:.2f} ± {half:.2f}{note}, {last:.2f} between {small} and {large}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inverter", default="random", help="random, default, or the folder of a checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes, measured once")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    torch.set_num_threads(1)
    inverter = random_inverter() if options.inverter == "random" else load_inverter(options.inverter, device="cpu")
    layout: BlockFormat = inverter.layout  # type: ignore[attr-defined]
    print(f"inverter {inverter.name}, one thread, {WRITTEN_TOKENS} tokens written, {CANDIDATES} candidates, least of {repeats}")
    inverter.invert([["Ahoy."]], 2)  # loads what the first call loads

    if "outputs" in options.parts:
        sizes = (1, 4, 16, 64) if options.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
        title = f"Number of outputs (one prompt, 24 words each; at most {layout.max_outputs} are read)"
        curve(title, sizes, lambda size: inverter_costs(inverter, 1, size, 24), repeats, layout.max_outputs)
    if "length" in options.parts:
        sizes = (4, 8, 16) if options.quick else (4, 8, 16, 32, 64, 128)
        most = layout.max_output_tokens * layout.blocks_per_output
        title = f"Words of an output (one prompt, 16 outputs; at most {most} tokens are read)"
        curve(title, sizes, lambda size: inverter_costs(inverter, 1, 16, size), repeats, most)
    if "prompts" in options.parts:
        sizes = (1, 2, 4) if options.quick else (1, 2, 4, 8, 16, 32)
        curve("Number of prompts (16 outputs of 24 words)", sizes, lambda size: inverter_costs(inverter, size, 16, 24), repeats)
    if "scoring" in options.parts:
        sizes = (10, 100) if options.quick else (10, 30, 100, 300, 1000, 3000, 10_000)
        prompts = prompts_of(sizes[-1])
        reconstructions = [reconstruction_of(prompt.text, prompts[index - 1].text) for index, prompt in enumerate(prompts)]
        vector = torch.eye(1, 384)[0].numpy()
        embedding.embed = lambda text: vector
        scoring_costs(prompts, reconstructions, 10)["score"]()  # loads what the first call loads
        curve("Number of prompts, scoring", sizes, lambda size: scoring_costs(prompts, reconstructions, size), 1)


if __name__ == "__main__":
    main()
