"""Products of a large matrix with two to a few rows, as each decoding step of one or two prompts needs them.

PyTorch's float32 product on a CPU is made for many rows. With two to four it takes longer than two products with one row each, although it
reads the weights once, which is what takes the time; seen from the other side, weights times columns, it does not (``docs/LOG.md``).
"""

from __future__ import annotations

import torch
from torch import nn

MOST_ROWS = 4  # from eight on both ways are equally fast


class FewRowsLinear(nn.Linear):
    """A linear layer that multiplies from the other side where that is faster; the same up to rounding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        rows = input.numel() // input.shape[-1]
        if not 1 < rows <= MOST_ROWS or input.dtype is not torch.float32 or input.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(input)
        found = (self.weight @ input.reshape(rows, -1).T).T.contiguous()
        if self.bias is not None:
            found += self.bias
        return found.view(*input.shape[:-1], -1)


def adopt_few_rows(model: nn.Module) -> None:
    """Turn every plain linear layer of a model into a ``FewRowsLinear``; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FewRowsLinear
