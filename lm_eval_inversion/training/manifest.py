"""The manifest beside a checkpoint: all system prompts that it was trained on, in its own stages and in those that it grew from.

Overlap tests and the ``nearest`` baseline read it.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

from lm_eval_inversion.inverter.baselines import read_training_prompts

TRAINING_PROMPTS_FILE = "training_prompts.jsonl.xz"


def write_training_prompts(path: Path, prompts: Iterable[str]) -> None:
    """Write the distinct training prompts, sorted."""
    lines = "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in sorted(set(prompts)))
    path.write_bytes(lzma.compress(lines.encode("utf-8"), preset=9))


def manifest_of(folder: Path) -> tuple[str, ...]:
    """The training prompts of a checkpoint, or those that a training run began with.

    Raises:
        FileNotFoundError: the folder has no manifest.
        ValueError: the manifest is damaged.
    """
    path = folder / TRAINING_PROMPTS_FILE
    try:
        return read_training_prompts(path.read_bytes())
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); get the file again, it says what the checkpoint was trained on") from error
