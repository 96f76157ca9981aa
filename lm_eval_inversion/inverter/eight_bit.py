"""Linear layers that multiply whole numbers of 8 bits: faster and smaller on a CPU, for a little of what the inverter knows.

Each row of a weight matrix has one unit, and so has each token's input, found anew at every call. PyTorch's own dynamic quantization takes
one unit for all tokens of a call, and the first token of a block has inputs up to a thousand times as large as the others': it loses what
the inverter knows (``docs/LOG.md``). Sums of whole numbers are exact, but a last bit of an input, which may hang on what else is in a
batch, can decide which way it is rounded: texts of one prompt alone and beside others may differ.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

LEVELS = 127  # of either sign
SMALLEST = 1e-12  # unit of a row of zeros


def eight_bits(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each row to whole multiples of a unit of its own.

    Args:
        rows: (rows, columns) of floats.

    Returns:
        (rows, columns) int8 and the units (rows, 1); their product is ``rows`` up to half a unit.
    """
    unit = rows.abs().amax(1, keepdim=True).div_(LEVELS).clamp_(min=SMALLEST)
    return (rows / unit).round_().to(torch.int8), unit


class Rounding:
    """Rounds what layers are given, once for those that are given the same tensor one after another: for queries, keys and values."""

    def __init__(self) -> None:
        self._last: Callable[[], torch.Tensor | None] = lambda: None
        self._found: tuple[torch.Tensor, torch.Tensor] | None = None

    def _forget(self, _: object) -> None:
        self._found = None

    def __call__(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``eight_bits`` of (..., columns) as rows. Whoever calls does not write into the tensor between two calls."""
        if self._found is None or self._last() is not input:
            self._found = eight_bits(input.reshape(-1, input.shape[-1]))
            # Not kept alive: while it lives, no other tensor can be mistaken for it, and what was found of it goes with it.
            self._last = weakref.ref(input, self._forget)
        return self._found


class EightBitLinear(nn.Module):
    """``nn.Linear`` in 8 bits, for inference.

    Args:
        linear: the layer that it stands for; its weight is not kept.
        rounding: shared with the layers that get the same inputs.
    """

    codes: torch.Tensor
    unit: torch.Tensor

    def __init__(self, linear: nn.Linear, rounding: Rounding | None = None) -> None:
        super().__init__()
        codes, unit = eight_bits(linear.weight.detach().float())
        self.register_buffer("codes", codes)
        self.register_buffer("unit", unit.squeeze(1))
        self.bias = linear.bias
        self._rounding = rounding or Rounding()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out), in the type of the input."""
        codes, unit = self._rounding(input)
        sums = torch._int_mm(codes, self.codes.T)  # in 32 bits, which no layer of fewer than 133,000 inputs can exceed
        # Made floats first: a product of whole numbers and floats takes a third longer.
        found = sums.float().mul_(unit).mul_(self.unit)
        if self.bias is not None:
            found += self.bias
        return found.view(*input.shape[:-1], -1)


class EightBitEmbedding(nn.Module):
    """``nn.Embedding`` that looks its rows up in the matrix of an ``EightBitLinear``; both hold the same numbers once."""

    codes: torch.Tensor
    unit: torch.Tensor

    def __init__(self, linear: EightBitLinear) -> None:
        super().__init__()
        self.register_buffer("codes", linear.codes)
        self.register_buffer("unit", linear.unit)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(...) -> (..., width) in float32."""
        return self.codes[ids] * self.unit[ids][..., None]


def adopt_eight_bits(model: nn.Module) -> None:
    """Replace every linear layer below ``model`` by an ``EightBitLinear``, one after another, so that memory never holds both of all."""
    for module in model.modules():
        rounding = Rounding()
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, EightBitLinear(child, rounding))


def adopt_eight_bits_throughout(model: Any) -> None:
    """The same for a transformers causal LM, whose embeddings follow its output matrix where the two are one."""
    embeddings = model.get_input_embeddings()
    tied = embeddings.weight is model.get_output_embeddings().weight
    adopt_eight_bits(model)
    if tied:
        model.set_input_embeddings(EightBitEmbedding(model.get_output_embeddings()))
