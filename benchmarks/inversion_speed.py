"""Throughput and memory of the shipped inverter beside the paper's architecture (a T5 of base size with random weights), on equal outputs.

Command::

    python benchmarks/inversion_speed.py [--batches 1 8 32] [--repeats 3] [--threads 2] [--inverter CHECKPOINT]

Every measurement is a process of its own that loads one inverter, inverts one batch to warm up and then ``--repeats`` more. The two
architectures take turns, so that whatever else the machine does falls on both. Both read 64 outputs of 32 tokens and write 64 tokens;
the T5 is kept from ending early. Prints medians, the ratio, and the peak of the resident memory, with that of a process which only
imported torch and transformers taken off.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

OUTPUTS, OUTPUT_TOKENS, WRITTEN_TOKENS = 64, 32, 64
T5_BASE = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12}
WORDS = ("sea", "calm", "sail", "dawn", "bread", "rope", "salt", "tar", "maps", "song", "home", "harbour", "night")


def outputs(prompts: int) -> list[list[str]]:
    """Different texts of more than ``OUTPUT_TOKENS`` tokens, so that every block is full."""
    return [
        [
            " ".join([f"{prompt}", f"{line}", *(WORDS[(prompt + line * 7 + step) % len(WORDS)] for step in range(40))])
            for line in range(OUTPUTS)
        ]
        for prompt in range(prompts)
    ]


def load(kind: str, name: str) -> Any:
    """An inverter, of which "shipped" is the one named; "none" only imports what both need."""
    import torch
    import transformers

    if kind == "none":
        return transformers.LlamaForCausalLM, transformers.T5ForConditionalGeneration
    if kind.startswith("shipped"):
        import lm_eval_inversion

        return lm_eval_inversion.load_inverter(name, device="cpu", dtype=kind.partition("-")[2] or "auto")
    from lm_eval_inversion.inverter.registry import shipped_checkpoint
    from lm_eval_inversion.inverter.sparse_t5 import SparseT5Inverter

    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(shipped_checkpoint() / "tokenizer.json"), pad_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=len(fast), pad_token_id=0, decoder_start_token_id=0, eos_token_id=0, padded_output_tokens=OUTPUT_TOKENS, **T5_BASE
        )
    ).eval()
    model.generation_config.eos_token_id = None
    dtype = torch.bfloat16 if kind == "t5-bfloat16" else torch.float32
    return SparseT5Inverter(model.to(dtype), fast, name="t5", hash="0")


def measure(kind: str, name: str, batch: int, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds of each repetition and peak memory in MiB; in this process."""
    import torch

    torch.set_num_threads(threads)
    inverter = load(kind, name)
    seconds = []
    if kind != "none":
        texts = outputs(batch)
        for _ in range(repeats + 1):
            began = time.perf_counter()
            inverter.invert(texts, WRITTEN_TOKENS, batch_size=batch)
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[1:], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", default=["shipped", "shipped-int8", "shipped-bfloat16", "t5", "t5-bfloat16"])
    parser.add_argument("--inverter", default="default", help="stands in the place of the shipped one")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], options.inverter, int(options.measure[1]), options.repeats, options.threads)))
        return

    def child(kind: str, batch: int) -> dict[str, Any]:
        command = [
            sys.executable,
            __file__,
            "--measure",
            kind,
            str(batch),
            "--repeats",
            str(options.repeats),
            "--threads",
            str(options.threads),
            "--inverter",
            options.inverter,
        ]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))

    bare = child("none", 1)["peak"]
    print(
        f"{OUTPUTS} outputs x {OUTPUT_TOKENS} tokens, {WRITTEN_TOKENS} tokens written, {options.threads} threads; "
        f"bare process {bare:.0f} MiB\n"
    )
    print("| batch | inverter | seconds per prompt | prompts per second | peak MiB | throughput, shipped / this | memory, shipped / this |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for batch in options.batches:
        found = {kind: child(kind, batch) for kind in options.kinds}
        for kind, result in found.items():
            each = statistics.median(result["seconds"]) / batch
            own = statistics.median(found["shipped"]["seconds"]) / batch if "shipped" in found else float("nan")
            peak, ours = result["peak"] - bare, found.get("shipped", result)["peak"] - bare
            print(f"| {batch} | {kind} | {each:.2f} | {1 / each:.2f} | {peak:.0f} | {each / own:.2f} | {ours / peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
