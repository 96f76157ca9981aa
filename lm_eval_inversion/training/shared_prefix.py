"""Attention of conversations that begin alike: the keys and values of the common beginning are kept and read once for all of them.

The general way repeats the beginning's cache for every conversation, copies all of it at each step to add one token, and copies keys once
more for the heads that share them; on a CPU that takes most of the time of sampling (``docs/LOG.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache

ATTENTION = "lm_eval_inversion_shared_prefix"
# Whose attention is a softmax over all that went before, with rotary positions, and hands its keyword arguments on.
PLAIN_MODELS = ("llama", "qwen2", "qwen3")


def can_share(model: Any) -> bool:
    """Whether a model attends in the plain way that is computed here; others are sampled from in the general way."""
    config = model.config
    plain = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    return config.model_type in PLAIN_MODELS and plain


class SharedPrefixCache(DynamicCache):  # type: ignore[misc]
    """Keys and values of several conversations behind each of several beginnings.

    Args:
        beginnings: cache of the beginnings (prompts, width), padded on the left; its tensors are kept.
        beginning_mask: (prompts, width) whether a place of a beginning is a token.
        per_prompt: conversations behind each beginning.
        own_mask: (prompts * per_prompt, width) whether a place of what is read next is a token; padded on the right.
        room: places for tokens of each conversation, padding included.
    """

    def __init__(
        self, beginnings: DynamicCache, beginning_mask: torch.Tensor, per_prompt: int, own_mask: torch.Tensor, room: int
    ) -> None:
        super().__init__()
        prompts, rows = len(beginning_mask), len(own_mask)
        self._begun = [(layer.keys, layer.values) for layer in beginnings.layers] if beginning_mask.shape[1] else []
        self._begun_bias = _bias(beginning_mask.bool())[:, None, None]  # (prompts, 1, 1, width)
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []  # per layer, (rows, key heads, room, size); made when the sizes are known
        self._own_mask = torch.ones(rows, room, dtype=torch.bool, device=own_mask.device)
        self._own_mask[:, : own_mask.shape[1]] = own_mask.bool()
        self._length, self._room = 0, room
        self._place(torch.arange(prompts, device=own_mask.device).repeat_interleave(per_prompt))

    def _place(self, owner: torch.Tensor) -> None:
        """Note whose beginning each row has: the rows of a prompt stand in slots, as many as the prompt with the most rows needs."""
        self._owner = owner
        counts = torch.bincount(owner, minlength=len(self._begun_bias))
        first = counts.cumsum(0) - counts
        self._slot = torch.arange(len(owner), device=owner.device) - first[owner]  # rows of one prompt stand together
        most = int(counts.max())
        # Empty slots hold some row; nobody reads what comes out of them.
        self._rows = (first[:, None] + torch.arange(most, device=owner.device)).clamp(max=len(owner) - 1)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Write what is new behind each conversation's own tokens; return views on those."""
        if layer_idx == len(self._own):
            shape = (*key_states.shape[:2], self._room, key_states.shape[3])
            self._own.append((key_states.new_zeros(shape), value_states.new_zeros(shape)))
        end = self._length + key_states.shape[2]
        keys, values = self._own[layer_idx]
        keys[:, :, self._length : end] = key_states
        values[:, :, self._length : end] = value_states
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Call after each run of the model, with how many tokens it read."""
        self._length += tokens

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Own tokens of each conversation."""
        return self._length

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drop all conversations but these, in order."""
        self._own = [(keys[rows], values[rows]) for keys, values in self._own]
        self._own_mask = self._own_mask[rows]
        owner = self._owner[rows]
        prompts, owner = torch.unique_consecutive(owner, return_inverse=True)
        if len(prompts) < len(self._begun_bias):
            self._begun = [(keys[prompts], values[prompts]) for keys, values in self._begun]
            self._begun_bias = self._begun_bias[prompts]
        self._place(owner)

    def attend(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> torch.Tensor:
        """Attention of the new tokens, heads that share keys below each other.

        Args:
            layer: which layer.
            queries: (rows, key heads, sharing heads * tokens, size), scaled.
            keys: (rows, key heads, own places, size); values likewise.
            tokens: new ones of each conversation.

        Returns:
            The shape of ``queries``.
        """
        end = keys.shape[2]
        places = torch.arange(end, device=keys.device)
        seen = places[None] <= places[end - tokens :, None]  # (tokens, end)
        bias = _bias(seen[None] & self._own_mask[:, None, :end])  # (rows, tokens, end)
        sharing = queries.shape[2] // tokens
        own = _partial(queries @ keys.transpose(2, 3), bias[:, None].repeat(1, 1, sharing, 1), values)
        if not self._begun:
            return own[0] / own[1]
        prompts, most = self._rows.shape
        stacked = queries[self._rows].transpose(1, 2).flatten(2, 3)  # (prompts, key heads, slots * sharing * tokens, size)
        begun_keys, begun_values = self._begun[layer]
        begun = _partial(stacked @ begun_keys.transpose(2, 3), self._begun_bias, begun_values)
        found = [part.reshape(prompts, part.shape[1], most, -1, part.shape[3]).transpose(1, 2)[self._owner, self._slot] for part in begun]
        # Softmax over both: each part in units of its own largest score, brought to a common one.
        largest = torch.maximum(own[2], found[2])
        left, right = (own[2] - largest).exp(), (found[2] - largest).exp()
        return (own[0] * left + found[0] * right) / (own[1] * left + found[1] * right)


def _bias(mask: torch.Tensor) -> torch.Tensor:
    """0 where visible, else the lowest number: added to scores."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, torch.finfo(torch.float32).min)


def _partial(scores: torch.Tensor, bias: torch.Tensor, values: torch.Tensor) -> Sequence[torch.Tensor]:
    """Sum of values, sum of weights and largest score of a softmax over a part of what is seen."""
    scores = scores.float() + bias
    largest = scores.amax(-1, keepdim=True)
    weights = (scores - largest).exp_()
    return (weights.to(values.dtype) @ values).float(), weights.sum(-1, keepdim=True), largest


def shared_prefix_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    shared: SharedPrefixCache,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """As an attention function of transformers.

    Args:
        module: the attention layer.
        query: (rows, heads, tokens, size).
        key: (rows, key heads, own places, size), as ``shared`` returned them; value likewise.
        attention_mask: ignored; ``shared`` knows who sees what.
        scaling: of the scores.
        shared: the cache.

    Returns:
        (rows, tokens, heads, size).
    """
    rows, heads, tokens, size = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, size) * scaling
    found = shared.attend(module.layer_idx, grouped, key, value, tokens).to(query.dtype)
    return found.reshape(rows, heads, tokens, size).transpose(1, 2), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)
