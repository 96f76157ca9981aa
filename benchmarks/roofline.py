"""How near the shipped inverter comes to what this machine can do at most: its two phases against measured peaks.

Command::

    python benchmarks/roofline.py [--batches 1 8] [--threads 2] [--repeats 3] [--dtype float32]

The peaks are the best of several large matrix products (FLOP/s) and copies (bytes/s) in this very process. A phase must at least multiply
what it multiplies (FLOPs counted by ``torch.utils.flop_counter``) and move what it cannot keep in the cache: reading moves the weights
once and writes the prefix; each decoding step moves the weights and the prefix of every prompt once. The longer of the two times is the
least possible one; its share of the measured time is printed. 64 outputs of 32 tokens are read, 64 tokens written, as in
``inversion_speed.py``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from inversion_speed import OUTPUT_TOKENS, OUTPUTS, WRITTEN_TOKENS, outputs
from torch.utils.flop_counter import FlopCounterMode

from lm_eval_inversion import load_inverter
from lm_eval_inversion.inverter.prefix_model import Prefix

SIDE, COPIED, TRIES = 2048, 1 << 28, 7  # of the matrices that find the peak; bytes of each copy; the best of so many


def seconds_of(action: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def peaks(dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a large matrix product, and bytes/s of a large copy (read and written)."""
    left, right = torch.ones(SIDE, SIDE, dtype=dtype), torch.ones(SIDE, SIDE, dtype=dtype)
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    product = min(seconds_of(lambda: left @ right) for _ in range(TRIES))
    copy = min(seconds_of(lambda: target.copy_(source)) for _ in range(TRIES))
    return 2 * SIDE**3 / product, 2 * COPIED / copy


def flops_of(action: Callable[[], Any]) -> int:
    """FLOPs of the matrix products of one call."""
    with FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def size_of(prefix: Prefix) -> int:
    """Bytes of a prefix."""
    return sum(part.numel() * part.element_size() for part in (*prefix.keys, *prefix.values))


@torch.inference_mode()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--inverter", default="default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    inverter = load_inverter(options.inverter, device="cpu", dtype=options.dtype)
    model = inverter.model
    most_flops, most_bytes = peaks(getattr(torch, options.dtype))
    print(
        f"{options.threads} threads, {options.dtype}: {most_flops / 1e9:.0f} GFLOP/s, {most_bytes / 1e9:.1f} GB/s; "
        f"{OUTPUTS} outputs x {OUTPUT_TOKENS} tokens, {WRITTEN_TOKENS} tokens written\n"
    )
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print("| batch | phase | GFLOP | GB | least seconds | bound by | measured | share |\n|---:|---|---:|---:|---:|---|---:|---:|")
    for batch in options.batches:
        blocks = [inverter.tokenizer.blocks(lines) for lines in outputs(batch)]
        prefix = inverter.encode(blocks)
        phases = {
            "reading": (lambda own=blocks: inverter.encode(own), weights + size_of(prefix)),
            "writing": (lambda known=prefix: inverter._write(known, WRITTEN_TOKENS), WRITTEN_TOKENS * (weights + size_of(prefix))),
        }
        for phase, (action, moved) in phases.items():
            flops = flops_of(action)
            measured = statistics.median(seconds_of(action) for _ in range(options.repeats))
            by_flops, by_bytes = flops / most_flops, moved / most_bytes
            least = max(by_flops, by_bytes)
            bound = "FLOPs" if by_flops > by_bytes else "bytes"
            numbers = f"{flops / 1e9:.0f} | {moved / 1e9:.2f} | {least:.2f} | {bound} | {measured:.2f} | {least / measured:.0%}"
            print(f"| {batch} | {phase} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
