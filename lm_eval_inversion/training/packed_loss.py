"""The training loss without padding: all blocks and prompts of a batch as one row of tokens.

The same function as ``inverter.candidates.candidate_loss`` after ``encode_blocks``, which scores prompts (a test holds
them equal). They keep a prefix, which training does not need, and pad blocks to the longest. Here every example's blocks stand in a row
with its prompts behind them, so that all that is done token by token runs on real tokens only, in two functions per layer that
``torch.compile`` turns into few passes over memory; only attention looks at who sees whom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lm_eval_inversion.inverter.layers import heads_of, keys_values, rotated
from lm_eval_inversion.inverter.tokens import BlockFormat

Blocks = Sequence[Sequence[int]]  # of one example
Prompts = Sequence[Sequence[Sequence[int]]]  # of every example those that are scored under its blocks


@dataclass(frozen=True)
class Row:
    """A batch laid out in one row of T tokens.

    Attributes:
        ids: (T,) token ids.
        positions: (T,) rotary positions.
        block_index: (blocks, width) place of every block's tokens in the row, 0 at padding.
        block_places: (block tokens,) place of every real token in the flattened ``block_index``, in the order of ``block_tokens``.
        block_tokens: (block tokens,) its place in the row.
        prompt_tokens: (prompt tokens,) place in the row of every token that is no block's.
        sizes: tokens of every example.
        block_sizes: how many of them are its blocks'.
        prompt_sizes: of every example, the tokens of each of its prompts.
        predicting: (predicted tokens,) places, among the prompt tokens, whose next token is predicted.
        owner: (predicted tokens,) prompt that each belongs to.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    block_index: torch.Tensor
    block_places: torch.Tensor
    block_tokens: torch.Tensor
    prompt_tokens: torch.Tensor
    sizes: list[int]
    block_sizes: list[int]
    prompt_sizes: list[list[int]]
    predicting: torch.Tensor
    owner: torch.Tensor


def lay_out(blocks: Sequence[Blocks], prompts: Prompts, position: int, device: torch.device) -> Row:
    """The row of a batch: for each example its blocks, then its prompts, none of which sees another.

    Args:
        blocks: blocks[e][n] are the token ids of output n of example e.
        prompts: prompts[e][m] are the token ids of prompt m that is scored under them, with start and end.
        position: position of a prompt's first token.
        device: where the tensors go.
    """
    ids: list[int] = []
    positions: list[int] = []
    starts: list[tuple[int, int]] = []  # of every block: place in the row, length
    sizes: list[int] = []
    block_sizes: list[int] = []
    prompt_tokens: list[int] = []
    predicting: list[int] = []
    owner: list[int] = []
    number = 0
    for own, scored in zip(blocks, prompts, strict=True):
        first = len(ids)
        for block in own:
            starts.append((len(ids), len(block)))
            ids += block
            positions += range(len(block))
        block_sizes.append(len(ids) - first)
        for prompt in scored:
            predicting += range(len(prompt_tokens), len(prompt_tokens) + len(prompt) - 1)
            prompt_tokens += range(len(ids), len(ids) + len(prompt))
            owner += [number] * (len(prompt) - 1)
            ids += prompt
            positions += range(position, position + len(prompt))
            number += 1
        sizes.append(len(ids) - first)
    width = max((length for _, length in starts), default=0)
    index = [[start + column if column < length else 0 for column in range(width)] for start, length in starts]
    places = [row * width + column for row, (_, length) in enumerate(starts) for column in range(length)]
    tokens = [start + column for start, length in starts for column in range(length)]

    def tensor(values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Row(
        tensor(ids), tensor(positions), tensor(index).reshape(len(starts), width), tensor(places), tensor(tokens), tensor(prompt_tokens),
        sizes, block_sizes, [[len(prompt) for prompt in scored] for scored in prompts], tensor(predicting), tensor(owner),
    )  # fmt: skip


def _before_attention(
    layer: Any, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of one layer: (T, heads, size) each, keys and values with fewer heads."""
    normed = layer.input_layernorm(hidden)
    queries = rotated(heads_of(layer.self_attn.q_proj(normed), layer.self_attn.head_dim), cos, sin)
    keys, values = keys_values(layer, normed, cos, sin)
    return queries.to(values.dtype), keys, values


def _looked_at(layer: Any, stopped: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of tokens that stopped below the layer."""
    return keys_values(layer, layer.input_layernorm(stopped), cos, sin)


def _after_attention(layer: Any, hidden: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The rest of the layer: output projection and feed-forward, each added to the stream."""
    hidden = hidden + layer.self_attn.o_proj(seen)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention with shared key heads, which are not copied: the query heads that share one stand below each other.

    Args:
        queries: (..., tokens, heads, size).
        keys: (..., seen tokens, key heads, size).
        values: same shape.
        mask: (shared * tokens, seen tokens), 0 where visible and very negative elsewhere; see ``_visible``.

    Returns:
        (..., tokens, heads * size).
    """
    tokens, heads, size = queries.shape[-3:]
    shared = heads // keys.shape[-2]
    grouped = queries.reshape(*queries.shape[:-2], -1, shared, size)
    stacked = grouped.movedim(-4, -2).flatten(-3, -2)  # (..., key heads, shared * tokens, size)
    scores = (stacked * size**-0.5) @ keys.movedim(-2, -3).transpose(-1, -2)
    weights = torch.softmax(scores.float() + mask, -1).to(values.dtype)
    seen = weights @ values.movedim(-2, -3)
    return seen.reshape(*seen.shape[:-2], shared, tokens, size).movedim(-2, -4).flatten(-3)


def _attend_again(*states: torch.Tensor) -> torch.Tensor:
    """``_attend``, which keeps nothing for the gradient but its arguments."""
    found: torch.Tensor = checkpoint(_attend, *states, use_reentrant=False, preserve_rng_state=False)
    return found


class PackedLoss:
    """``-log p`` of prompts after their outputs, for training.

    Args:
        compiled: compile the token-wise functions (about a minute at the start; what it gains stands in docs/LOG.md).
    """

    def __init__(self, compiled: bool = False) -> None:
        def prepare(function: Callable[..., Any]) -> Callable[..., Any]:
            return torch.compile(function, dynamic=True) if compiled else function

        self._before, self._after = prepare(_before_attention), prepare(_after_attention)
        self._looked_at = prepare(_looked_at)

    def __call__(self, model: Any, blocks: Sequence[Blocks], prompts: Prompts, layout: BlockFormat) -> torch.Tensor:
        """Nats of every prompt, summed over its tokens: (prompts of all examples,).

        Args:
            model: of a kind that can be ``TAKEN_APART``.
            blocks: see ``lay_out``.
            prompts: likewise.
            layout: how the model reads them.
        """
        logits, row = self.logits(model, blocks, prompts, layout)
        targets = row.ids[row.prompt_tokens[row.predicting] + 1]
        return by_prompt(functional.cross_entropy(logits, targets, reduction="none"), row)

    def logits(self, model: Any, blocks: Sequence[Blocks], prompts: Prompts, layout: BlockFormat) -> tuple[torch.Tensor, Row]:
        """(predicted tokens, vocabulary) in float32, and the row that they are of. Arguments as of a call."""
        decoder = model.get_decoder()
        device = next(model.parameters()).device
        row = lay_out(blocks, prompts, layout.prompt_position, device)
        through = len(decoder.layers) if layout.output_layers is None else layout.output_layers
        hidden = decoder.embed_tokens(row.ids)
        cos, sin = (part[0, :, None] for part in decoder.rotary_emb(hidden[None], row.positions[None]))
        head = cos.shape[-1]
        width = row.block_index.shape[1]
        shared = model.config.num_attention_heads // model.config.num_key_value_heads
        masks = [_visible(before, lengths, shared, device) for before, lengths in zip(row.block_sizes, row.prompt_sizes)]
        block_mask = _visible(0, [width], shared, device)
        # With several prompts each, the weights of all layers would be most of a step's memory: computed once more for the gradient.
        attend = _attend_again if max(map(len, prompts), default=0) > 1 else _attend
        for layer in decoder.layers[:through]:
            queries, keys, values = self._before(layer, hidden, cos, sin)
            seen = queries.new_zeros(len(row.ids), queries.shape[1] * head)
            if len(row.block_index):
                inside = _attend(queries[row.block_index], keys[row.block_index], values[row.block_index], block_mask)
                seen = seen.index_copy(0, row.block_tokens, inside.flatten(0, 1)[row.block_places])
            # Split, not sliced: the gradient of a slice is as long as the row.
            examples = zip(row.block_sizes, masks, *(states.split(row.sizes) for states in (seen, queries, keys, values)))
            parts = []
            for before, mask, own_seen, own_queries, own_keys, own_values in examples:
                parts += [own_seen[:before], attend(own_queries[before:], own_keys, own_values, mask)]
            hidden = self._after(layer, hidden, torch.cat(parts))
        # From here on, blocks are only looked at, where they stopped.
        stopped, hidden = hidden[row.block_tokens], hidden[row.prompt_tokens]
        (block_cos, block_sin), (cos, sin) = ((cos[places], sin[places]) for places in (row.block_tokens, row.prompt_tokens))
        prompt_sizes = list(map(sum, row.prompt_sizes))
        for layer in decoder.layers[through:]:
            queries, keys, values = self._before(layer, hidden, cos, sin)
            looked_at = [states.split(row.block_sizes) for states in self._looked_at(layer, stopped, block_cos, block_sin)]
            own = (states.split(prompt_sizes) for states in (queries, keys, values))
            parts = [
                attend(own_queries, torch.cat([block_keys, own_keys]), torch.cat([block_values, own_values]), mask)
                for mask, block_keys, block_values, own_queries, own_keys, own_values in zip(masks, *looked_at, *own)
            ]
            hidden = self._after(layer, hidden, torch.cat(parts))
        return model.get_output_embeddings()(decoder.norm(hidden[row.predicting])).float(), row


def by_prompt(losses: torch.Tensor, row: Row) -> torch.Tensor:
    """Sums over the predicted tokens of every prompt: (predicted tokens,) -> (prompts of all examples,)."""
    return losses.new_zeros(sum(map(len, row.prompt_sizes))).index_add(0, row.owner, losses)


def _visible(before: int, lengths: Sequence[int], shared: int, device: torch.device) -> torch.Tensor:
    """The mask of stretches of ``lengths`` tokens behind ``before`` others: each sees those, and itself up to the token that looks.

    Returns:
        (shared * tokens of all stretches, before + tokens of all stretches), repeated for the heads that share.
    """
    stretch = torch.repeat_interleave(torch.tensor(lengths, device=device))
    itself = torch.ones(len(stretch), len(stretch), dtype=torch.bool, device=device).tril() & (stretch == stretch[:, None])
    visible = functional.pad(itself, (before, 0), value=True)
    return torch.zeros(visible.shape, device=device).masked_fill_(~visible, torch.finfo(torch.float32).min).repeat(shared, 1)
