"""The evaluated model as a judge: how likely its own answers are under a system prompt that somebody believes was there.

The model is loaded with transformers, whatever host ran it before: no host computes likelihoods of answers that it has just sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache

from lm_eval_inversion.attention import require_attention, with_cache
from lm_eval_inversion.chat_model import load_chat_model, render
from lm_eval_inversion.context import context_of
from lm_eval_inversion.inverter.prefix_model import pad_rows
from lm_eval_inversion.queries import Message, SystemRole, conversation, detect_system_role, require_prompt_in_request, require_room
from lm_eval_inversion.thinking import with_opened_thinking

READ_TOKENS = 16_384  # tokens of padded conversations run at once
CONTINUATIONS = 32  # rows run at once where their logits all stand in memory
SCORED_TOKENS = 1024  # tokens whose logits stand in memory at once; a vocabulary of 150 000 takes 0.6 MB for each


class Target:
    """A chat model with log-likelihoods.

    Attributes:
        name: folder or hub name.
        thinking: False where its chat template is told that it shall not think first.
        template_arguments: what else its chat template is told.
        tokens: run through the model so far.
    """

    def __init__(
        self, name: str, model: Any, tokenizer: Any, thinking: bool = True, template_arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.name, self.model, self.tokenizer, self.thinking, self.tokens = name, model, tokenizer, thinking, 0
        self.template_arguments = dict(template_arguments or {})

    @cached_property
    def system_role(self) -> SystemRole:
        """How a system prompt reaches it.

        Raises:
            ValueError: it has no chat template, or none that lets a prompt through.
        """
        if not (self.tokenizer.chat_template or self.template_arguments.get("chat_template")):
            raise ValueError(f"--model {self.name} has no chat template: give the chat model that answered")
        return detect_system_role(self._render)

    @classmethod
    def load(
        cls, name: str, revision: str | None = None, device: str = "auto", thinking: bool = True, needs_template: bool = True
    ) -> Target:
        """Load a local or hub model, in the floating-point type that it is stored in or, on a CPU that is slow in any other, in float32.

        Args:
            thinking: False tells the chat template that the model shall not think first, as ``training.collect`` does, for answers
                that were made so.
            needs_template: False leaves the check of its chat template to ``system_role``, for answers whose run may have named another
                (``asked_with``).

        Raises:
            ValueError: it cannot be loaded, see ``load_chat_model`` and ``require_readable``, or see ``system_role``.
        """
        from lm_eval_inversion.precision import choose_device, fast_dtype

        place = choose_device(device)
        fast = fast_dtype(place)
        mend = "log-likelihoods need the model itself, as a folder or hub name that transformers can load: a chat API gives none"
        model, tokenizer = load_chat_model(name, fast if fast is torch.float32 else "auto", mend, revision)
        if place.startswith("cpu") and model.dtype is torch.float16:  # which CPUs multiply far more slowly
            model = model.to(fast)
        require_readable(model.to(place).eval(), f"--model {name}")
        target = cls(name, model, tokenizer, thinking)
        if needs_template:
            target.system_role  # noqa: B018 (raises)
        return target

    def told_not_to_think(self) -> Target:
        """The same model with requests for answers that were made without thinking first."""
        return Target(self.name, self.model, self.tokenizer, thinking=False, template_arguments=self.template_arguments)

    def asked_with(self, tokenizer: Any, template_arguments: Mapping[str, Any]) -> Target:
        """The same model with requests as another tokenizer (None: its own) writes them, its chat template told these arguments."""
        return Target(self.name, self.model, tokenizer or self.tokenizer, self.thinking, template_arguments)

    def _render(self, messages: list[Message]) -> str:
        return render(self.tokenizer, messages, self.thinking, self.template_arguments)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer_tokens(self, answers: Sequence[str]) -> int:
        """Tokens of all answers together."""
        return sum(len(self._ids(answer)) for answer in answers)

    def log_likelihood(self, conversations: Sequence[tuple[str | None, Sequence[Message]]], answers: Sequence[str]) -> float:
        """Sum over conversations of log p(answer | system prompt, turns), in nats; the end of an answer is not scored.

        What all conversations begin with, the system prompt, is run once.

        Args:
            conversations: system prompt (None: without one) and turns of each.
            answers: one to each, as the hosts save them: behind the think tag that their request ends in, if it does.

        Raises:
            ValueError: a request drops the system prompt, or does not fit the model's context.
        """
        asked, said = [], []
        for (prompt, turns), answer in zip(conversations, answers):
            request = self._render(conversation(prompt, turns, self.system_role))
            if prompt is not None:
                require_prompt_in_request(prompt, request)
            own = self._ids(continuation(request, answer))
            said.append(own)
            asked.append(self._ids(request))
            if room := context_of(self.model.config):
                # Its length and not its text: system prompts may be private.
                require_room(f"of {len(prompt or '')} characters", len(asked[-1]), len(own), room, "take a model of a longer context")
        pairs = [(request, own) for request, own in zip(asked, said) if own]
        if not pairs:
            return 0.0
        cut = shared_length([request for request, _ in pairs])
        rows = [(len(request) - cut, request[cut:] + own) for request, own in pairs]
        size = max(1, READ_TOKENS // max(len(ids) for _, ids in rows))
        # Rows of about one length together, which keeps padding small.
        rows.sort(key=lambda row: len(row[1]))
        return sum(self._read(pairs[0][0][:cut], rows[start : start + size]) for start in range(0, len(rows), size))

    @torch.inference_mode()
    def _read(self, beginning: Sequence[int], rows: Sequence[tuple[int, Sequence[int]]]) -> float:
        """Sum of log p over rows (tokens of the request, token ids) after a common beginning, each from behind its request on."""
        device, decoder = self.model.device, decoder_of(self.model)
        cache = DynamicCache(config=self.model.config)
        if beginning:
            decoder(input_ids=torch.tensor([list(beginning)], device=device), **with_cache(decoder, cache))
            cache.batch_repeat_interleave(len(rows))
        ids, lengths = pad_rows([ids for _, ids in rows], device)
        width = ids.shape[1]
        real = (torch.arange(width, device=device)[None] < lengths[:, None]).long()
        mask = torch.cat([real.new_ones(len(rows), len(beginning)), real], 1)
        positions = (len(beginning) + torch.arange(width, device=device))[None].expand_as(ids)
        hidden = decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, **with_cache(decoder, cache)
        ).last_hidden_state  # fmt: skip
        self.tokens += len(beginning) + sum(len(own) for _, own in rows)
        begins = torch.tensor([start for start, _ in rows], device=device)
        places = torch.arange(1, width, device=device)[None]
        scored = (places >= begins[:, None]) & (real[:, 1:] == 1)
        states, wanted = hidden[:, :-1][scored], ids[:, 1:][scored]
        total = 0.0
        for start in range(0, len(wanted), SCORED_TOKENS):
            chosen = slice(start, start + SCORED_TOKENS)
            logits = token_logits(self.model, states[chosen]).float()
            total -= float(torch.nn.functional.cross_entropy(logits, wanted[chosen], reduction="sum"))
        return total


def continuation(request: str, answer: str) -> str:
    """What the model wrote behind a rendered request: a saved answer without the think tag in which the request ends already."""
    return answer.removeprefix(with_opened_thinking(request, ""))


@torch.inference_mode()
def continuation_nats(model: Any, rows: Sequence[Sequence[int]], start: int) -> list[float]:
    """Log-likelihood of each row from a place on, in nats, by the model's own ``forward``: of any causal language model.

    Args:
        model: it.
        rows: token ids.
        start: tokens of each row that are given; at least one.
    """
    found: list[float] = []
    for begin in range(0, len(rows), CONTINUATIONS):
        chosen = rows[begin : begin + CONTINUATIONS]
        # Padding stands behind: under a causal mask it changes nothing before it.
        tokens, lengths = pad_rows(chosen, model.device)
        logits = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[:, start - 1 : -1].float()
        nats = torch.log_softmax(logits, -1).gather(-1, tokens[:, start:, None])[..., 0]
        found += [float(row[: length - start].sum()) for row, length in zip(nats, lengths.tolist())]
    return found


def token_logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of the next token as the model's own ``forward`` has them, from last hidden states (..., width).

    Some families scale what the head gives, or bound it; where that is left out, likelihoods are finite and wrong.
    """
    config = model.config.get_text_config()
    logits: torch.Tensor = model.get_output_embeddings()(hidden)
    if scaling := getattr(config, "logits_scaling", None):  # Granite divides, HyperCLOVA X multiplies
        logits = logits * scaling if config.model_type.startswith("hyperclovax") else logits / scaling
    if factor := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * factor
    if bound := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = torch.tanh(logits / bound) * bound
    return logits


def decoder_of(model: Any) -> Any:
    """The part of a language model that gives last hidden states."""
    parts = (model.get_decoder(), model.base_model, getattr(model, "model", None))
    return next((part for part in parts if part is not None and part is not model), model)


@torch.inference_mode()
def require_readable(model: Any, what: str) -> None:
    """Check that this package can read a language model, also on behind a cache: in wrong hands its likelihoods are finite and wrong.

    Raises:
        ValueError: see ``require_attention``; or its logits are not those of its own ``forward``. ``what`` begins the message.
    """
    require_attention(model.config, what)
    ids = torch.tensor([[1, 2, 3, 1]], device=model.device) % model.get_input_embeddings().num_embeddings
    own = model(input_ids=ids).logits[0, -1].float()
    try:
        decoder, cache = decoder_of(model), DynamicCache(config=model.config)
        decoder(input_ids=ids[:, :2], **with_cache(decoder, cache))
        behind = decoder(input_ids=ids[:, 2:], position_ids=torch.tensor([[2, 3]], device=model.device), **with_cache(decoder, cache))
        read = token_logits(model, behind.last_hidden_state[0, -1]).float()
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(f"{what} is a {model.config.model_type}, whose decoder cannot be read alone ({error}); give another") from error
    # Of the same tokens; a scale or a bound that is left out, or a cache that is not read, shows far above rounding.
    if not torch.allclose(own, read, rtol=0.05, atol=0.05 * float(own.abs().max())):
        raise ValueError(f"{what} is a {model.config.model_type}, which makes its logits in a way that is not known here; give another one")


def shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with, at most one less than the shortest has: the last one predicts what comes next."""
    limit = min(map(len, rows)) - 1
    return next((place for place in range(limit) if len({row[place] for row in rows}) > 1), limit)
