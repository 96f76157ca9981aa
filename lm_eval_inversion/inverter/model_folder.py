"""Folders as transformers saves models: what can be found wrong with one before a run, without loading its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# How transformers is to read a folder that somebody else may have written. Without the second, it asks on the terminal whether to run the
# folder's code, and takes a piped "y" for an answer.
READING = {"local_files_only": True, "trust_remote_code": False}


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
    """The small files of a folder; nothing is fetched, and no code of the folder is run. Arguments as of ``require_weights``.

    Raises:
        ValueError: transformers cannot read them.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(str(folder), **READING)
        return config, AutoTokenizer.from_pretrained(str(folder), **READING)
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"inverter={name!r}: transformers cannot read {folder} ({str(error).splitlines()[0][:200]})") from error


def whole_model(kind: Any, folder: Path, label: str, **settings: Any) -> Any:
    """A model whose every weight stands in the folder; nothing is fetched, and no code of the folder is run.

    Args:
        kind: a transformers class with ``from_pretrained``.
        folder: of the model.
        label: what named the folder, for the error, such as "inverter='t5:FOLDER'".
        settings: further ones of ``from_pretrained``.

    Raises:
        OSError: transformers cannot read the folder.
        ValueError: a weight is missing that no other one stands for; transformers would make it up at random.
    """
    model, found = kind.from_pretrained(str(folder), use_safetensors=True, output_loading_info=True, **READING, **settings)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{label}: {folder} lacks {len(missing)} weights of a {type(model).__name__} ({missing[0]} among them), which would "
            "be random numbers; give a folder that a whole model was saved to"
        )
    return model


def require_whole_model(kind: Any, folder: Path, name: str, config: Any) -> None:
    """Check that ``whole_model`` will succeed, on a model without memory: of the weights only names and shapes are used.

    Weights that were quantised after training are left to ``whole_model``: they may need a GPU to be looked at.

    Raises:
        ValueError: it will not.
    """
    if getattr(config, "quantization_config", None) is not None:
        return
    try:
        whole_model(kind, folder, f"inverter={name!r}", device_map="meta")
    except ValueError:
        raise
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"inverter={name!r}: transformers cannot read {folder} ({str(error).splitlines()[0][:200]})") from error
