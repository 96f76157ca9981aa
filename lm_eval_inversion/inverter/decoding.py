"""Decoding after a joined prefix: guided, greedy or sampled, and without running in circles.

Every prompt is decoded twice in one batch: once after its outputs, and once as if there were none (its *twin*), because guidance compares
the two. Attention of such a step is written here: the twins never touch the prefix, and the heads that share keys and values read them
once, where the general attention would first copy them for each head. The prefix is most of the memory and most of the reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache

from lm_eval_inversion.attention import attention_by, with_cache
from lm_eval_inversion.inverter.prefix_model import Prefix
from lm_eval_inversion.precision import activation_dtype, exact_device, fast_dtype

PLAUSIBLE = 0.1  # of the likeliest token's probability; see ``guided``
BEHIND = 1e4  # nats that put implausible tokens behind all plausible ones
ATTENTION = "lm_eval_inversion_twins"
# (scores of the next token (rows, vocabulary), which text each row is, step) -> the next token of every row
Chooser = Callable[[torch.Tensor, Sequence[int], int], torch.Tensor]


class TwinCache(DynamicCache):  # type: ignore[misc]
    """Keys and values of what has been decoded: the prompts' rows, then those of their twins. The prefix stands apart.

    Attributes:
        prefix: of the prompts, or one that all of them share; shared with the caller, never written to; may be of another type.
        hidden: (prompts or 1, 1, 1, width), added to scores on the prefix: 0 where there is a token, minus infinity at padding.
    """

    def __init__(self, prefix: Prefix, room: int, number: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._length, self._number = 0, number
        self._keys, self._values = (
            [part.new_zeros(2 * number, part.shape[1], room, part.shape[3], dtype=dtype) for part in parts]
            for parts in (prefix.keys, prefix.values)
        )
        self._set_prefix(prefix)

    def _set_prefix(self, prefix: Prefix) -> None:
        self.prefix = prefix
        self.hidden = torch.zeros(prefix.mask.shape, device=prefix.mask.device).masked_fill_(~prefix.mask, -torch.inf)[:, None, None]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Write the new tokens behind the old ones; return views on all that has been decoded."""
        end = self._length + key_states.shape[2]
        self._keys[layer_idx][:, :, self._length : end] = key_states
        self._values[layer_idx][:, :, self._length : end] = value_states
        if layer_idx == len(self._keys) - 1:
            self._length = end
        return self._keys[layer_idx][:, :, :end], self._values[layer_idx][:, :, :end]

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drop all prompts, with their twins, but these."""
        both = torch.cat([rows, rows + self._number])
        self._keys, self._values = [part[both] for part in self._keys], [part[both] for part in self._values]
        if self.prefix.mask.shape[0] == self._number:
            self._set_prefix(self.prefix.rows(rows))
        self._number = len(rows)

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Tokens decoded."""
        return self._length


def twin_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    twins: TwinCache,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one decoding step, as an attention function of transformers.

    Args:
        module: the attention layer.
        query: (2 * prompts, heads, 1, size).
        key: (2 * prompts, key heads, decoded tokens, size); all of them are visible.
        value: the same shape.
        attention_mask: ignored.
        scaling: of the scores.
        twins: the cache, which holds the prefix.

    Returns:
        (2 * prompts, 1, heads, size).
    """
    rows, heads, size = query.shape[0], query.shape[1], query.shape[3]
    prompts, shared = rows // 2, key.shape[1]
    # The queries of the heads that share keys stand together: one product reads the keys once for all of them.
    grouped = query.reshape(rows, shared, heads // shared, size) * scaling
    own = (grouped @ key.transpose(2, 3)).float()
    keys, values = twins.prefix.keys[module.layer_idx], twins.prefix.values[module.layer_idx]
    scores = _times_prefix(grouped[:prompts], keys.transpose(2, 3)).float() + twins.hidden
    width = scores.shape[3]
    given = torch.cat([scores, own[:prompts]], 3).softmax(-1).to(value.dtype)
    prior = own[prompts:].softmax(-1).to(value.dtype)
    outputs = _times_prefix(given[..., :width], values).to(value.dtype)
    found = torch.cat([outputs + given[..., width:] @ value[:prompts], prior @ value[prompts:]])
    return found.reshape(rows, 1, heads, size), None


def _times_prefix(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(prompts, key heads, heads, a) times (prompts, key heads, a, b); a matrix that all prompts share, (1, ...), is read once for all."""
    if matrix.shape[0] == rows.shape[0]:
        return _product(rows, matrix)
    prompts, shared, heads, inner = rows.shape
    together = _product(rows.transpose(0, 1).reshape(1, shared, prompts * heads, inner), matrix)
    return together.reshape(shared, prompts, heads, -1).transpose(0, 1)


def _product(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Their product, in the type of the prefix, which is the matrix: of fewer bits where layers compute in 8 bits."""
    rounded = rows.to(matrix.dtype)
    if rows.dtype is matrix.dtype or matrix.dtype is fast_dtype(matrix.device.type):
        return rounded @ matrix
    # What instructions for this type would give, by way of float32; prompt by prompt, because all of the matrix would be a large copy.
    parts = [one.float() @ other.float() for one, other in zip(torch.split(rounded, 1), torch.split(matrix, 1))]
    return torch.cat(parts).to(matrix.dtype)


AttentionInterface.register(ATTENTION, twin_attention)


def repeating_tokens(tokens: Sequence[int], run: int) -> set[int]:
    """The tokens that, written next, would repeat a run of ``run`` tokens that is already there."""
    last = tuple(tokens[len(tokens) - run + 1 :])
    return {tokens[end] for end in range(run - 1, len(tokens)) if tuple(tokens[end - run + 1 : end]) == last}


def guided(logits: torch.Tensor, prior: torch.Tensor, guidance: float) -> torch.Tensor:
    """Scores of the next token: log p(token | outputs) + guidance * [log p(token | outputs) - log p(token | no outputs)].

    So what the outputs speak for goes before what is said of any assistant. Tokens below ``PLAUSIBLE`` times the likeliest one
    come last, or the difference would favour tokens that are merely rare (contrastive decoding, Li et al. 2023).

    Args:
        logits: (prompts, vocabulary) given the outputs.
        prior: the same given no outputs.
    """
    own = logits.float().log_softmax(-1)
    scores = own + guidance * (own - prior.float().log_softmax(-1))
    return torch.where(own < own.amax(-1, keepdim=True) + math.log(PLAUSIBLE), own - BEHIND, scores)


def likeliest(scores: torch.Tensor, texts: Sequence[int], step: int) -> torch.Tensor:
    """The ``Chooser`` of greedy decoding."""
    return scores.argmax(-1)


def sampling(draws: torch.Tensor, temperature: float) -> Chooser:
    """A ``Chooser`` that decodes text 0 greedily and samples the others, with p proportional to exp(score / temperature).

    Each text has its own uniform numbers, drawn beforehand, so that it depends neither on how many others there are nor on when they end.
    What ``guided`` puts behind is never sampled as long as anything plausible may be written.

    Args:
        draws: (texts, steps) float64 in [0, 1).
        temperature: above 0.
    """

    def choose(scores: torch.Tensor, texts: Sequence[int], step: int) -> torch.Tensor:
        exact = scores.to(exact_device(scores.device))
        cumulative = (exact.double() / temperature).softmax(-1).cumsum(-1)
        wanted = draws[list(texts), step][:, None].to(exact.device) * cumulative[:, -1:]
        sampled = torch.searchsorted(cumulative, wanted, right=True).squeeze(1).clamp(max=scores.shape[-1] - 1).to(scores.device)
        return torch.where(torch.tensor([text == 0 for text in texts], device=scores.device), scores.argmax(-1), sampled)

    return choose


def decode(
    model: Any,
    prefix: Prefix,
    *,
    start_id: int,
    end_id: int,
    position: int,
    max_new_tokens: int,
    repeat_run: int,
    min_new_tokens: int = 0,
    guidance: float = 0.0,
    choose: Chooser = likeliest,
    number: int | None = None,
) -> list[list[int]]:
    """A text for every prompt of the prefix, or ``number`` texts after its only prompt, token by token as ``choose`` says.

    End tokens are not returned. A token that would repeat a run of ``repeat_run`` tokens is passed over for the next best one:
    greedy text of small models otherwise circles in one sentence until the token limit. No text ends before ``min_new_tokens``.
    Texts that have ended leave the batch as soon as they are half of it. ``guidance``: see ``guided``; each text has a twin in the
    batch that sees no outputs.
    """
    device = prefix.mask.device
    number = prefix.mask.shape[0] if number is None else number
    results: list[list[int]] = [[] for _ in range(number)]
    active = list(range(number))
    cache = TwinCache(prefix, max_new_tokens, number, activation_dtype(model))
    ids = torch.full((number, 1), start_id, dtype=torch.long, device=device)
    alive = torch.ones(number, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        hidden = _step(model, torch.cat([ids, ids]), position + step, cache)
        given, prior = model.get_output_embeddings()(hidden).chunk(2)
        logits = guided(given, prior, guidance)
        for row, prompt in enumerate(active):
            logits[row, list(repeating_tokens(results[prompt], repeat_run))] = -torch.inf
        if step < min_new_tokens:
            logits[:, end_id] = -torch.inf
        token = choose(logits, active, step)
        alive &= token != end_id
        for row, (value, running) in enumerate(zip(token.tolist(), alive.tolist())):
            if running:
                results[active[row]].append(value)
        if not bool(alive.any()):
            break
        ids = token[:, None]
        if 2 * int(alive.sum()) <= len(active):
            keep = alive.nonzero().squeeze(1)
            cache.keep_rows(keep)
            active = [active[row] for row in keep.tolist()]
            ids, alive = ids[keep], alive[keep]
    return results


def _step(model: Any, ids: torch.Tensor, position: int, cache: TwinCache) -> torch.Tensor:
    """Last hidden states (2 * prompts, width of the model) of one more token each."""
    with attention_by(model, ATTENTION):
        hidden: torch.Tensor = model.get_decoder()(
            input_ids=ids, position_ids=torch.full_like(ids, position), **with_cache(model.get_decoder(), cache), twins=cache
        ).last_hidden_state
    return hidden[:, -1]
