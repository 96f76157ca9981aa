"""Training on packed weights: the base as packing rounds it, frozen, and a low-rank adapter on top that is trained.

What rounding takes away the adapter gives back, and packing afterwards costs nothing more. The base is rounded here (``round_base``) or is
that of a checkpoint, whose adapter is trained on (``keep_base``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lm_eval_inversion.inverter.packing import GROUP, can_pack, unpack_adapter, unpack_state, without_adapter
from lm_eval_inversion.inverter.tokens import BlockTokenizer
from lm_eval_inversion.training.calibration import calibration_examples, round_weights
from lm_eval_inversion.training.pairs import Pair

ADAPTER_FILE, PACKED_BASE_FILE = "adapter.safetensors", "packed_base.safetensors"  # of a run that trains an adapter on rounded weights


def write_whole(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that takes the place of the one before once it is whole: never half a file, also after a kill."""
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=metadata)
    part.replace(path)


def round_base(model: Any, packed_file: Path, training: Sequence[Pair], tokenizer: BlockTokenizer) -> None:
    """Round the model's weights as packing will, and keep the packed form; where that is there already, take it.

    Raises:
        ValueError: a matrix that the adapter would be trained on cannot be packed.
    """
    from safetensors.torch import load_file

    for name, module in model.get_decoder().named_modules():
        if isinstance(module, torch.nn.Linear) and not can_pack(module.weight):
            raise ValueError(
                f"--round-base: {name} of --base has {module.in_features} columns, and matrices are packed in groups of {GROUP}; give "
                "another base, or leave --round-base out"
            )
    if packed_file.is_file():
        for name, values in unpack_state(load_file(packed_file)).items():
            model.get_parameter(name).data.copy_(values)
        return
    packed = round_weights(model, calibration_examples(training, tokenizer), tokenizer.layout)
    write_whole(packed, packed_file)


def with_adapter(model: Any, rank: int) -> Any:
    """The model with low-rank adapters on all matrices but the embeddings, as peft builds them; only they are trained."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))


@torch.no_grad()
def keep_base(model: Any, weights_file: Path, packed_file: Path) -> Any:
    """The model as a checkpoint packs it, its adapter apart and trainable; the packed part is kept in ``packed_file``.

    Raises:
        ValueError: the checkpoint has no adapter, or ``packed_file`` is there and of another checkpoint.
    """
    from safetensors.torch import load_file

    packed = load_file(weights_file)
    bare = without_adapter(packed)
    state = unpack_state(bare)
    for name, values in state.items():
        model.get_parameter(name).data.copy_(values)
    adapters = {name: found for name in state if (found := unpack_adapter(packed, name))}
    if not adapters:
        raise ValueError(f"{weights_file} has no adapter to go on with; give --round-base and --lora-rank instead of --keep-base")
    # One rank for all; a merged checkpoint has fewer where a matrix has no more. What lies beyond begins as peft begins: product 0.
    model = with_adapter(model, max(len(down) for down, _ in adapters.values()))
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            down, up = adapters[f"{name}.weight"]
            module.lora_A["default"].weight[: len(down)].copy_(down)
            module.lora_B["default"].weight[:, : len(down)].copy_(up / module.scaling["default"])
    if not packed_file.is_file():
        write_whole(bare, packed_file)
    elif not same_tensors(load_file(packed_file), bare):
        raise ValueError(
            f"{packed_file} holds other weights than {weights_file}: the run was started from another checkpoint; give that one, or "
            "another --output"
        )
    return model


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same names and the same numbers."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """The LoRA matrices of a peft model by the name of the matrix that they belong to: ``NAME|down`` and ``NAME|up`` (scaled)."""
    state = {}
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            state[f"{name}.weight|down"] = module.lora_A["default"].weight.detach().clone().contiguous()
            state[f"{name}.weight|up"] = (module.lora_B["default"].weight * module.scaling["default"]).detach().clone().contiguous()
    return state
