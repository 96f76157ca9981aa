"""Tokens that a workload reads and writes: by the model's own tokenizer and chat template, or estimated from characters."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from lm_eval_inversion.workload import PlannedRequest, Workload

if TYPE_CHECKING:
    from lm_eval_inversion.queries import Message, SystemRole

CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English; only used where no tokenizer is given


class TokenCounter(ABC):
    """Turns conversations into text, text into sequences of units, and units into tokens.

    Attributes:
        description: how tokens are counted, for people.
        units_per_token: 1 where a unit is a token.
        system_role: where the system prompt stands in a request.
    """

    description: str
    units_per_token: int = 1
    system_role: SystemRole = "system"

    @abstractmethod
    def render(self, messages: list[Message]) -> str:
        """A conversation as the text that the model reads, up to its answer."""

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> list[Sequence[Any]]:
        """The units of texts, one sequence each."""

    def tokens(self, units: Sequence[Any]) -> int:
        """Tokens of one request or text, rounded up."""
        return math.ceil(len(units) / self.units_per_token)


class CharacterCounter(TokenCounter):
    """An estimate from the number of characters, for models without a local tokenizer."""

    description = (
        f"an estimate: characters of all messages / {CHARACTERS_PER_TOKEN}, without what the chat template adds "
        "(give --tokenizer FOLDER to count with the model's own)"
    )
    units_per_token = CHARACTERS_PER_TOKEN

    def render(self, messages: list[Message]) -> str:
        """See ``TokenCounter.render``; only what the messages say."""
        return "".join(message["content"] for message in messages)

    def texts(self, texts: Sequence[str]) -> list[Sequence[Any]]:
        """See ``TokenCounter.texts``."""
        return list(texts)


class ModelCounter(TokenCounter):
    """The evaluated model's own tokenizer and chat template, read from disk.

    Args:
        source: a folder with a tokenizer, or a hub name that is in the local cache.

    Raises:
        FileNotFoundError: there is no tokenizer.
        ValueError: it has no chat template.
    """

    def __init__(self, source: str) -> None:
        from transformers import AutoTokenizer

        from lm_eval_inversion.queries import detect_system_role

        folder = os.path.expanduser(source)  # a home that nobody has stays as it is, where Path would raise
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            kind = "a folder without a usable tokenizer" if os.path.isdir(folder) else "no folder, and not in the hub's cache"
            raise FileNotFoundError(
                f"{source!r} is {kind}; plan fetches nothing: give the model's local folder, or leave the option out for an estimate"
            ) from error
        if not self._tokenizer.chat_template:
            raise ValueError(f"the tokenizer in {source!r} has no chat template, and the tasks need a chat model; give one that has")
        self.system_role = detect_system_role(self.render)
        self.description = f"the tokenizer and chat template of {source}"

    def render(self, messages: list[Message]) -> str:
        """See ``TokenCounter.render``; the template writes the special tokens itself."""
        from lm_eval_inversion.chat_model import render

        return render(self._tokenizer, messages)

    def texts(self, texts: Sequence[str]) -> list[Sequence[Any]]:
        """See ``TokenCounter.texts``."""
        return list(self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]) if texts else []


@dataclass(frozen=True)
class Counts:
    """What one task, or all of them, will take. Tokens are the evaluated model's, those of the inverter apart.

    Attributes:
        system_prompts: to be recovered, one per task that it stands in (in ``prompt_inversion_user`` users' requests).
        requests: all, null requests among them.
        null_requests: those without a system prompt, sent once per process.
        repeated_prompt_tokens: prompt tokens with which an earlier request of the same task began too: all that a prefix cache can save.
        longest_prompt_tokens: of one request; with the answer it must fit the model's context.
        output_tokens_limit: when every answer runs to its limit.
        output_tokens_typical: when answers are as long as in the saved run that the user named; None without one.
        inverter_outputs: outputs that the inverter reads, at most, those of the null run among them.
        inverter_tokens: the same in the inverter's tokens, per reading; None where that is not known.
    """

    system_prompts: int
    requests: int
    null_requests: int
    prompt_tokens: int
    repeated_prompt_tokens: int
    longest_prompt_tokens: int
    output_tokens_limit: int
    output_tokens_typical: int | None
    inverter_outputs: int
    inverter_tokens: int | None


def count(workload: Workload, counter: TokenCounter, typical_answers: Sequence[str] = ()) -> Counts:
    """Count one task.

    Args:
        typical_answers: answers of a saved run of the same task, redacted ones among them; their mean length, cut at the limit, is the
            typical one.
    """
    from lm_eval_inversion.queries import conversation

    starts: dict[tuple[str | None, str], str] = {}  # candidates of one context share their start

    def text(request: PlannedRequest) -> str:
        key = (request.system_prompt, str(request.turns))
        if key not in starts:
            starts[key] = counter.render(conversation(request.system_prompt, request.turns, counter.system_role))
        return starts[key] + request.continuation

    units = counter.texts([text(request) for request in workload.requests])
    tokens = [counter.tokens(sequence) for sequence in units]
    typical = None
    if typical_answers:
        lengths = [min(workload.max_tokens, tokens) for tokens in _answer_tokens(typical_answers, counter)]
        typical = round(len(units) * sum(lengths) / len(lengths))
    return Counts(
        system_prompts=workload.system_prompts,
        requests=len(units),
        null_requests=sum(request.null for request in workload.requests),
        prompt_tokens=sum(tokens),
        repeated_prompt_tokens=sum(_common_prefixes(units, counter.units_per_token)),
        longest_prompt_tokens=max(tokens),
        output_tokens_limit=len(units) * workload.max_tokens,
        output_tokens_typical=typical,
        inverter_outputs=workload.inverter_outputs,
        inverter_tokens=workload.inverter_tokens,
    )


def _answer_tokens(answers: Sequence[str], counter: TokenCounter) -> Iterator[int]:
    """Tokens of the answers of a saved run; of redacted ones, whose text is gone, an estimate from the characters that it had."""
    from lm_eval_inversion.redaction import redacted_length

    for answer, sequence in zip(answers, counter.texts(answers)):
        length = redacted_length(answer)
        yield counter.tokens(sequence) if length is None else math.ceil(length[0] / CHARACTERS_PER_TOKEN)


def _common_prefixes(sequences: Sequence[Sequence[Any]], units_per_token: int) -> Iterator[int]:
    """Tokens of every sequence that begin another one too; in sorted order that one is the neighbour."""
    ordered: list[Any] = sorted(sequences)  # type: ignore[type-var]
    for first, second in zip(ordered, ordered[1:]):
        yield sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second))) // units_per_token


def add_counts(parts: Sequence[Counts]) -> Counts:
    """The sum over tasks; what is not known of one task is not known of the sum."""
    totals: dict[str, int | None] = {}
    for name in Counts.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        totals[name] = None if None in values else max(values) if name == "longest_prompt_tokens" else sum(values)
    return Counts(**totals)  # type: ignore[arg-type]
