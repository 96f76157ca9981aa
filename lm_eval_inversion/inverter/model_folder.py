"""Folders as transformers saves models: what can be found wrong with one before a run, without loading its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def require_weights(folder: Path, name: str) -> None:
    """Check that the files are there which hold the weights.

    Args:
        folder: of the model.
        name: of the inverter, for the error.

    Raises:
        ValueError: there are none in safetensors, or one that the index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    missing = sorted(file for file in wanted if not (folder / file).is_file())
    if missing or not (wanted or list(folder.glob("*.safetensors"))):
        raise ValueError(
            f"inverter={name!r}: {folder} lacks {missing[0] if missing else 'weights in safetensors'}; get the folder again, or save "
            "the model with save_pretrained (other formats are not read)"
        )


def config_and_tokenizer(folder: Path, name: str) -> tuple[Any, Any]:
    """The small files of a folder; nothing is fetched. Arguments as of ``require_weights``.

    Raises:
        ValueError: transformers cannot read them.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        return config, AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"inverter={name!r}: transformers cannot read {folder} ({str(error).splitlines()[0][:200]})") from error
