"""Folders as transformers saves models: what can be found wrong with one before a run, without loading its weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# How transformers is to read a folder that somebody else may have written. Without the second, it asks on the terminal whether to run the
# folder's code, and takes a piped "y" for an answer.
READING = {"local_files_only": True, "trust_remote_code": False}
INDEX_FILE, WEIGHTS_FILE = "model.safetensors.index.json", "model.safetensors"
_POINTER = b"version https://git-lfs"  # how the file begins that git-lfs leaves where nothing was fetched


def require_weights(folder: Path, name: str) -> None:
    """Check that the files are there which hold the weights.

    Args:
        folder: of the model.
        name: of the inverter, for the error.

    Raises:
        ValueError: there are none in safetensors, one that the index names is missing, or see ``require_undamaged``.
    """
    wanted = _indexed(folder, f"inverter={name!r}")
    missing = sorted(file for file in wanted if not (folder / file).is_file())
    if missing or not (wanted or list(folder.glob("*.safetensors"))):
        raise ValueError(
            f"inverter={name!r}: {folder} lacks {missing[0] if missing else 'weights in safetensors'}; get the folder again, or save "
            "the model with save_pretrained (other formats are not read)"
        )
    require_undamaged(folder, f"inverter={name!r}")


def require_undamaged(folder: Path, label: str) -> None:
    """Check that the safetensors files of a model begin as such files do and are as long as they say; others are not looked at.

    Args:
        folder: of the model; a hub name, which is no folder here, passes.
        label: what named the folder, for the error, such as "--model FOLDER".

    Raises:
        ValueError: one is damaged, or stands for weights that were not fetched.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        return
    # Other files of weights may lie beside those that transformers reads.
    files = [folder / file for file in _indexed(folder, label)] or [folder / WEIGHTS_FILE]
    for path in sorted(path for path in files if path.is_file()):
        with path.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise ValueError(f"{label}: {path} is a pointer of git-lfs, not the weights; run git lfs pull in {folder}")
        try:
            with safe_open(path, "np"):
                pass
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{label}: {path} is damaged ({error}); get the file again, or save the model again") from error


def _indexed(folder: Path, label: str) -> set[str]:
    """Names of the files that the index of a model's weights lists; none where it has no index.

    Raises:
        ValueError: the index is none.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        return set()
    try:
        files = {str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{label}: {index} is no index of weights ({type(error).__name__}: {error}); get the file again, or save the model again"
        ) from error
    if not files:
        raise ValueError(f"{label}: {index} names no files; get the file again, or save the model again")
    return files


def require_vocabulary(tokenizer: Any, config: Any, name: str, used: Iterable[int] = ()) -> None:
    """Check that a tokenizer is one of its model: that no token of it lies outside of the model's vocabulary.

    Special tokens are left out, because texts never become any here, and some models have more of them than they have room for.

    Args:
        tokenizer: of the folder.
        config: of its model.
        name: of the inverter, for the error.
        used: special tokens that are used all the same.

    Raises:
        ValueError: one lies outside.
    """
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    largest = max({*tokenizer.get_vocab().values()} - special | {*used}, default=0)
    size = config.get_text_config().vocab_size
    if largest >= size:
        raise ValueError(
            f"inverter={name!r}: its tokenizer has a token {largest}, but the model's vocab_size is {size}; put the model's own tokenizer "
            "into the folder"
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
