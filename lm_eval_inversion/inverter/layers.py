"""The layers of a decoder-only LM of the Llama kind, taken apart: below a certain one, outputs run through them; above, they are only read.

What the upper layers add to an output's tokens serves to predict the output's next token, which nobody asks for here. So outputs may stop
at a layer, and the layers above take their keys and values from where they stopped (the single input of SwiftKV, Qiao et al. 2024). Prompts
run through all layers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

# Kinds of model whose layers are as this module takes them: nothing but a norm before the projections, and nothing behind them.
TAKEN_APART = ("llama", "qwen2")


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: states (T, heads, size), cos and sin (T, 1, size)."""
    left, right = states.chunk(2, -1)
    return states * cos + torch.cat((-right, left), -1) * sin


def heads_of(states: torch.Tensor, size: int) -> torch.Tensor:
    """(T, heads * size) -> (T, heads, size)."""
    return states.view(len(states), states.shape[1] // size, size)  # not -1, which no tokens leave open


def keys_values(layer: Any, normed: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values that one layer takes from tokens, whether or not they run through it: (T, key heads, size) each.

    Args:
        layer: a decoder layer.
        normed: (T, width of the model), the tokens where they are, behind the layer's ``input_layernorm``.
        cos, sin: (T, 1, size), of their positions.
    """
    # Read from the layer, which makes it a constant for the compiler: a number that is passed is compiled as a variable, and the kernels
    # then divide by it at every element.
    size = layer.self_attn.head_dim
    keys = rotated(heads_of(layer.self_attn.k_proj(normed), size), cos, sin)
    values = heads_of(layer.self_attn.v_proj(normed), size)
    return keys.to(values.dtype), values


def lower_part(decoder: Any, layers: int) -> Any:
    """A decoder of the first ``layers`` layers, without the norm behind the last: the same modules, and the one given stays as it is."""
    part = copy.copy(decoder)
    part._modules = {**decoder._modules, "layers": decoder.layers[:layers], "norm": nn.Identity()}
    return part
