"""Weight-only 4-bit packing: groups of consecutive weights share a scale and a minimum.

Every matrix row is cut into groups of ``GROUP`` weights; a weight is ``minimum + code * scale`` with a 4-bit code, two codes to
the byte, scale and minimum in half precision: 4.5 bits a weight. One-dimensional tensors stay as they are.
"""

from __future__ import annotations

import torch

GROUP = 64
LEVELS = 15
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # clipping ranges tried per group; the one with the least squared error wins


def pack_tensor(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pack a matrix (rows, columns) whose columns divide by ``GROUP``.

    Returns:
        ``codes`` (rows, columns / 2) uint8, ``scale`` and ``minimum`` (rows, columns / GROUP) float16.

    Raises:
        ValueError: the columns do not divide by ``GROUP``.
    """
    rows, columns = weight.shape
    if columns % GROUP:
        raise ValueError(f"a matrix of {columns} columns cannot be packed in groups of {GROUP}")
    groups = weight.detach().float().reshape(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    middle, half = (low + high) / 2, (high - low) / 2
    best_error = torch.full_like(low, float("inf"))
    best_codes = torch.zeros_like(groups)
    best_scale, best_minimum = torch.zeros_like(low), torch.zeros_like(low)
    for shrink in SHRINKS:
        scale = (2 * half * shrink / LEVELS).half().float()
        minimum = (middle - half * shrink).half().float()
        codes = ((groups - minimum) / scale.clamp(min=1e-8)).round().clamp(0, LEVELS)
        error = (minimum + codes * scale - groups).square().sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_codes = torch.where(better, codes, best_codes)
        best_scale, best_minimum = torch.where(better, scale, best_scale), torch.where(better, minimum, best_minimum)
    flat = best_codes.reshape(rows, columns).to(torch.uint8)
    return {
        "codes": flat[:, 0::2] | (flat[:, 1::2] << 4),
        "scale": best_scale.squeeze(-1).half(),
        "minimum": best_minimum.squeeze(-1).half(),
    }


def unpack_tensor(codes: torch.Tensor, scale: torch.Tensor, minimum: torch.Tensor) -> torch.Tensor:
    """The float32 matrix that ``pack_tensor`` stored."""
    rows, half_columns = codes.shape
    values = torch.stack([codes & 15, codes >> 4], -1).reshape(rows, scale.shape[1], -1).float()
    return (minimum.float()[..., None] + values * scale.float()[..., None]).reshape(rows, 2 * half_columns)


def pack_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Pack every matrix of a state dictionary; other tensors become float32."""
    packed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and tensor.shape[1] % GROUP == 0:
            packed.update({f"{name}|{part}": value.contiguous() for part, value in pack_tensor(tensor).items()})
        else:
            packed[name] = tensor.detach().float().contiguous()
    return packed


def unpack_state(packed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dictionary in float32."""
    state: dict[str, torch.Tensor] = {}
    for name, tensor in packed.items():
        base, _, part = name.partition("|")
        if not part:
            state[name] = tensor
        elif part == "codes":
            state[base] = unpack_tensor(tensor, packed[f"{base}|scale"], packed[f"{base}|minimum"])
    return state
