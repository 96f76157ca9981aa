"""Runs of both hosts and of the training tools, as functions that a forked process can call.

Each takes plain values, writes what it prints to a file, and leaves its results where its arguments say.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from own_tasks import index_own_tasks_only

PRELOADED = ["torch", "transformers", "peft", "lm_eval.__main__", "lm_eval.models.huggingface", "sentence_transformers", "inspect_ai"]
PRELOADED += ["lm_eval_inversion.adapters.lm_eval.task", "lm_eval_inversion.adapters.inspect.tasks", "lm_eval_inversion.training.train"]
PATIENCE = 120  # seconds until a process that should have done something counts as hanging
TASK = "prompt_inversion_ordinary"


def lm_eval_arguments(model: Path, output: Path, *, tasks: str, metadata: list[str], batch_size: int = 8, limit: int = 2) -> list[str]:
    """A greedy run of lm_eval on the CPU in float32, as on the command line behind ``lm_eval``."""
    return [
        "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", tasks, "--metadata", *metadata, "--limit",
        str(limit), "--apply_chat_template", "--device", "cpu", "--batch_size", str(batch_size), "--gen_kwargs",
        "temperature=0,max_gen_toks=12", "--log_samples", "--output_path", str(output),
    ]  # fmt: skip


@contextlib.contextmanager
def _to_file(log: str) -> Iterator[None]:
    """Standard output and error into a file, of this process and of its libraries."""
    with open(log, "ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    yield


def run_lm_eval(arguments: list[str], log: str, stop_at_batch: int | None = None, answers: list[str] | None = None) -> None:
    """lm_eval's command line.

    Args:
        stop_at_batch: the process stands still there, so that it can be killed in the middle.
        answers: what the model answers in turn, whatever it is asked.
    """
    with _to_file(log):
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.models.huggingface import HFLM

        if stop_at_batch is not None:
            HFLM._model_generate = _standing_still(HFLM._model_generate, stop_at_batch)
        if answers is not None:
            said = itertools.cycle(answers)
            HFLM.generate_until = lambda self, requests, **_: [next(said) for _ in requests]
        index_own_tasks_only()
        sys.argv = ["lm_eval", *arguments]
        cli_evaluate()


def _standing_still(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls = 0

    def stand_in(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= call:
            print("standing still", flush=True)
            time.sleep(10 * PATIENCE)
        return function(*arguments, **keywords)

    return stand_in


def inspect_settings(model: Path, logs: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """A greedy run of Inspect on the CPU, one sample after the other, each written to the log at once."""
    model_args = {"model_path": str(model), "tokenizer_path": str(model), "device": "cpu", "do_sample": False}
    return {
        "tasks": f"lm_eval_inversion/{TASK}", "model": "hf/local", "model_args": model_args, "task_args": metadata, "limit": 2,
        "max_tokens": 12, "max_samples": 1, "max_connections": 1, "log_buffer": 1, "log_dir": str(logs), "display": "none",
    }  # fmt: skip


def run_inspect(settings: dict[str, Any], log: str, stop_at_answer: int | None = None, fail_at_answer: int | None = None) -> None:
    """Inspect's ``eval``.

    Args:
        stop_at_answer: the process stands still there, so that it can be killed in the middle.
        fail_at_answer: the model fails there, once and for all.
    """
    with _to_file(log):
        from inspect_ai import eval as inspect_eval
        from inspect_ai.model._providers.hf import HuggingFaceAPI

        generate, calls = HuggingFaceAPI.generate, itertools.count(1)

        async def stand_in(*arguments: Any, **keywords: Any) -> Any:
            call = next(calls)
            if stop_at_answer is not None and call >= stop_at_answer:
                print("standing still", flush=True)
                time.sleep(10 * PATIENCE)
            if fail_at_answer is not None and call >= fail_at_answer:
                raise RuntimeError("the model has failed")
            return await generate(*arguments, **keywords)

        HuggingFaceAPI.generate = stand_in
        inspect_eval(**settings)


def retry_inspect(logs: str, log: str) -> None:
    """Inspect's ``eval-retry`` of the (one) log of a folder, into the same folder."""
    with _to_file(log):
        from inspect_ai import eval_retry
        from inspect_ai.log import list_eval_logs

        (interrupted,) = list_eval_logs(logs)
        eval_retry(interrupted, log_dir=logs, display="none", max_samples=1, max_connections=1)


def run_collect(settings: dict[str, Any], log: str, stop_at_batch: int | None = None) -> None:
    """``training.collect``; see ``run_lm_eval`` for ``stop_at_batch``."""
    with _to_file(log):
        from lm_eval_inversion.training import collect, generation

        if stop_at_batch is not None:
            generation.sample_answers = _standing_still(generation.sample_answers, stop_at_batch)
        collect.main([word for key, value in settings.items() for word in (f"--{key}", str(value))])


def run_train(arguments: list[str], log: str, stop_at_step: int | None = None, stop_at_save: int | None = None) -> None:
    """``training.train``, with its state saved after every step; see ``run_lm_eval`` for stopping, at a step or in the middle of a save."""
    with _to_file(log):
        import safetensors.torch

        from lm_eval_inversion.training import running, train

        running.FIRST_STATE_SECONDS = running.STATE_EVERY_SECONDS = -1.0
        if stop_at_step is not None:
            running.learning_rate = _standing_still(running.learning_rate, stop_at_step)
        if stop_at_save is not None:
            safetensors.torch.save_file = _half_written(safetensors.torch.save_file, stop_at_save)
        train.main(arguments)


def _half_written(save: Callable[..., Any], call: int) -> Callable[..., Any]:
    """Saves as usual, until one call writes half of the file and stands still."""
    calls = 0

    def stand_in(tensors: Any, path: Any, *arguments: Any, **keywords: Any) -> None:
        nonlocal calls
        calls += 1
        save(tensors, path, *arguments, **keywords)
        if calls == call:
            with open(path, "r+b") as stream:
                stream.truncate(Path(path).stat().st_size // 2)
            print("standing still", flush=True)
            time.sleep(10 * PATIENCE)

    return stand_in


def no_file_beyond(most: int) -> None:
    """From now on no file of this process can grow beyond ``most`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails as it does on a full disk: with an OSError
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def with_full_disk(function: str, most: int, *arguments: Any, **keywords: Any) -> None:
    """Run a function of this module where no file can grow beyond ``most`` bytes."""
    no_file_beyond(most)
    globals()[function](*arguments, **keywords)


def rewrite_checkpoint(folder: str, log: str) -> None:
    """Write other weights into a checkpoint folder."""
    with _to_file(log):
        import torch

        from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE, TOKENIZER_FILE, write_checkpoint

        known = json.loads((Path(folder) / DESCRIPTION_FILE).read_text())
        write_checkpoint(
            Path(folder), {"w": torch.zeros(100_000)}, Path(folder) / TOKENIZER_FILE, block_format=known["block_format"],
            model_config=known["model_config"], training={}, words=None,
        )  # fmt: skip


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Until a condition holds.

    Raises:
        TimeoutError: it does not hold after ``PATIENCE`` seconds.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)


def says(log: Path, text: str) -> bool:
    """Whether a run has printed a text."""
    return log.exists() and text in log.read_text(errors="replace")


def finished(process: Any, log: Path) -> str:
    """What a forked run printed, once it has ended well."""
    process.join(PATIENCE)
    text = log.read_text(errors="replace")
    assert process.exitcode == 0, f"exit code {process.exitcode}\n{text[-4000:]}"
    return text


def cached_answers(path: Path) -> int:
    """Rows of lm_eval's response cache."""
    files = list(path.parent.glob(path.name + "*.db"))
    if not files:
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{files[0]}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from unnamed").fetchone()[0])
    except sqlite3.OperationalError:  # being created
        return 0


def samples(folder: Path) -> dict[str, list[str]]:
    """Task -> lines of its ``samples_*.jsonl``, as they stand in the file."""
    return {
        path.name.removeprefix("samples_").rpartition("_")[0]: path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        for path in sorted(folder.rglob("samples_*.jsonl"))
    }


def numbers(folder: Path) -> dict[str, Any]:
    """Task -> metrics of the (one) results file of a folder."""
    (path,) = folder.rglob("results_*.json")
    return dict(json.loads(path.read_text(encoding="utf-8"))["results"])
