"""From the name of an inverter to the inverter.

``default`` is the checkpoint that ships with the package. Other names: a checkpoint folder, ``hub:org/name@REVISION``
(a full commit hash), ``t5:<folder>`` (the paper's architecture), ``asked:<folder>`` or ``asked:hub:org/name@REVISION`` (a chat model that
is asked to guess), and the baselines ``nearest``, ``central``, ``constant``.
"""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_inversion.inverter.base import Inverter
from lm_eval_inversion.inverter.baselines import BASELINES
from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE, verify_checkpoint
from lm_eval_inversion.inverter.model_folder import require_weights
from lm_eval_inversion.precision import choose_device

if TYPE_CHECKING:
    import torch

DEFAULT = "default"
# SHA-256 of inverter.json of the shipped checkpoint; training.pack prints it. Every other file's hash stands in that file.
DEFAULT_SHA256 = "d7aa466ad168c4607f283bd3bdcc51cc6ea4ece78312ef81b8ba8f5043bc5adf"
_HUB_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")

DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def shipped_checkpoint() -> Path:
    """The folder of the checkpoint that ships with the package."""
    return Path(str(files("lm_eval_inversion").joinpath("checkpoints")))


def check_inverter(name: str, device: str = "auto", dtype: str = "auto") -> None:
    """Fail now, and not after hours of generation, when ``load_inverter`` with the same arguments would fail.

    Raises:
        ValueError: see ``load_inverter``; checkpoint folders are verified, hub names are fetched.
    """
    check_dtype(dtype)
    if name in BASELINES:
        return
    if device != "auto" or dtype == "int8":
        choose_dtype(dtype, choose_device(device, "inverter_device"), name)
    if name.startswith("t5:"):
        from lm_eval_inversion.inverter.sparse_t5 import check_t5

        check_t5(_t5_folder(name), name)
        return
    if name.startswith("asked:"):
        from lm_eval_inversion.inverter.asked_model import check_folder

        check_folder(_asked_folder(name), name)
        return
    folder, expected = _checkpoint_folder(name)
    verify_checkpoint(folder, expected)


def load_inverter(name: str | os.PathLike[str] = DEFAULT, device: str = "auto", dtype: str = "auto") -> Inverter:
    """Load an inverter.

    Args:
        name: "default", a checkpoint folder, "hub:org/name@REVISION" (a full commit hash), "t5:<folder>", "asked:<folder>",
            "asked:hub:org/name@REVISION", or a baseline ("nearest", "central", "constant").
        device: "auto" (this process's GPU if there is one, else the CPU) or a torch device.
        dtype: "auto" (float32 on CPU, bfloat16 on GPU), "float32", "bfloat16", "float16", or "int8": checkpoints on a CPU only,
            faster and smaller, a little less exact (``eight_bit``).

    Raises:
        ValueError: the name, device or dtype is unknown or they do not go together, or the hub cannot be reached.
        CheckpointError: a checkpoint is incomplete or damaged (a ``ValueError`` too).
    """
    name = os.fspath(name)
    if name in BASELINES:
        return BASELINES[name]()
    if name.startswith("t5:"):
        from lm_eval_inversion.inverter.sparse_t5 import SparseT5Inverter

        chosen = choose_device(device, "inverter_device")
        return SparseT5Inverter.from_folder(_t5_folder(name), name=name, device=chosen, dtype=choose_dtype(dtype, chosen, name))
    if name.startswith("asked:"):
        from lm_eval_inversion.inverter.asked_model import AskedModelInverter

        chosen = choose_device(device, "inverter_device")
        return AskedModelInverter.from_folder(_asked_folder(name), name=name, device=chosen, dtype=choose_dtype(dtype, chosen, name))
    folder, expected = _checkpoint_folder(name)
    from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter

    chosen = choose_device(device, "inverter_device")
    return SparsePrefixInverter.from_folder(
        folder, name=name, device=chosen, dtype=choose_dtype(dtype, chosen, name), expected_sha256=expected
    )


def check_dtype(dtype: str) -> None:
    """Check the name of a type.

    Raises:
        ValueError: the name is unknown.
    """
    if dtype not in DTYPES:
        raise ValueError(f"inverter_dtype={dtype!r} is unknown; known: {', '.join(DTYPES)}")


def choose_dtype(dtype: str, device: str, inverter: str = DEFAULT) -> torch.dtype:
    """A torch type by name; "auto" gives the same numbers on every CPU, and speed on a GPU.

    Raises:
        ValueError: the name is unknown, or "int8" is not for this device or inverter.
    """
    import torch

    check_dtype(dtype)
    if dtype == "auto":
        return torch.float32 if device.startswith("cpu") else torch.bfloat16
    if dtype == "int8" and not device.startswith("cpu"):
        raise ValueError(f"inverter_dtype='int8' is for CPUs; on {device} give auto or bfloat16, or give inverter_device=cpu")
    if dtype == "int8" and inverter.startswith(("t5:", "asked:")):
        raise ValueError(f"inverter_dtype='int8' is for checkpoints with an inverter.json; for {inverter} give float32 or bfloat16")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}[dtype]


def _checkpoint_folder(name: str) -> tuple[Path, str | None]:
    """Folder of a named checkpoint, and the SHA-256 of its description where that is pinned."""
    if name == DEFAULT:
        return shipped_checkpoint(), DEFAULT_SHA256
    if name.startswith("hub:"):
        return _from_hub(name), None
    folder = Path(name).expanduser()
    if not (folder / DESCRIPTION_FILE).is_file():
        found = "a folder without inverter.json" if folder.is_dir() else "no folder"
        raise ValueError(
            f"inverter={name!r} is unknown ({found}); give {DEFAULT}, a checkpoint folder, hub:org/name@REVISION, t5:<folder>, "
            f"asked:<folder>, or a baseline: {', '.join(BASELINES)}"
        )
    return folder, None


def _t5_folder(name: str) -> Path:
    folder = Path(name.removeprefix("t5:")).expanduser()
    if not (folder / "config.json").is_file():
        raise ValueError(f"inverter={name!r}: {folder} holds no config.json; give the folder of a T5ForConditionalGeneration")
    require_weights(folder, name)
    return folder


def _asked_folder(name: str) -> Path:
    source = name.removeprefix("asked:")
    folder = _from_hub(name) if source.startswith("hub:") else Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"inverter={name!r}: {folder} holds no config.json; give the folder of a chat model, or asked:hub:org/name@REVISION"
        )
    require_weights(folder, name)
    return folder


def _from_hub(name: str) -> Path:
    match = _HUB_NAME.fullmatch(name.removeprefix("asked:"))
    if not match or not _COMMIT.fullmatch(match["revision"]):
        found = f"{match['revision']!r} is not one" if match else "there is none, or the name has another form"
        raise ValueError(
            f"inverter={name!r}: a model on the hub needs the full commit hash of 40 hex digits ({found}), as in hub:org/name@REVISION: "
            "branches, tags and pull requests move, and the same name would then stand for another inverter. The model's page shows it "
            "under Files, History"
        )
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.jinja", "*.safetensors"]
        return Path(snapshot_download(match["repository"], revision=match["revision"], allow_patterns=patterns))
    except Exception as error:  # the hub client raises many kinds, and none of them names the mend
        raise ValueError(
            f"inverter={name!r} could not be fetched from the hub ({type(error).__name__}); go online once (and unset HF_HUB_OFFLINE) to "
            f"fill the cache, or use inverter={DEFAULT}, which ships with the package, or a local folder"
        ) from error
