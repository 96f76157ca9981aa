"""Checkpoint folders: ``inverter.json``, ``weights.safetensors``, ``tokenizer.json``, ``words.json``; hashes before shapes before tensors.

``inverter.json`` names the SHA-256 of the other files; the SHA-256 of ``inverter.json`` is the identity of the checkpoint. No
pickle, no code from the folder, no other package's weights. A folder from a stranger can be wrong; it can neither run code, nor have
another file read, nor ask for more memory than its weights file accounts for: whatever it declares is compared with the model that it
describes, built without memory, before the first tensor is read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_inversion.hashing import SHORT_HASH_DIGITS, file_sha256

if TYPE_CHECKING:
    from lm_eval_inversion.inverter.tokens import BlockFormat
    from lm_eval_inversion.inverter.words import OutputWords

FORMAT_VERSION = 1
ARCHITECTURE = "sparse-prefix"
DESCRIPTION_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "inverter.json", "weights.safetensors", "tokenizer.json"
WORDS_FILE = "words.json"  # ``OutputWords``; checkpoints without it identify by likelihood alone
# Limits far beyond any real checkpoint, so that reading a description or a tokenizer stays cheap.
MOST_DESCRIPTION_BYTES, MOST_TOKENIZER_BYTES, MOST_WORDS_BYTES = 1 << 20, 1 << 27, 1 << 25
MOST_BLOCKS = 64  # of one output
MOST_LAYERS = 1024  # building even an empty model costs time per layer
MOST_BUFFER_ELEMENTS = 1 << 26  # of a model's tables that are not weights, such as rotary frequencies
# What a description may say about its model; anything else in a transformers config could name code or files.
MODEL_CONFIG_KEYS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
    "attention_bias", "mlp_bias", "tie_word_embeddings", "bos_token_id", "eos_token_id",
)  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FLOATS = ("F32", "F16", "BF16")
# Types of the parts of a packed matrix, see ``packing``; the adapter may be missing, all of it.
_MATRIX_PARTS = {"codes": "U8", "scale": "U8", "minimum": "I8", "units": "F16"}
_ADAPTER_PARTS = {"down": "I8", "down_unit": "F32", "up": "I8", "up_unit": "F32"}

Shape = tuple[int, ...]


class CheckpointError(ValueError):
    """A checkpoint folder is incomplete, damaged or of an unknown kind."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint folder.

    Attributes:
        folder: where it is.
        description: the content of ``inverter.json``.
        hash: first digits of the SHA-256 of ``inverter.json``.
        words: how often outputs hold words; None where the folder does not say.
    """

    folder: Path
    description: dict[str, Any]
    hash: str
    words: OutputWords | None


def verify_checkpoint(folder: Path, expected_sha256: str | None = None) -> Checkpoint:
    """Check every file's SHA-256 before anything of it is used, then everything that it declares before anything is allocated.

    Args:
        expected_sha256: of ``inverter.json``, where it is known (shipped checkpoints).

    Raises:
        CheckpointError: a file is missing or differs from its hash, the format is unknown, the description breaks its rules, or
            weights and tokenizer do not fit the described model.
    """
    description_path = folder / DESCRIPTION_FILE
    if not description_path.is_file():
        raise CheckpointError(f"{folder} is not an inverter checkpoint: {DESCRIPTION_FILE} is missing")
    _require_size(description_path, MOST_DESCRIPTION_BYTES)
    actual = file_sha256(description_path)
    if expected_sha256 is not None and actual != expected_sha256:
        raise CheckpointError(_damaged(description_path, expected_sha256, actual))
    try:
        description = json.loads(description_path.read_text(encoding="utf-8"))
        hashes = dict(description["sha256"])
        known = description["format_version"] == FORMAT_VERSION and description["architecture"] == ARCHITECTURE
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{description_path} is not a checkpoint description ({type(error).__name__}: {error})") from error
    if not known:
        raise CheckpointError(
            f"{description_path}: format {description['format_version']}/{description['architecture']} is unknown to this version of "
            f"lm-eval-inversion, which reads {FORMAT_VERSION}/{ARCHITECTURE}; update the package"
        )
    strange = sorted(str(name)[:60] for name in set(hashes) - {WEIGHTS_FILE, TOKENIZER_FILE, WORDS_FILE})
    if strange:
        raise CheckpointError(
            f"{description_path} names the file {strange[0]!r}; a checkpoint consists of {WEIGHTS_FILE}, {TOKENIZER_FILE} and "
            f"{WORDS_FILE} in its own folder, and no other file is read: get the checkpoint from a source that you trust"
        )
    for name in (WEIGHTS_FILE, TOKENIZER_FILE, *([WORDS_FILE] if WORDS_FILE in hashes else [])):
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} is missing")
        if not _SHA256.fullmatch(str(hashes.get(name))):
            raise CheckpointError(f"{description_path} holds no hash of {name}")
        if (found := file_sha256(path)) != hashes[name]:
            raise CheckpointError(_damaged(path, hashes[name], found))
    try:
        layout = _checked_layout(description.get("block_format"))
        config = _checked_config(description.get("model_config"))
        weights = unpacked_shapes(declared_tensors(folder / WEIGHTS_FILE))
        _check_tokenizer(folder / TOKENIZER_FILE, layout, config["vocab_size"])
        _check_model(config, layout, weights)
        words = read_words(folder) if WORDS_FILE in hashes else None
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return Checkpoint(folder, description, actual[:SHORT_HASH_DIGITS], words)


def declared_tensors(path: Path) -> dict[str, tuple[str, Shape]]:
    """Type and shape of every tensor of a safetensors file, from its header alone; safetensors checks it against the file's length.

    Raises:
        CheckpointError: the file is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as stream:
            slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a safetensors file ({error}); get the file again") from error


def unpacked_shapes(tensors: Mapping[str, tuple[str, Shape]]) -> dict[str, Shape]:
    """The shapes that ``packing.unpack_state`` will give, once the parts of every packed matrix have been found to fit each other.

    Args:
        tensors: as ``declared_tensors`` gives them.

    Raises:
        CheckpointError: a part is missing, unknown, or of the wrong type or shape; parts that only broadcast could unpack to many times
            what the file holds.
    """
    from lm_eval_inversion.inverter.packing import GROUP

    shapes: dict[str, Shape] = {}
    packed: dict[str, dict[str, tuple[str, Shape]]] = {}
    for name, declared in tensors.items():
        base, _, part = name.partition("|")
        if part:
            packed.setdefault(base, {})[part] = declared
        elif declared[0] in _FLOATS:
            shapes[name] = declared[1]
        else:
            raise CheckpointError(f"{WEIGHTS_FILE}: {name[:80]!r} is of type {declared[0]}; weights are one of {', '.join(_FLOATS)}")
    for base, parts in packed.items():
        types = {part: declared[0] for part, declared in parts.items()}
        sizes = {part: declared[1] for part, declared in parts.items()}
        known = types in (_MATRIX_PARTS, {**_MATRIX_PARTS, **_ADAPTER_PARTS}) and all(len(size) in (1, 2) for size in sizes.values())
        if base in shapes or not known:
            raise CheckpointError(f"{WEIGHTS_FILE}: {base[:80]!r} is not a packed matrix (its parts: {_listed(types)})")
        rows, columns = sizes["codes"][0], 2 * sizes["codes"][-1]
        wanted: dict[str, Shape] = {"codes": (rows, columns // 2), "units": (rows, 2)}
        wanted["scale"] = wanted["minimum"] = (rows, columns // GROUP)
        if "down" in sizes:
            rank = sizes["down"][0]
            wanted |= {"down": (rank, columns), "up": (rank, rows), "down_unit": (rank,), "up_unit": (rank,)}
        if sizes != wanted or columns % GROUP:
            raise CheckpointError(f"{WEIGHTS_FILE}: the parts of {base[:80]!r} do not fit each other (their shapes: {_listed(sizes)})")
        shapes[base] = (rows, columns)
    return shapes


def read_words(folder: Path) -> OutputWords:
    """The counts of words of a checkpoint that has them.

    Raises:
        CheckpointError: the file holds something else.
    """
    from lm_eval_inversion.inverter.words import OutputWords

    _require_size(path := folder / WORDS_FILE, MOST_WORDS_BYTES)
    try:
        return OutputWords.read(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path.name} {error}; get the file again") from error


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key[:20]} {value}" for key, value in sorted(values.items())[:8])[:400]


def _require_size(path: Path, most: int) -> None:
    if (size := path.stat().st_size) > most:
        raise CheckpointError(f"{path} is {size} bytes long, where no more than {most} are read; get the file again")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _checked_layout(raw: Any) -> BlockFormat:
    """The block format, every number in its range.

    Raises:
        CheckpointError: a number is missing, unknown or out of range.
    """
    from lm_eval_inversion.inverter.tokens import BlockFormat

    names = set(BlockFormat().to_dict())
    optional = {"user_start_id", "blocks_per_output", "output_layers"}  # checkpoints before them have none
    if not isinstance(raw, dict) or set(raw) | optional != names:
        raise CheckpointError(f"{DESCRIPTION_FILE}: 'block_format' must hold the numbers {', '.join(sorted(names))}")
    given = {name: value for name, value in raw.items() if name not in ("user_start_id", "output_layers") or value is not None}
    for name in sorted(given):
        low, high = 0 if name.endswith("_id") else 1, MOST_BLOCKS if name == "blocks_per_output" else 1 << 24
        if not _whole(raw[name], low, high):
            raise CheckpointError(
                f"{DESCRIPTION_FILE}: block_format.{name} is {str(raw[name])[:40]}; it is a whole number from {low} to {high}"
            )
    layout = BlockFormat(**given)
    if layout.end_id in (layout.start_id, layout.user_start_id):
        raise CheckpointError(f"{DESCRIPTION_FILE}: a start_id and end_id are both {layout.end_id}; a prompt could not end")
    return layout


def _checked_config(raw: Any) -> dict[str, Any]:
    """The model's configuration, limited to ``MODEL_CONFIG_KEYS``.

    Raises:
        CheckpointError: a key is unknown, or a count is missing or out of range.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise CheckpointError(f"{DESCRIPTION_FILE}: 'model_config' must be an object with a 'model_type'")
    if unknown := sorted(set(raw).difference(MODEL_CONFIG_KEYS)):
        raise CheckpointError(f"{DESCRIPTION_FILE}: model_config.{unknown[0][:60]} is not read; remove it")
    if not _whole(raw.get("num_hidden_layers"), 1, MOST_LAYERS):
        raise CheckpointError(
            f"{DESCRIPTION_FILE}: model_config.num_hidden_layers is {str(raw.get('num_hidden_layers'))[:40]}; it is a whole number from 1 "
            f"to {MOST_LAYERS}"
        )
    for name in ("vocab_size", "hidden_size"):
        if not _whole(raw.get(name), 1, (1 << 31) - 1):
            raise CheckpointError(f"{DESCRIPTION_FILE}: model_config.{name} is {str(raw.get(name))[:40]}; it is a whole number from 1 on")
    return dict(raw)


def _check_tokenizer(path: Path, layout: BlockFormat, vocabulary: int) -> None:
    """The tokenizer can be read, and no token of it or of the block format lies outside the model's vocabulary.

    Raises:
        CheckpointError: it is otherwise.
    """
    from tokenizers import Tokenizer

    _require_size(path, MOST_TOKENIZER_BYTES)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{path.name} is not a tokenizer ({str(error)[:200]}); get the file again") from error
    largest = max([layout.start_id, layout.opening("user"), layout.end_id, *tokenizer.get_vocab(with_added_tokens=True).values()])
    if largest >= vocabulary:
        raise CheckpointError(f"{path.name} or block_format has a token {largest}, but the model's vocab_size is {vocabulary}")


def _check_model(config: Mapping[str, Any], layout: BlockFormat, weights: Mapping[str, Shape]) -> None:
    """The described model, built without memory, has exactly the weights that the file declares.

    Raises:
        CheckpointError: the model cannot be built, is of a kind that ``prefix_model`` cannot run, or has other weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lm_eval_inversion.inverter.layers import TAKEN_APART

    try:
        described, plain = AutoConfig.for_model(**config), AutoConfig.for_model(config["model_type"])
        # Also keeps out models with position tables, whose size no weight accounts for.
        rotary = all(hasattr(plain, name) for name in ("num_key_value_heads", "rope_parameters"))
        longest = getattr(described, "max_position_embeddings", None)
    except Exception as error:  # each configuration class checks in its own way
        raise CheckpointError(f"{DESCRIPTION_FILE}: model_config describes no model ({_first_line(error)})") from error
    if not rotary:
        raise CheckpointError(
            f"{DESCRIPTION_FILE}: a model of type {config['model_type']!r} has no rotary positions and cannot be an inverter"
        )
    positions = layout.prompt_position + layout.max_prompt_tokens
    if not _whole(longest, positions, 1 << 31):
        raise CheckpointError(f"{DESCRIPTION_FILE}: block_format needs {positions} positions, more than the model has")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(described)
    except Exception as error:
        raise CheckpointError(f"{DESCRIPTION_FILE}: model_config describes no model ({_first_line(error)})") from error
    stop, depth = layout.output_layers, config["num_hidden_layers"]
    if stop is not None and (stop >= depth or config["model_type"] not in TAKEN_APART):
        raise CheckpointError(
            f"{DESCRIPTION_FILE}: block_format.output_layers is {stop}; outputs stop below the last layer, of a model of "
            f"type {' or '.join(TAKEN_APART)}"
        )
    if sum(buffer.numel() for buffer in model.buffers()) > MOST_BUFFER_ELEMENTS:
        raise CheckpointError(f"{DESCRIPTION_FILE}: model_config describes a model with tables beyond any inverter's")
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if described.tie_word_embeddings and "lm_head.weight" not in weights:  # stored once
        wanted.pop("lm_head.weight", None)
    problems = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name[:80]} is not part of the model" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {list(weights[name])}, the model {list(shape)}"
        for name, shape in wanted.items()
        if name in weights and weights[name] != shape
    ]
    if problems:
        raise CheckpointError(f"the weights do not fit the model that {DESCRIPTION_FILE} describes: {'; '.join(problems[:3])}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]


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
    block_format: Mapping[str, int | None],
    model_config: dict[str, Any],
    training: dict[str, Any],
    words: OutputWords | None,
) -> str:
    """Write a checkpoint folder; returns the SHA-256 of its ``inverter.json``.

    A checkpoint that is there already stays whole until the new one is: on a full disk, for example.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    named = (WEIGHTS_FILE, TOKENIZER_FILE, *([WORDS_FILE] if words else []))
    parts = {name: folder / f"{name}.part" for name in (*named, DESCRIPTION_FILE)}
    try:
        save_file(packed, parts[WEIGHTS_FILE])
        shutil.copyfile(tokenizer_file, parts[TOKENIZER_FILE])
        if words:
            parts[WORDS_FILE].write_text(words.written(), encoding="utf-8")
        description = {
            "format_version": FORMAT_VERSION,
            "architecture": ARCHITECTURE,
            "block_format": block_format,
            "model_config": model_config,
            "training": training,
            "sha256": {name: file_sha256(parts[name]) for name in named},
        }
        parts[DESCRIPTION_FILE].write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for name, part in parts.items():
            part.replace(folder / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return file_sha256(folder / DESCRIPTION_FILE)
