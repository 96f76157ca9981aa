"""Where to compute, and in which floating-point type: half the bits are half the time only where the hardware multiplies them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# As ``torch.cpu.get_capabilities`` names them, on x86 and on ARM.
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16")


def choose_device(device: str = "auto", setting: str = "device") -> str:
    """A torch device name; "auto" is this rank's GPU where there is one.

    Args:
        device: what was asked for.
        setting: how the caller calls it, for the error.

    Raises:
        ValueError: torch does not know the device, or it is not there.
    """
    import torch

    if device == "auto":
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        message = str(error).splitlines()[0]
        known = "auto, cpu, cuda:N, or mps" if torch.backends.mps.is_available() else "auto, cpu, or cuda:N"
        raise ValueError(f"{setting}={device!r} cannot be used ({message}); give {known}") from error
    return device


def exact_device(device: torch.device) -> torch.device:
    """Where to compute in float64 what lies on a device: there, but for Macs' accelerators, which have none."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def fast_dtype(device: str) -> torch.dtype:
    """bfloat16 on accelerators and on CPUs that multiply it faster, float32 on other CPUs.

    GFLOP/s of one core, measured (``docs/LOG.md``): AVX2 alone 66 in float32 and 0.6 in bfloat16; AMD with AVX-512's bfloat16 74 and 176;
    Intel with AVX-512's bfloat16 but without AMX 160 and 84.
    """
    import torch

    if not device.startswith("cpu"):
        return torch.bfloat16
    capabilities = torch.cpu.get_capabilities()
    fast = [name for name in BF16_INSTRUCTIONS if capabilities.get(name)]
    if fast == ["avx512_bf16"] and "intel" in str(capabilities.get("cpu_name", "")).lower():
        fast = []
    return torch.bfloat16 if fast else torch.float32


def activation_dtype(model: Any) -> torch.dtype:
    """The type in which a torch model's layers hand numbers on: autocast's where it is on, that of the weights elsewhere."""
    import torch

    first = next(model.parameters())
    kind = first.device.type
    found: torch.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else first.dtype
    return found
