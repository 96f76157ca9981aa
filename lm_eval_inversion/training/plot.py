"""Draw a training from its log: the loss of the steps, and nats on prompts that were not trained on.

Command (needs matplotlib, in the extra ``[train]``)::

    python -m lm_eval_inversion.training.plot runs/v1/log.jsonl -o training.svg

The logs of several stages, in their order, become one curve.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What training.train logs at an evaluation -> its words in the legend.
CURVES = {
    "nats": "held out: own outputs",
    "nats_no_outputs": "held out: no outputs",
    "nats_swapped": "held out: another prompt's outputs",
    "dev_nats": "dev: own outputs",
    "dev_nats_no_outputs": "dev: no outputs",
    "dev_nats_swapped": "dev: another prompt's outputs",
}
SMOOTHED_OVER = 0.02  # of all steps: the loss of one batch says little
COLOURS = {"nats": "#1b6ca8", "no_outputs": "#7a7a7a", "swapped": "#c8553d"}


@dataclass
class Log:
    """What a plot needs: (step, value) of the loss and of every curve of ``CURVES`` that was logged."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    stage_ends: list[int] = field(default_factory=list)


def read_log(paths: Sequence[Path]) -> Log:
    """Read the logs of one or more stages; each stage's steps are counted on from those before.

    A run that was killed goes on from its last saved state and logs some steps twice: the later ones count.

    Raises:
        ValueError: a file is missing, damaged, or holds no steps.
    """
    log, before = Log(), 0
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path} does not exist; give the log.jsonl of a run folder of training.train")
        losses: dict[int, float] = {}
        curves: dict[str, dict[int, float]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                step = int(row["step"])
                if "loss" in row:
                    losses[step] = float(row["loss"])
                for name in CURVES:
                    if name in row:
                        curves.setdefault(name, {})[step] = float(row[name])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} line {number} is no row of training.train ({type(error).__name__}: {error})") from error
        if not losses:
            raise ValueError(f"{path} holds no steps; give the log.jsonl of a run folder of training.train")
        log.loss += [(before + step, losses[step]) for step in sorted(losses)]
        for name, values in curves.items():
            log.curves.setdefault(name, []).extend((before + step, values[step]) for step in sorted(values))
        before += max(losses)
        log.stage_ends.append(before)
    return log


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and up to ``width - 1`` before it."""
    return [sum(values[max(0, index + 1 - width) : index + 1]) / min(width, index + 1) for index in range(len(values))]


def draw(log: Log) -> Any:
    """The figure: loss on top, nats below, over the same steps.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError('the plot needs matplotlib; install it with pip install "lm-eval-inversion[train]"') from error

    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
    steps, losses = zip(*log.loss)
    top.plot(steps, losses, color="#b9cbd8", linewidth=0.8, label="each step")
    top.plot(steps, smoothed(losses, max(1, round(SMOOTHED_OVER * len(losses)))), color=COLOURS["nats"], label="running mean")
    top.set_ylabel("training loss, nats per token")
    top.legend(frameon=False)
    for name, points in log.curves.items():
        colour = next(value for key, value in reversed(COLOURS.items()) if name.endswith(key))
        bottom.plot(*zip(*points), color=colour, linestyle="--" if name.startswith("dev_") else "-", marker=".", label=CURVES[name])
    bottom.set_ylabel("nats per prompt")
    bottom.set_xlabel("step")
    if log.curves:
        bottom.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))  # below: curves may be anywhere
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        for end in log.stage_ends[:-1]:
            axes.axvline(end, color="#dddddd", linewidth=1)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.plot", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("logs", nargs="+", type=Path, help="log.jsonl of a run folder, of each stage in order")
    parser.add_argument("-o", "--output", required=True, type=Path, help=".svg, .png or .pdf file")
    options = parser.parse_args(arguments)
    if options.output.suffix not in (".svg", ".png", ".pdf"):
        parser.error(f"--output {options.output}: the name must end in .svg, .png or .pdf")
    try:
        figure = draw(read_log(options.logs))
    except ValueError as error:
        parser.error(str(error))
    import matplotlib

    options.output.parent.mkdir(parents=True, exist_ok=True)
    # The same log gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "lm-eval-inversion"}):
        figure.savefig(options.output, metadata={"Date": None} if options.output.suffix == ".svg" else None)
    print(options.output)


if __name__ == "__main__":
    main()
