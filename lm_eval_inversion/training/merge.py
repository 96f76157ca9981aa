"""Merge checkpoints that share one packed base: a weighted sum of their adapters, between the checkpoints or beyond them.

Command::

    python -m lm_eval_inversion.training.merge --checkpoints packed/12=0.5 packed/11=1.1 packed/10=-0.6 --rank 20 --output merged

What one stage of training changed can so be kept in part, or taken further than the stage itself took it: weights are linear in what
training from one base changes (task arithmetic, Ilharco et al. 2023; what it did here: ``docs/LOG.md``). The sum of the adapters' products
is cut to ``--rank``, nearest in the sense of least squares. The description and the counts of words are those of the checkpoint named
first, the manifest of training prompts that of all. No pair is read and nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lm_eval_inversion.arguments import positive_whole
from lm_eval_inversion.inverter.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, Checkpoint, verify_checkpoint, write_checkpoint
from lm_eval_inversion.inverter.packing import pack_adapter, unpack_adapter, without_adapter
from lm_eval_inversion.inverter.tokens import BlockFormat
from lm_eval_inversion.training.adapter import same_tensors
from lm_eval_inversion.training.manifest import TRAINING_PROMPTS_FILE, manifest_of, write_training_prompts

SUM_TOLERANCE = 1e-6  # weights are typed with few decimals


@torch.no_grad()
def merged_adapter(adapters: Sequence[tuple[float, torch.Tensor, torch.Tensor]], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The adapter of ``rank`` whose product is nearest to a weighted sum of products.

    Args:
        adapters: weight, down (own rank, columns) and up (rows, own rank) of each.

    Returns:
        down (rank, columns) and up (rows, rank), of fewer ranks where there are not so many.
    """
    down = torch.cat([down for _, down, _ in adapters]).double()
    up = torch.cat([weight * up for weight, _, up in adapters], 1).double()
    # Singular values of the product of two thin matrices, without ever building the product.
    up_basis, up_rest = torch.linalg.qr(up)
    down_basis, down_rest = torch.linalg.qr(down.T)
    left, sizes, right = torch.linalg.svd(up_rest @ down_rest.T, full_matrices=False)
    # The size stands half in each factor, which suits their 8 bits.
    half = sizes[:rank].sqrt()
    return (half[:, None] * (right[:rank] @ down_basis.T)).float(), ((up_basis @ left[:, :rank]) * half).float()


def merge_weights(states: Sequence[tuple[float, dict[str, torch.Tensor]]], rank: int) -> dict[str, torch.Tensor]:
    """One packed state of several with the same base.

    Args:
        states: weight and packed state of each checkpoint; the weights add up to 1.

    Raises:
        ValueError: the bases differ, there is no adapter, or a matrix has an adapter in some of them only.
    """
    first = states[0][1]
    merged = without_adapter(first)
    for _, state in states[1:]:
        if not same_tensors(without_adapter(state), merged):
            raise ValueError(
                "--checkpoints: they do not share one packed base; merge checkpoints that training.train --keep-base made from each other"
            )
    for name in sorted({name.partition("|")[0] for name in first}):
        present = [(weight, *adapter) for weight, state in states if (adapter := unpack_adapter(state, name))]
        if present and len(present) < len(states):
            raise ValueError(
                f"--checkpoints: {name} has an adapter in some of them only; merge checkpoints that training.train --keep-base made"
            )
        if present:
            merged.update(pack_adapter(name, *merged_adapter(present, rank)))
    if len(merged) == len(without_adapter(merged)):
        raise ValueError("--checkpoints: they have no adapters, so there is nothing to merge; give checkpoints of a run with --keep-base")
    return merged


def merge(weights: Mapping[Path, float], output: Path, rank: int, output_layers: int | None = None) -> dict[str, Any]:
    """Write the merged checkpoint; returns its SHA-256, its size, and the number of its training prompts.

    Args:
        weights: checkpoint folder -> its weight; the first one gives the description.
        rank: of the merged adapter.
        output_layers: see ``BlockFormat.output_layers``; None: as the checkpoints have it.

    Raises:
        CheckpointError: see ``verify_checkpoint``.
        FileNotFoundError: a checkpoint has no manifest.
        ValueError: the weights do not add up to 1, or the checkpoints do not fit each other; see ``merge_weights``.
    """
    from safetensors.torch import load_file

    if not math.isclose(sum(weights.values()), 1, abs_tol=SUM_TOLERANCE):
        raise ValueError(
            f"--checkpoints: the weights add up to {sum(weights.values()):g}; give weights that add up to 1, such as 1.5 and -0.5"
        )
    checkpoints = [verify_checkpoint(folder) for folder in weights]
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _require_alike(first, other, None if output_layers is None else {"output_layers": output_layers})
    prompts = {prompt for folder in weights for prompt in manifest_of(folder)}
    layout = dict(first.description["block_format"])
    if output_layers is not None:
        if output_layers >= (depth := first.description["model_config"]["num_hidden_layers"]):
            raise ValueError(f"--output-layers {output_layers}: the model has {depth} layers; give fewer")
        layout["output_layers"] = output_layers
    packed = merge_weights([(weight, load_file(folder / WEIGHTS_FILE)) for folder, weight in weights.items()], rank)
    sha256 = write_checkpoint(
        output, packed, first.folder / TOKENIZER_FILE, block_format=layout, model_config=first.description["model_config"],
        training=first.description.get("training", {}), words=first.words,
    )  # fmt: skip
    write_training_prompts(output / TRAINING_PROMPTS_FILE, prompts)
    return {
        "sha256": sha256,
        "prompts": len(prompts),
        "megabytes": round(sum(path.stat().st_size for path in output.iterdir()) / 1e6, 1),
    }


def _require_alike(first: Checkpoint, other: Checkpoint, settled: Mapping[str, int] | None) -> None:
    """Refuse checkpoints whose weights do not mean the same.

    Args:
        settled: entries of the format of outputs that the merged checkpoint gets anyway.

    Raises:
        ValueError: model, format of outputs, or tokenizer differ.
    """
    parts = (
        ("model_config", lambda found: found["model_config"]),
        # What an older description does not name has its default.
        ("block_format", lambda found: {**BlockFormat(**found["block_format"]).to_dict(), **(settled or {})}),
        (TOKENIZER_FILE, lambda found: found["sha256"][TOKENIZER_FILE]),
    )
    differ = [name for name, part in parts if part(first.description) != part(other.description)]
    if differ:
        raise ValueError(
            f"--checkpoints: {other.folder} differs from {first.folder} in {', '.join(differ)}; merge checkpoints that were trained from "
            "each other"
        )


def weighted_folder(text: str) -> tuple[Path, float]:
    """``FOLDER=WEIGHT`` of the command line."""
    folder, _, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not folder or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not FOLDER=WEIGHT; give, for example, packed/11=1.5")
    return Path(folder), number


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.merge", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--checkpoints", required=True, nargs="+", type=weighted_folder, metavar="FOLDER=WEIGHT", help="weights may be negative; sum 1"
    )
    parser.add_argument("--rank", type=positive_whole, default=16, help="of the merged adapter")
    parser.add_argument("--output-layers", type=positive_whole, help="that outputs run through; without it as in the checkpoints")
    parser.add_argument("--output", required=True, type=Path, help="checkpoint folder to write")
    options = parser.parse_args(arguments)
    weights = dict(options.checkpoints)
    if len(weights) < len(options.checkpoints):
        parser.error("--checkpoints names a folder twice; give each once, with the sum of its weights")
    try:
        found = merge(weights, options.output, options.rank, options.output_layers)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
