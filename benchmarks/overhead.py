"""What the plugin adds to a host: to the start of ``lm_eval ls tasks``, and to the wall time of a whole run.

Command::

    python benchmarks/overhead.py start [--repeats 5]
    python benchmarks/overhead.py run --model FOLDER [--task prompt_inversion_ordinary] [--limit 8] [--inverter-dtype auto]

``start`` runs ``lm_eval ls tasks`` with and without the discovery hook in turns and prints medians. ``run`` has lm_eval score a few
prompts in this process and prints the share of the time that was spent inside of this package's scoring.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def start(repeats: int) -> None:
    """Seconds of ``lm_eval ls tasks``, the hook on and off."""
    command = [str(Path(sys.executable).parent / "lm_eval"), "ls", "tasks"]
    seconds: dict[str, list[float]] = {"1": [], "0": []}
    for _ in range(repeats + 1):
        for discovery, found in seconds.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LM_EVAL_INVERSION_DISCOVERY": discovery})
            found.append(time.perf_counter() - began)
    # The first of each reads files that the later ones find in memory.
    with_hook, without = (statistics.median(found[1:]) for found in seconds.values())
    print(f"lm_eval ls tasks: {with_hook:.2f} s with the plugin, {without:.2f} s without, difference {with_hook - without:+.2f} s")


def run(model: str, task: str, limit: int, inverter_dtype: str) -> None:
    """Share of a whole run's wall time, start-up of the host and loading of the model included."""
    began = time.perf_counter()
    import lm_eval
    from lm_eval.tasks import TaskManager

    from lm_eval_inversion.adapters.lm_eval.base import ConversationTask
    from lm_eval_inversion.precision import choose_device, fast_dtype

    inside = 0.0
    scoring = ConversationTask.apply_filters

    def timed(self: ConversationTask) -> None:
        nonlocal inside
        started = time.perf_counter()
        scoring(self)
        inside += time.perf_counter() - started

    ConversationTask.apply_filters = timed  # type: ignore[method-assign]
    dtype = str(fast_dtype(choose_device())).removeprefix("torch.")
    metadata = {"inverter_dtype": inverter_dtype} if task.startswith("prompt_inversion") else {}
    lm_eval.simple_evaluate(
        model="hf", model_args=f"pretrained={model},dtype={dtype}", tasks=[task], task_manager=TaskManager(metadata=metadata),
        metadata=metadata, apply_chat_template=True, batch_size=64, limit=limit, bootstrap_iters=0, device=choose_device(),
    )  # fmt: skip
    total = time.perf_counter() - began
    print(f"{task}, {limit} prompts: {total:.0f} s in all, {inside:.0f} s in this package's scoring ({inside / total:.0%})")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start").add_argument("--repeats", type=int, default=5)
    of_run = verbs.add_parser("run")
    of_run.add_argument("--model", required=True)
    of_run.add_argument("--task", default="prompt_inversion_ordinary")
    of_run.add_argument("--limit", type=int, default=8)
    of_run.add_argument("--inverter-dtype", default="auto")
    options = parser.parse_args()
    if options.verb == "start":
        start(options.repeats)
    else:
        run(options.model, options.task, options.limit, options.inverter_dtype)


if __name__ == "__main__":
    main()
