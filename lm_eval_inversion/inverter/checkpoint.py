"""Checkpoint folders: ``inverter.json``, ``weights.safetensors``, ``tokenizer.json``; hashes first, then tensors.

``inverter.json`` names the SHA-256 of the other files; the SHA-256 of ``inverter.json`` is the identity of the checkpoint. No
pickle, no code from the folder, no other package's weights.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_inversion.hashing import SHORT_HASH_DIGITS, file_sha256

FORMAT_VERSION = 1
ARCHITECTURE = "sparse-prefix"
DESCRIPTION_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "inverter.json", "weights.safetensors", "tokenizer.json"


class CheckpointError(ValueError):
    """A checkpoint folder is incomplete, damaged or of an unknown kind."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint folder.

    Attributes:
        folder: where it is.
        description: the content of ``inverter.json``.
        hash: first digits of the SHA-256 of ``inverter.json``.
    """

    folder: Path
    description: dict[str, Any]
    hash: str


def verify_checkpoint(folder: Path, expected_sha256: str | None = None) -> Checkpoint:
    """Check every file's SHA-256 before anything of it is used.

    Args:
        expected_sha256: of ``inverter.json``, where it is known (shipped checkpoints).

    Raises:
        CheckpointError: a file is missing or differs from its hash, or the format is unknown.
    """
    description_path = folder / DESCRIPTION_FILE
    if not description_path.is_file():
        raise CheckpointError(f"{folder} is not an inverter checkpoint: {DESCRIPTION_FILE} is missing")
    actual = file_sha256(description_path)
    if expected_sha256 is not None and actual != expected_sha256:
        raise CheckpointError(_damaged(description_path, expected_sha256, actual))
    try:
        description = json.loads(description_path.read_text(encoding="utf-8"))
        hashes = dict(description["sha256"])
        known = description["format_version"] == FORMAT_VERSION and description["architecture"] == ARCHITECTURE
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{description_path} is not a checkpoint description ({type(error).__name__}: {error})") from error
    if not known:
        raise CheckpointError(
            f"{description_path}: format {description['format_version']}/{description['architecture']} is unknown to this version of "
            f"lm-eval-inversion, which reads {FORMAT_VERSION}/{ARCHITECTURE}; update the package"
        )
    for name in (WEIGHTS_FILE, TOKENIZER_FILE):
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing")
        if name not in hashes:
            raise CheckpointError(f"{description_path} holds no hash of {name}")
        if (found := file_sha256(path)) != hashes[name]:
            raise CheckpointError(_damaged(path, hashes[name], found))
    return Checkpoint(folder, description, actual[:SHORT_HASH_DIGITS])


def _damaged(path: Path, expected: str, actual: str) -> str:
    return (
        f"{path} is damaged or was changed: SHA-256 is {actual[:SHORT_HASH_DIGITS]}…, expected {expected[:SHORT_HASH_DIGITS]}…; "
        "get the file again (for the shipped checkpoint: pip install --force-reinstall --no-deps lm-eval-inversion)"
    )


def write_checkpoint(
    folder: Path,
    packed: dict[str, Any],
    tokenizer_file: Path,
    *,
    block_format: dict[str, int],
    model_config: dict[str, Any],
    training: dict[str, Any],
) -> str:
    """Write a checkpoint folder; returns the SHA-256 of its ``inverter.json``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(packed, folder / WEIGHTS_FILE)
    shutil.copyfile(tokenizer_file, folder / TOKENIZER_FILE)
    description = {
        "format_version": FORMAT_VERSION,
        "architecture": ARCHITECTURE,
        "block_format": block_format,
        "model_config": model_config,
        "training": training,
        "sha256": {name: file_sha256(folder / name) for name in (WEIGHTS_FILE, TOKENIZER_FILE)},
    }
    path = folder / DESCRIPTION_FILE
    path.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return file_sha256(path)
