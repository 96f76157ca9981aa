"""What a server's prefix cache saves, by the order in which requests reach it.

Command::

    python benchmarks/request_order.py [--tokenizer demo/smollm2] [--task prompt_inversion_ordinary] [--prompts FILE]

Two orders: by falling length, then text, as lm_eval's ``vllm`` and ``sglang`` sort them; and by system prompt, as lm_eval's chat back ends
and Inspect send them. A simulation, not an engine: blocks of 16 tokens, of which the longest unused are dropped first, one request after
the other, each with an answer as long as the task allows. Without ``--prompts`` the shipped inverter's training prompts are taken, because
the benchmark's own are too few to fill a cache. Prints the share of prompt tokens that a cache of so many tokens saves.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.queries import conversation
from lm_eval_inversion.token_counts import ModelCounter

BLOCK = 16  # tokens; vLLM's default
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 10_000_000)


def training_prompts() -> list[str]:
    """The texts that the shipped inverter was trained on."""
    import json
    import lzma

    from lm_eval_inversion.inverter.registry import shipped_checkpoint

    with lzma.open(shipped_checkpoint() / "training_prompts.jsonl.xz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def saved(requests: Sequence[Sequence[int]], answer: int, size: int) -> float:
    """Share of all prompt tokens that a cache of ``size`` tokens saves; ``answer`` tokens are written behind every request."""
    cache: OrderedDict[object, None] = OrderedDict()
    hits = 0
    for number, request in enumerate(requests):
        # A block stands for all that comes before it, too. An answer's blocks are its own.
        blocks: list[object] = [hash(tuple(request[:end])) for end in range(BLOCK, len(request) + 1, BLOCK)]
        for block in blocks:
            if block not in cache:
                break
            hits += BLOCK
        for block in [*blocks, *((number, place) for place in range(answer // BLOCK))]:
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > size // BLOCK:
            cache.popitem(last=False)
    return hits / sum(map(len, requests))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", default="demo/smollm2", metavar="FOLDER", help="of the evaluated model; its chat template, too")
    parser.add_argument("--task", default="prompt_inversion_ordinary")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="system prompts, as the task's parameter of this name takes them")
    options = parser.parse_args()
    counter = ModelCounter(options.tokenizer)
    protocol = make_protocol(options.task, prompts=str(options.prompts) if options.prompts else None)
    prompts = [prompt.text for prompt in protocol.prompts] if options.prompts else training_prompts()
    asked = [conversation(system, turns, counter.system_role) for text in prompts for system, turns in protocol.conversations(text)]
    texts = [counter.render(messages) for messages in asked]
    by_prompt = [tuple(units) for units in counter.texts(texts)]
    by_length = [units for _, units in sorted(zip(texts, by_prompt), key=lambda pair: (-len(pair[1]), pair[0]))]
    tokens = sum(map(len, by_prompt))
    print(f"{len(prompts):,} system prompts, {len(by_prompt):,} requests, {tokens:,} prompt tokens, answers of {protocol.max_tokens}")
    print("| cache, tokens | by system prompt | by length |\n|---:|---:|---:|")
    for size in SIZES:
        shares = [saved(requests, protocol.max_tokens, size) for requests in (by_prompt, by_length)]
        print(f"| {size:,} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


if __name__ == "__main__":
    main()
