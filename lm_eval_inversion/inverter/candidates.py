"""The likelihood of many candidate prompts after one prefix.

The candidates stand one after another in a single row, so that all that is done token by token runs on all of them at once, and the
prefix is neither run again nor kept once for each. Attention runs candidate by candidate: each sees the prefix and itself. Over the
whole row, most of what attention computes would be hidden again, which took half of the time (``docs/LOG.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from lm_eval_inversion.attention import attention_by
from lm_eval_inversion.inverter.prefix_model import Prefix, visible
from lm_eval_inversion.precision import activation_dtype

SCORED_TOKENS = 512  # whose logits over the vocabulary are held at once
ATTENTION = "lm_eval_inversion_candidates"


def candidates_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    prefix: Prefix,
    masks: Sequence[torch.Tensor],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a row of candidates, as an attention function of transformers.

    Args:
        module: the attention layer.
        query: (1, heads, tokens of all candidates, size).
        key: (1, key heads, tokens, size).
        value: the same shape.
        attention_mask: ignored.
        scaling: of the scores.
        prefix: of one prompt.
        masks: of every candidate, (1, 1, shared * its tokens, prefix width + its tokens): those of ``visible``, repeated for the heads
            that share keys.

    Returns:
        (1, tokens, heads, size).
    """
    heads, key_heads, size = query.shape[1], key.shape[1], query.shape[3]
    keys, values = (part[module.layer_idx].to(key.dtype) for part in (prefix.keys, prefix.values))
    lengths = [mask.shape[2] * key_heads // heads for mask in masks]
    found = []
    for own_query, own_key, own_value, mask in zip(*(torch.split(part, lengths, 2) for part in (query, key, value)), masks):
        # The queries of the heads that share keys stand below each other: the keys need no copy for each of them.
        grouped = own_query.reshape(1, key_heads, -1, size)
        seen = functional.scaled_dot_product_attention(
            grouped, torch.cat([keys, own_key], 2), torch.cat([values, own_value], 2), attn_mask=mask, scale=scaling
        )  # fmt: skip
        found.append(seen.reshape(1, heads, -1, size))
    return torch.cat(found, 2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, candidates_attention)


def candidate_loss(model: Any, prefix: Prefix, prompts: Sequence[Sequence[int]], position: int) -> torch.Tensor:
    """-log p of many candidate prompts after one prefix, in nats: (prompts,)."""
    return torch.stack([losses.sum() for losses in candidate_token_losses(model, prefix, prompts, position)])


def candidate_token_losses(model: Any, prefix: Prefix, prompts: Sequence[Sequence[int]], position: int) -> list[torch.Tensor]:
    """-log p of every token behind the first of many candidate prompts, in nats; per prompt (tokens - 1,).

    Args:
        model: a transformers decoder-only LM.
        prefix: of one prompt; gradients flow through it.
        prompts: token ids of each candidate, with start and end.
        position: of a candidate's first token.
    """
    device = prefix.mask.device
    ids = torch.tensor([[token for prompt in prompts for token in prompt]], device=device)
    places = torch.tensor([[index for prompt in prompts for index in range(len(prompt))]], device=device)
    dtype = activation_dtype(model)
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    # Made here and not by each layer.
    masks = [
        visible(
            prefix, torch.ones(1, len(prompt), len(prompt), dtype=torch.bool, device=device).tril(), dtype
        ).repeat(1, 1, shared, 1)
        for prompt in prompts
    ]  # fmt: skip
    with attention_by(model, ATTENTION):
        hidden = model.get_decoder()(
            input_ids=ids, position_ids=position + places, use_cache=False, prefix=prefix, masks=masks
        ).last_hidden_state[0]  # fmt: skip
    last = torch.cat([places[0, 1:] == 0, places.new_ones(1, dtype=torch.bool)])
    targets, head = ids[0].roll(-1)[~last], model.get_output_embeddings()
    # In slices: the logits of all candidates would be the largest thing in memory.
    slices = zip(torch.split(hidden[~last], SCORED_TOKENS), torch.split(targets, SCORED_TOKENS))
    losses = torch.cat([functional.cross_entropy(head(part).float(), wanted, reduction="none") for part, wanted in slices])
    return list(torch.split(losses, [len(prompt) - 1 for prompt in prompts]))
