"""From the name of an inverter to the inverter.

``default`` is the checkpoint that ships with the package. Other names: a checkpoint folder, ``hub:org/name@REVISION``
(a full commit hash), ``t5:<folder>`` (the paper's architecture), ``asked:<folder>`` or ``asked:hub:org/name@REVISION`` (a chat model that
is asked to guess), and the baselines ``nearest``, ``central``, ``constant``, ``words``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_inversion.context import context_of
from lm_eval_inversion.inverter.base import Inverter
from lm_eval_inversion.inverter.baselines import BASELINES
from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE, TOKENIZER_FILE, Checkpoint, verify_checkpoint
from lm_eval_inversion.inverter.model_folder import require_weights
from lm_eval_inversion.precision import choose_device

if TYPE_CHECKING:
    import torch

    from lm_eval_inversion.prompts import SystemPrompt

logger = logging.getLogger(__name__)

DEFAULT = "default"
# SHA-256 of inverter.json of the shipped checkpoint; training.pack prints it. Every other file's hash stands in that file.
DEFAULT_SHA256 = "2e2d4d7b48b76eaa2a1a3a535c71f268bc075448bc41f080db2f13321e783586"
_HUB_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")

PROMPT_ENDS = 2  # tokens around a prompt: its start and its end
SHOWN_PROMPTS = 5  # named in a warning
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def shipped_checkpoint() -> Path:
    """The folder of the checkpoint that ships with the package."""
    return Path(str(files("lm_eval_inversion").joinpath("checkpoints")))


def check_inverter(name: str, device: str = "auto", dtype: str = "auto", prompts: Sequence[SystemPrompt] = ()) -> None:
    """Fail now, and not after hours of generation, when ``load_inverter`` with the same arguments would fail.

    Args:
        prompts: whose likelihoods the inverter will be asked for. Those that are longer than any that it was trained on are logged.

    Raises:
        ValueError: see ``load_inverter``; checkpoint folders are verified, hub names are fetched. Or a prompt has more tokens than the
            inverter has positions.
    """
    check_dtype(dtype)
    if name in BASELINES:
        check_device(device)
        return
    if device != "auto" or dtype == "int8":
        choose_dtype(dtype, choose_device(device, "inverter_device"), name)
    if name.startswith("t5:"):
        from lm_eval_inversion.inverter.sparse_t5 import check_t5

        check_t5(_t5_folder(name), name)
        return
    if name.startswith("asked:"):
        from lm_eval_inversion.inverter.asked_model import check_folder

        room, tokens = check_folder(_asked_folder(name), name)
        _require_positions(name, room, {prompt.id: tokens(prompt.text) for prompt in prompts})
        return
    folder, expected = _checkpoint_folder(name)
    checkpoint = verify_checkpoint(folder, expected)
    if prompts:
        from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer

        layout = BlockFormat(**checkpoint.description["block_format"])
        tokenizer = BlockTokenizer(folder / TOKENIZER_FILE, layout)
        lengths = {prompt.id: len(tokenizer.prompt(prompt.text)) - PROMPT_ENDS for prompt in prompts}
        _require_positions(name, prompt_room(checkpoint), lengths)
        _tell_of_long_prompts(name, layout.max_prompt_tokens, lengths)


def prompt_room(checkpoint: Checkpoint) -> int:
    """Tokens of the longest prompt whose likelihood a checkpoint's model has positions for, without its start and end."""
    from transformers import AutoConfig

    from lm_eval_inversion.inverter.tokens import BlockFormat

    layout = BlockFormat(**checkpoint.description["block_format"])
    config = AutoConfig.for_model(**checkpoint.description["model_config"])
    positions = context_of(config)
    assert positions is not None  # a verified checkpoint has them
    return positions - layout.prompt_position - PROMPT_ENDS


def _require_positions(name: str, room: int | None, lengths: Mapping[str, int]) -> None:
    """Raise ``ValueError`` where a prompt has more tokens than there is room for; its text may be private and is not shown."""
    longest = max(lengths, key=lambda prompt_id: lengths[prompt_id], default=None)
    if room is not None and longest is not None and lengths[longest] > room:
        raise ValueError(
            f"inverter={name!r} has positions for prompts of {room} tokens, and the prompt {longest!r} has {lengths[longest]}; take it out "
            "of the prompts, shorten it, or give an inverter with more positions"
        )


def _tell_of_long_prompts(name: str, trained: int, lengths: Mapping[str, int]) -> None:
    long = [prompt_id for prompt_id, tokens in lengths.items() if tokens > trained]
    if long:
        logger.warning(
            "inverter=%r was trained on prompts of at most %d tokens; %d of %d prompts are longer (%s%s), the longest has %d. Their bits "
            "and identification are less certain, and take time and memory that grow with the square of their tokens.",
            name, trained, len(long), len(lengths), ", ".join(map(repr, long[:SHOWN_PROMPTS])), ", …" if len(long) > SHOWN_PROMPTS else "",
            max(lengths.values()),
        )  # fmt: skip


def load_inverter(name: str | os.PathLike[str] = DEFAULT, device: str = "auto", dtype: str = "auto") -> Inverter:
    """Load an inverter.

    Args:
        name: "default", a checkpoint folder, "hub:org/name@REVISION" (a full commit hash), "t5:<folder>", "asked:<folder>",
            "asked:hub:org/name@REVISION", or a baseline ("nearest", "central", "constant", "words").
        device: "auto" (this process's GPU if there is one, else the CPU) or a torch device.
        dtype: "auto" (float32 on CPU, bfloat16 on GPU), "float32", "bfloat16", "float16", or "int8": checkpoints on a CPU only,
            faster and smaller, a little less exact (``eight_bit``).

    Raises:
        ValueError: the name, device or dtype is unknown or they do not go together, or the hub cannot be reached.
        CheckpointError: a checkpoint is incomplete or damaged (a ``ValueError`` too).
    """
    name = os.fspath(name)
    if name in BASELINES:
        check_device(device)
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


def check_curve(name: str, curve: bool) -> None:
    """Check that an inverter can do what ``curve=true`` asks for.

    Raises:
        ValueError: bits from fewer outputs are asked for, of a baseline that has no likelihoods.
    """
    if curve and name in BASELINES and not BASELINES[name].has_likelihood():
        raise ValueError(
            f"curve=true measures bits from fewer outputs, and inverter={name!r} is a baseline without likelihoods, which has no bits; "
            f"leave curve out, or give inverter={DEFAULT} or another with likelihoods"
        )


def check_device(device: str) -> None:
    """Check a device, without loading torch for "auto".

    Raises:
        ValueError: see ``choose_device``.
    """
    if device != "auto":
        choose_device(device, "inverter_device")


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
    folder = _local_folder(name, name)
    if not (folder / DESCRIPTION_FILE).is_file():
        found = "a folder without inverter.json" if folder.is_dir() else "no folder"
        raise ValueError(
            f"inverter={name!r} is unknown ({found}); give {DEFAULT}, a checkpoint folder, hub:org/name@REVISION, t5:<folder>, "
            f"asked:<folder>, or a baseline: {', '.join(BASELINES)}"
        )
    return folder, None


def _local_folder(path: str, name: str) -> Path:
    """A folder as the user wrote it, "~" being a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"inverter={name!r}: nobody here is called {path.split('/')[0]!r}; write the folder's path in full") from error


def _t5_folder(name: str) -> Path:
    folder = _local_folder(name.removeprefix("t5:"), name)
    if not (folder / "config.json").is_file():
        raise ValueError(f"inverter={name!r}: {folder} holds no config.json; give the folder of a T5ForConditionalGeneration")
    require_weights(folder, name)
    return folder


def _asked_folder(name: str) -> Path:
    source = name.removeprefix("asked:")
    folder = _from_hub(name) if source.startswith("hub:") else _local_folder(source, name)
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
