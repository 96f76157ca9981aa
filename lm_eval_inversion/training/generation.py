"""Sampling from any transformers chat model in large batches, for data collection.

All conversations of one system prompt share their beginning, so it is prefilled once and its key/value cache is
repeated: with eight queries per prompt this saves most of the prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from lm_eval_inversion.target import shared_length

TOP_K = 50


def _pad(rows: Sequence[Sequence[int]], pad: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.long)
        mask[index, span] = 1
    return ids, mask


@torch.inference_mode()
def sample_answers(
    model: Any,
    conversations: Sequence[Sequence[Sequence[int]]],
    *,
    max_tokens: Sequence[Sequence[int]],
    temperatures: Sequence[Sequence[float]],
    stop_ids: set[int],
    generator: torch.Generator,
) -> list[list[list[int]]]:
    """Sample one answer to every conversation.

    Args:
        conversations: token ids; conversations[p][q] is query q under system prompt p. Every p has the same number of q.
        max_tokens: longest answers, in the same nesting. Rows that have ended are dropped from the batch as soon as half of it has.
        temperatures: in the same nesting. 0 is greedy; otherwise top-50 sampling, as transformers samples by default.
        stop_ids: tokens that end an answer (not returned).
        generator: of the draws; the same one gives the same answers to the same batch.

    Returns:
        Token ids of the answers, in the same nesting.
    """
    device, head = model.device, model.get_output_embeddings()
    per_prompt = len(conversations[0])
    cuts = [shared_length(rows) for rows in conversations]
    prefix_ids, prefix_mask = _pad([rows[0][:cut] for rows, cut in zip(conversations, cuts)], 0, left=True)
    suffixes = [row[cut:] for rows, cut in zip(conversations, cuts) for row in rows]
    suffix_ids, suffix_mask = _pad(suffixes, 0, left=False)
    heat = torch.tensor([value for row in temperatures for value in row], device=device)
    room = torch.tensor([value for row in max_tokens for value in row], device=device)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)

    prefix_ids, prefix_mask = prefix_ids.to(device), prefix_mask.to(device)
    cache = DynamicCache(config=model.config)
    positions = (prefix_mask.cumsum(1) - 1).clamp(min=0)
    if prefix_ids.shape[1]:
        model(
            input_ids=prefix_ids, attention_mask=prefix_mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        cache.batch_repeat_interleave(per_prompt)
    start = prefix_mask.sum(1).repeat_interleave(per_prompt)
    mask = torch.cat([prefix_mask.repeat_interleave(per_prompt, 0), suffix_mask.to(device)], 1)
    positions = start[:, None] + torch.arange(suffix_ids.shape[1], device=device)
    hidden = model.base_model(
        input_ids=suffix_ids.to(device), attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    lengths = suffix_mask.sum(1).to(device)
    logits = head(hidden[torch.arange(len(lengths), device=device), lengths - 1])
    next_position = start + lengths

    rows = torch.arange(len(suffixes), device=device)  # which conversation each row of the batch is
    alive = torch.ones(len(suffixes), dtype=torch.bool, device=device)
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []  # (conversations, tokens) that each step added
    for step in range(int(room.max())):
        token = _choose(logits, heat, generator)
        alive = alive & ~torch.isin(token, stops)
        steps.append((rows[alive], token[alive]))
        alive = alive & (step + 1 < room)
        living = int(alive.sum())
        if not living:
            break
        if 2 * living <= len(alive):
            kept = alive.nonzero().squeeze(1)
            cache.batch_select_indices(kept)
            rows, token, heat, room, mask, next_position, alive = (
                values[kept] for values in (rows, token, heat, room, mask, next_position, alive)
            )
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        hidden = model.base_model(
            input_ids=token[:, None], attention_mask=mask, position_ids=next_position[:, None], past_key_values=cache,
            use_cache=True,
        ).last_hidden_state  # fmt: skip
        logits = head(hidden[:, -1])
        next_position = next_position + 1
    answers: list[list[int]] = [[] for _ in suffixes]
    for which, tokens in steps:
        for index, value in zip(which.tolist(), tokens.tolist()):
            answers[index].append(value)
    return [answers[index : index + per_prompt] for index in range(0, len(answers), per_prompt)]


def _choose(logits: torch.Tensor, temperatures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The next token of every row: (rows, vocabulary) and (rows,) -> (rows,)."""
    values, candidates = logits.topk(min(TOP_K, logits.shape[-1]), dim=-1)
    heat = temperatures.clamp(min=1e-3)[:, None]
    probabilities = torch.softmax(values.float() / heat, -1)
    picked = torch.multinomial(probabilities, 1, generator=generator)
    picked = torch.where(temperatures[:, None] == 0, values.argmax(-1, keepdim=True), picked)
    return candidates.gather(1, picked).squeeze(1)
