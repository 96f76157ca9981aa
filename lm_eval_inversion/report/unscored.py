"""Runs without scores (lm_eval's ``--predict_only``, Inspect's ``--no-score``, or ended too soon): left out of folders, and named.

Whoever names such a file, or a folder with nothing else, means that run: there it is an error. In a folder with other runs it is what a
scoring left behind, or is still to be scored, and must not cost the other runs their report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_inversion.report.numbers import some_names

if TYPE_CHECKING:
    from lm_eval_inversion.report.reading import Results


def part_unscored(found: Sequence[Results], paths: Sequence[Path]) -> tuple[list[Results], list[Results]]:
    """The runs that have scores, and those without scores; all that are left out are named on stderr.

    A log whose scored copy was read too (``inspect score --output-file``) is in neither: nothing of its run is missing.

    Args:
        found: all runs of some files, in any order.
        paths: the files and folders that a user named to have them read.

    Raises:
        ValueError: a run without scores was named itself, or stands in a named folder that holds no run with scores; the message names it.
    """
    scored = [results for results in found if not results.unscored]
    attempts = {results.attempt for results in scored if results.attempt}
    left_out = [results for results in found if results.unscored]
    unscored = [results for results in left_out if results.attempt not in attempts]
    named = {path.resolve() for path in paths}
    meant = [results for results in unscored if results.source is not None and results.source.resolve() in named]
    for folder in paths:
        if not _within(folder, scored):
            meant += _within(folder, unscored)
    if meant:
        raise ValueError(f"{meant[0].source}: {meant[0].unscored}")
    _tell("a scored copy of the same run is there", [results for results in left_out if results.attempt in attempts])
    _tell(
        "they have no scores (--no-score or --no-log-samples of Inspect, --predict_only of lm_eval, or interrupted before the first)",
        unscored,
    )
    return scored, unscored


def _within(folder: Path, runs: Sequence[Results]) -> list[Results]:
    return [results for results in runs if results.source is not None and results.source.is_relative_to(folder)]


def _tell(why: str, runs: Sequence[Results]) -> None:
    if runs:
        print(f"warning: left out, because {why}: {some_names([str(results.source) for results in runs])}", file=sys.stderr)
