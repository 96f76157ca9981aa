"""Sampling from any transformers chat model in large batches, for data collection.

All conversations of one system prompt share their beginning, so it is prefilled once: with eight queries per prompt this saves most of the
prefill. Models that attend in the plain way also keep its cache once (``shared_prefix``); that of others is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from lm_eval_inversion.attention import attention_by, slides, with_cache
from lm_eval_inversion.target import decoder_of, shared_length, token_logits
from lm_eval_inversion.training.shared_prefix import ATTENTION, SharedPrefixCache, can_share

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


class _Repeated:
    """Reads on behind beginnings in the general way: their cache is repeated for every conversation.

    Args:
        model: any that transformers has.
        cache: of the beginnings.
        beginning_mask: (prompts, width).
        per_prompt: conversations behind each.
        suffix_mask: (prompts * per_prompt, width) of the tokens that are read first.
        most: tokens that are read after those; only ``_Shared``, which has the same arguments, must know.
    """

    def __init__(
        self, model: Any, cache: DynamicCache, beginning_mask: torch.Tensor, per_prompt: int, suffix_mask: torch.Tensor, most: int
    ) -> None:
        self.model, self.cache = model, cache
        if beginning_mask.shape[1]:
            cache.batch_repeat_interleave(per_prompt)
        self.mask = torch.cat([beginning_mask.repeat_interleave(per_prompt, 0), suffix_mask], 1)
        self.unread = suffix_mask.shape[1]

    def read(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Last hidden states of more tokens (rows, tokens)."""
        new = ids.shape[1] - self.unread
        self.mask, self.unread = torch.cat([self.mask, self.mask.new_ones(len(ids), new)], 1), 0
        return _hidden(self.model, ids, positions, self.cache, attention_mask=self.mask)

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drop all conversations but these."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class _Shared:
    """The same for models that attend in the plain way: nothing of the beginnings is repeated. Arguments as of ``_Repeated``."""

    def __init__(
        self, model: Any, cache: DynamicCache, beginning_mask: torch.Tensor, per_prompt: int, suffix_mask: torch.Tensor, most: int
    ) -> None:
        self.model = model
        self.cache = SharedPrefixCache(cache, beginning_mask, per_prompt, suffix_mask, suffix_mask.shape[1] + most)

    def read(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """See ``_Repeated.read``."""
        with attention_by(self.model, ATTENTION):
            hidden = _hidden(self.model, ids, positions, self.cache, shared=self.cache)
        self.cache.advance(ids.shape[1])
        return hidden

    def keep_rows(self, rows: torch.Tensor) -> None:
        """See ``_Repeated.keep_rows``."""
        self.cache.keep_rows(rows)


def _hidden(model: Any, ids: torch.Tensor, positions: torch.Tensor, cache: DynamicCache, **more: Any) -> torch.Tensor:
    decoder = decoder_of(model)
    found: torch.Tensor = decoder(input_ids=ids, position_ids=positions, **with_cache(decoder, cache), **more).last_hidden_state
    return found


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
    device = model.device
    per_prompt = len(conversations[0])
    if per_prompt > 1 and slides(model.config):
        # Padding behind a shorter question would take places in the window: each conversation is read by itself, padded in front.
        alone = sample_answers(
            model,
            [[ids] for rows in conversations for ids in rows],
            max_tokens=[[value] for row in max_tokens for value in row],
            temperatures=[[value] for row in temperatures for value in row],
            stop_ids=stop_ids,
            generator=generator,
        )
        return [[own for (own,) in alone[start : start + per_prompt]] for start in range(0, len(alone), per_prompt)]
    cuts = [shared_length(rows) for rows in conversations]
    beginnings, beginning_mask = _pad([rows[0][:cut] for rows, cut in zip(conversations, cuts)], 0, left=True)
    suffixes = [row[cut:] for rows, cut in zip(conversations, cuts) for row in rows]
    suffix_ids, suffix_mask = _pad(suffixes, 0, left=False)
    heat = torch.tensor([value for row in temperatures for value in row], device=device)
    room = torch.tensor([value for row in max_tokens for value in row], device=device)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)

    beginnings, beginning_mask, suffix_mask = beginnings.to(device), beginning_mask.to(device), suffix_mask.to(device)
    cache = DynamicCache(config=model.config)
    if beginnings.shape[1]:
        positions = (beginning_mask.cumsum(1) - 1).clamp(min=0)
        model(
            input_ids=beginnings, attention_mask=beginning_mask, position_ids=positions, logits_to_keep=1, **with_cache(model, cache)
        )  # fmt: skip
    kind = _Shared if can_share(model) else _Repeated
    behind = kind(model, cache, beginning_mask, per_prompt, suffix_mask, int(room.max()))
    start = beginning_mask.sum(1).repeat_interleave(per_prompt)
    positions = start[:, None] + torch.arange(suffix_ids.shape[1], device=device)
    hidden = behind.read(suffix_ids.to(device), positions)
    lengths = suffix_mask.sum(1)
    logits = token_logits(model, hidden[torch.arange(len(lengths), device=device), lengths - 1])
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
            behind.keep_rows(kept)
            rows, token, heat, room, next_position, alive = (
                values[kept] for values in (rows, token, heat, room, next_position, alive)
            )
        logits = token_logits(model, behind.read(token[:, None], next_position[:, None])[:, -1])
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
