"""A training as it goes: its budget, its learning rate, its log, and the state from which it goes on after a kill."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm

from lm_eval_inversion.precision import fast_dtype
from lm_eval_inversion.training.adapter import PACKED_BASE_FILE, write_whole
from lm_eval_inversion.training.pairs import Data, Pair, pairs_hash

FIRST_STATE_SECONDS, STATE_EVERY_SECONDS = 60.0, 600.0  # early once, so that a run that is killed every few minutes still gets on
LAST_FOLDER, STATE_FILE, LOG_FILE = "last", "state.safetensors", "log.jsonl"  # OUTPUT/last/state.safetensors, OUTPUT/log.jsonl
# What options meant before there were any: a run that knows nothing of one goes on as it began.
OLDER_STARTS = {"output_layers": 0, "teacher": None}
START_FILE, BASE_HASH_FILE = "start.json", "base.sha256"  # the second of runs of older versions


class Run:
    """Steps, log and saved state of a training, whatever model it trains.

    Where the output folder holds a run, its parameters and moments are restored at once, and the clock goes on where it stood.

    Args:
        options: ``output``, ``minutes``, ``steps``, ``warmup``, ``lr`` and ``batch``, as on the command line.
        parameters: name -> what is trained.
        optimizer: of them; ``self.optimizer`` may be put in its place later, as by accelerate.
        processes: that share the examples out among themselves.
        writes: whether this process logs and saves.

    Raises:
        ValueError: see ``resumed``.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        parameters: dict[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        processes: int = 1,
        writes: bool = True,
    ) -> None:
        self.options, self.parameters, self.optimizer, self.writes = options, parameters, optimizer, writes
        self.folder: Path = options.output / LAST_FOLDER
        self.progress = resumed(load_state(self.folder, parameters, optimizer), options.batch, processes)

    def start(self) -> None:
        """Start the clock, the log and the progress bar: what comes before costs nothing of the budget."""
        now = time.monotonic()
        self._began, self._save_at = now - self.progress["seconds"], now + FIRST_STATE_SECONDS
        self._log = open_log(self.options.output / LOG_FILE) if self.writes else None
        self._bar = tqdm(total=self.options.steps or None, initial=self.step, unit="step", disable=not self.writes)

    @property
    def step(self) -> int:
        """Steps that were made, those before a kill too."""
        return int(self.progress["step"])

    def share_done(self) -> float:
        """See ``share_done``."""
        return share_done(self.options, self.step, time.monotonic() - self._began)

    def set_rate(self, done: float) -> None:
        """Set the learning rate for a step after this share of the run."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(done, self.options.warmup, self.options.lr)

    def update(self) -> None:
        """One step of the optimiser on clipped gradients."""
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # kept: fresh memory costs a CPU more than zeros

    def count(self, loss: float, epoch: float, **columns: float) -> None:
        """Count and log a step; ``columns`` stand beside its loss."""
        self.progress["step"] += 1
        self.progress["examples"] += self.options.batch
        self.progress["seconds"] = time.monotonic() - self._began
        self.log({"step": self.step, "loss": loss, **columns, "epoch": epoch, "seconds": self.progress["seconds"]})
        self._bar.update()
        self._bar.set_postfix(loss=f"{loss:.3f}", epoch=f"{epoch:.2f}")

    def log(self, row: dict[str, Any]) -> None:
        """Write a line of the log."""
        if self._log is not None:
            self._log.write(json.dumps(row) + "\n")
            self._log.flush()

    def log_evaluation(self, data: Data, evaluate: Callable[[Sequence[Pair]], dict[str, float]]) -> dict[str, Any]:
        """Evaluate on the held-out pairs and on those of the dev split (``dev_``), where there are any; the row that was logged."""
        row: dict[str, Any] = {"step": self.step}
        if data.held_out:
            row |= {"held_out": pairs_hash(data.held_out), **evaluate(data.held_out)}
        if data.dev:
            row |= {f"dev_{name}": value for name, value in evaluate(data.dev).items()}
        self.log(row)
        return row

    def save_when_due(self) -> None:
        """Save the state every so often."""
        if self.writes and time.monotonic() > self._save_at:
            self.save()
            self._save_at = time.monotonic() + STATE_EVERY_SECONDS

    def save(self) -> None:
        """Save the state."""
        if self.writes:
            save_state(self.folder, self.parameters, self.optimizer, self.progress)

    def close(self) -> None:
        """Close the log and the progress bar."""
        if self._log is not None:
            self._log.close()
        self._bar.close()


def learning_rate(done: float, steps_warm: float, peak: float) -> float:
    """Linear warm-up, then cosine to a twentieth; ``done`` and ``steps_warm`` are fractions of the run."""
    if done < steps_warm:
        return peak * done / steps_warm
    share = min(1.0, (done - steps_warm) / (1 - steps_warm))
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def share_done(options: argparse.Namespace, step: int, seconds: float) -> float:
    """How much of ``--minutes`` or ``--steps``, whichever is nearer to its end, has been used; 1 and above ends a run."""
    by_time = seconds / (60 * options.minutes) if options.minutes else 0.0
    return max(by_time, step / options.steps if options.steps else 0.0)


def save_state(folder: Path, parameters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Write weights, optimiser moments and progress as one safetensors file, which takes the place of the last one once it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in parameters.items()}
    tensors |= {
        f"{name}|{key}": optimizer.state[value][key]
        for name, value in parameters.items()
        if value in optimizer.state
        for key in ("exp_avg", "exp_avg_sq", "step")
    }
    write_whole(tensors, folder / STATE_FILE, {"progress": json.dumps(progress)})


def load_state(folder: Path, parameters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore what ``save_state`` wrote; None when there is nothing."""
    from safetensors import safe_open

    if not (folder / STATE_FILE).is_file():
        return None
    with safe_open(folder / STATE_FILE, "pt") as stream:
        known = set(stream.keys())
        for name, parameter in parameters.items():
            parameter.data.copy_(stream.get_tensor(name))
            if f"{name}|step" in known:
                # The optimiser wants its moments where the parameter is, and counts steps on the CPU.
                moments = {key: stream.get_tensor(f"{name}|{key}").to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {**moments, "step": stream.get_tensor(f"{name}|step")}
        progress: dict[str, Any] = json.loads(stream.metadata()["progress"])
    return progress


def resumed(progress: dict[str, Any] | None, batch: int, processes: int) -> dict[str, Any]:
    """The progress of a run that begins, or goes on: steps, seconds, and examples that each process has seen.

    Args:
        progress: as it was saved; None at the beginning.
        batch: examples per step and process, which may be another than before.
        processes: of this run; they share the examples out among themselves.

    Raises:
        ValueError: other processes shared the examples out before.
    """
    found = progress or {"step": 0, "seconds": 0.0}
    before = found.get("processes", processes)
    if before != processes:
        raise ValueError(f"--output holds a run of {before} processes; start {before} again, or give another folder (now: {processes})")
    return {"examples": found["step"] * batch, **found, "processes": processes}


def open_log(path: Path) -> TextIO:
    """Open a log to append to, without a last line that a kill or a full disk cut off."""
    if path.is_file():
        with path.open("r+b") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8")


def require_same_start(output: Path, start: dict[str, Any]) -> None:
    """Keep what a run starts from, or compare it: a run that goes on from something else would mix two trainings.

    Args:
        output: run folder; where nothing was trained yet, anything may start.
        start: option -> value.

    Raises:
        ValueError: the folder holds a run that started from something else.
    """
    path, before = output / START_FILE, {}
    if (output / LAST_FOLDER / STATE_FILE).is_file() or (output / PACKED_BASE_FILE).is_file():
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
        elif (output / BASE_HASH_FILE).is_file():
            before = {"base": (output / BASE_HASH_FILE).read_text(encoding="utf-8").strip()}
    if before:
        before = {**OLDER_STARTS, **before}
    for name, value in start.items():
        if before.get(name, value) != value:
            raise ValueError(
                f"--output {output} holds a run that started from another --{name.replace('_', '-')} ({before[name]}, not {value}); give "
                "that one, or another --output"
            )
    if before != start:
        path.write_text(json.dumps(start, indent=2), encoding="utf-8")


def add_bf16_option(parser: argparse.ArgumentParser) -> None:
    """``--bf16`` and ``--no-bf16``, for ``computes_in_bf16``."""
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="compute in bfloat16 (default: where the device is fast in it)"
    )


def computes_in_bf16(asked: bool | None, device: str) -> bool:
    """``--bf16`` or ``--no-bf16``; where neither was given, whatever the device is fast in."""
    return fast_dtype(device) is torch.bfloat16 if asked is None else asked
