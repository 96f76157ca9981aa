"""The set encoder inside a decoder-only LM: blocks of outputs in, one joined key/value prefix out.

Every output is a block of its own: causal attention inside the block, positions from 0. A prompt attends to all blocks
and to itself; its positions start after the longest allowed block. So blocks are run as a batch of short sequences,
their key/value caches are joined, and cost is linear in the number of outputs. This is the sparse encoding of Zhang et
al. 2024, section 4, carried over to decoder-only models. Training computes the same without a cache (``training.packed_loss``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from transformers import DynamicCache

from lm_eval_inversion.attention import with_cache
from lm_eval_inversion.inverter.layers import keys_values, lower_part
from lm_eval_inversion.precision import activation_dtype

# Tokens of padded blocks run at once: bounds memory, and on a CPU keeps what a layer makes of them in its cache.
BLOCK_TOKEN_BUDGET, BLOCK_TOKEN_BUDGET_CPU = 16_384, 1_024


@dataclass
class Prefix:
    """Joined caches of the outputs of several prompts.

    Attributes:
        keys: per layer (prompts, key heads, width, head size); rotary positions are already applied.
        values: per layer, same shape.
        mask: (prompts, width) bool, False at padding. Width is 0 when nobody has outputs.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    mask: torch.Tensor

    def rows(self, index: torch.Tensor) -> Prefix:
        """The prefixes of some prompts."""
        return Prefix([k[index] for k in self.keys], [v[index] for v in self.values], self.mask[index])

    def part(self, row: int, columns: torch.Tensor) -> Prefix:
        """Some columns of one prompt's prefix, copied."""
        keys, values = ([layer[row : row + 1, :, columns] for layer in layers] for layers in (self.keys, self.values))
        return Prefix(keys, values, self.mask[row : row + 1, columns])


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids (rows, width) and their lengths (rows,)."""
    width = max((len(row) for row in rows), default=0)
    ids = torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows], dtype=torch.long, device=device)
    return ids.reshape(len(rows), width), torch.tensor([len(row) for row in rows], dtype=torch.long, device=device)


def encode_blocks(
    model: Any, blocks: Sequence[Sequence[Sequence[int]]], layers: int | None = None, dtype: torch.dtype | None = None
) -> Prefix:
    """Run every block by itself and join the caches per prompt.

    Prompts run one after another, so that the numbers of one never depend on which others there are.

    Args:
        model: a transformers decoder-only LM.
        blocks: blocks[p][n] are the token ids of output n of prompt p.
        layers: that blocks run through, see ``BlockFormat.output_layers``.
        dtype: of the prefix; None: what the model computes in.

    Returns:
        The prefix; gradients flow through it.
    """
    device, config, decoder = next(model.parameters()).device, model.config, model.get_decoder()
    dtype = dtype or activation_dtype(model)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    widths = torch.tensor([sum(map(len, own)) for own in blocks], dtype=torch.long, device=device)
    width = int(widths.max()) if len(blocks) else 0
    shape = (len(blocks), config.num_key_value_heads, width, head)
    keys, values = ([torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)] for _ in range(2))
    for row, own in enumerate(blocks):
        for columns, by_layer in _run_blocks(decoder, own, device, layers):
            for layer, (own_keys, own_values) in enumerate(by_layer):
                keys[layer][row].index_copy_(1, columns, own_keys.to(dtype))
                values[layer][row].index_copy_(1, columns, own_values.to(dtype))
    return Prefix(keys, values, torch.arange(width, device=device)[None] < widths[:, None])


def block_columns(blocks: Sequence[Sequence[int]]) -> list[int]:
    """Where in the prefix of its prompt each block begins."""
    return [0, *accumulate(map(len, blocks))][: len(blocks)]


def _run_blocks(
    decoder: Any, blocks: Sequence[Sequence[int]], device: torch.device, layers: int | None
) -> Iterator[tuple[torch.Tensor, Iterator[tuple[torch.Tensor, torch.Tensor]]]]:
    """Run the blocks of one prompt, as many at once as the budget allows.

    Yields:
        Columns of the prefix that the real tokens belong to (tokens,), and layer by layer their keys and values (key heads, tokens, size).
    """
    starts, lower = block_columns(blocks), decoder if layers is None else lower_part(decoder, layers)
    # Longest first, so that blocks run together have about one length and little padding.
    order = sorted(range(len(blocks)), key=lambda index: -len(blocks[index]))
    budget = BLOCK_TOKEN_BUDGET_CPU if device.type == "cpu" else BLOCK_TOKEN_BUDGET
    while order:
        size = max(1, budget // len(blocks[order[0]]))
        chosen, order = order[:size], order[size:]
        ids, lengths = pad_rows([blocks[index] for index in chosen], device)
        cache = DynamicCache()
        positions = torch.arange(ids.shape[1], device=device)[None].expand_as(ids)
        hidden = lower(input_ids=ids, position_ids=positions, **with_cache(lower, cache)).last_hidden_state
        columns = [starts[index] + place for index in chosen for place in range(len(blocks[index]))]
        real = (positions < lengths[:, None]).reshape(-1)
        yield torch.tensor(columns, dtype=torch.long, device=device), _by_layer(decoder, cache, hidden, positions, real)


def _by_layer(
    decoder: Any, cache: DynamicCache, hidden: torch.Tensor, positions: torch.Tensor, real: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values (key heads, real tokens, size) that each layer has of blocks.

    Args:
        decoder: with all layers.
        cache: of those layers that the blocks ran through; none or more are left above.
        hidden: (blocks, padded length, width of the model), where they stopped.
        positions: (blocks, padded length).
        real: (blocks * padded length,) bool.
    """
    for states in cache.layers:
        yield _joined(states.keys, real), _joined(states.values, real)
    if len(above := decoder.layers[len(cache.layers) :]) == 0:  # of whatever kind the model is
        return
    stopped = hidden.flatten(0, 1)[real]
    cos, sin = (part[0, :, None] for part in decoder.rotary_emb(stopped[None], positions.reshape(1, -1)[:, real]))
    for layer in above:
        keys, values = keys_values(layer, layer.input_layernorm(stopped), cos, sin)
        yield keys.transpose(0, 1), values.transpose(0, 1)


def _joined(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(blocks, heads, tokens, size) -> (heads, real tokens, size)."""
    return states.transpose(0, 1).flatten(1, 2)[:, real]


def visible(prefix: Prefix, own: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive attention mask of prompt tokens.

    Args:
        own: (prompts, tokens, tokens) bool, which prompt token sees which.

    Returns:
        (prompts, 1, tokens, prefix width + tokens), 0 where visible and the dtype's minimum elsewhere.
    """
    outputs = prefix.mask[:, None, :].expand(-1, own.shape[1], -1)
    mask = torch.cat([outputs, own], 2)[:, None]
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def prompt_hidden(model: Any, prefix: Prefix, ids: torch.Tensor, positions: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Last hidden states (prompts, tokens, width of the model) of prompt tokens that see the prefix."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values)):
        cache.update(keys, values, layer)
    mask, decoder = visible(prefix, own, activation_dtype(model)), model.get_decoder()
    hidden: torch.Tensor = decoder(
        input_ids=ids, attention_mask=mask, position_ids=positions, **with_cache(decoder, cache)
    ).last_hidden_state  # fmt: skip
    return hidden
