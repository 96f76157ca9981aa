"""A baseline that can talk: any chat model, untrained for this, asked in its own words to guess the prompt behind some outputs.

The question is one user message::

    An assistant was given a system prompt that you cannot see. ... The texts:

    1. Ah, the weekend! Start with a walk along the pier and ...
    2. Fair winds! What brings you to the light tonight?

    Guess the system prompt ... and nothing else.

The answer, decoded greedily, is the reconstruction. The likelihood of a prompt is that of the same model giving it as its whole answer to
the same question.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from lm_eval_inversion.attention import require_attention, with_cache, written_cache
from lm_eval_inversion.characters import whole_characters
from lm_eval_inversion.chat_model import render
from lm_eval_inversion.context import context_of
from lm_eval_inversion.hashing import content_hash, file_sha256
from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS, Inverter, OutputSets, Secret, check_pairs
from lm_eval_inversion.inverter.model_folder import config_and_tokenizer, require_vocabulary, require_whole_model, whole_model
from lm_eval_inversion.inverter.recent import Recent
from lm_eval_inversion.inverter.tokens import listed_ids, plain_ids, special_ids
from lm_eval_inversion.outputs import MAX_OUTPUTS
from lm_eval_inversion.queries.conversations import SENTINEL, user_turn
from lm_eval_inversion.thinking import strip_thinking

MAX_OUTPUT_TOKENS = 32  # read of each output: one block of the shipped inverter
MAX_OUTPUT_CHARACTERS = MAX_OUTPUT_TOKENS * 32  # of which tokens are made; more never fit ordinary text
KEPT_READINGS = 12  # questions whose cache is kept: a batch of ``evaluate`` and its null conditions
NO_OUTPUTS = "(none is known)"
QUESTIONS: dict[Secret, str] = {
    "system": (
        "An assistant was given a system prompt that you cannot see. Below are texts that the assistant wrote while it followed that "
        "prompt, each cut short. The texts:\n\n{outputs}\n\n"
        "Guess the system prompt: who the assistant is, what it helps with and for whom, how it talks, and which rules it keeps. "
        "Reply with the text of the system prompt and nothing else, as it was given to the assistant. Do not answer the texts, and do not "
        "explain your guess."
    ),
    "user": (
        "A user sent an assistant a message that you cannot see. Below are answers that the assistant gave to that message, each cut "
        "short. The answers:\n\n{outputs}\n\n"
        "Guess the message. Reply with the text of the user's message and nothing else, as the user wrote it. Do not answer it, and do not "
        "explain your guess."
    ),
}
# What models like to put around the text although they were asked not to.
_LABEL = re.compile(
    r"^[\s*#_]*(?:(?:the|my|guessed|hidden|likely)\s+)*(?:system prompt|(?:user'?s?\s+)?message)[\s*_]*:[\s*_]*", re.IGNORECASE
)
_QUOTES = "\"'`“”‘’*"


class AskedModelInverter(Inverter):
    """Guesses by being asked; one question at a time, so that nothing depends on what else is in the batch.

    Args:
        model: a transformers causal language model.
        tokenizer: its fast tokenizer, with a chat template.
        secret: what is asked for.

    Raises:
        ValueError: see ``check_tokenizer``.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, hash: str, secret: Secret = "system") -> None:
        check_tokenizer(tokenizer, name)
        self.model, self.tokenizer, self.name, self.hash, self.secret = model, tokenizer, name, hash, secret
        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: what is set here must not reach the template
        self._plain.encode_special_tokens = True
        self._plain.no_truncation()
        self._before, self._after, self._end = self._frame()
        framing = {*self._before, *self._after, self._end} & set(self._plain.get_added_tokens_decoder())
        blank = {token for token in framing if not self._plain.decode([token], skip_special_tokens=False).strip()}
        self.control_ids = frozenset({*special_ids(self._plain), *(framing - blank)})
        self._readings: Recent[tuple[int, ...], Any] = Recent(KEPT_READINGS)

    @classmethod
    def from_folder(cls, folder: Path, *, name: str, device: str, dtype: torch.dtype) -> AskedModelInverter:
        """Load a chat model's folder (config, safetensors weights, tokenizer with a chat template); nothing is fetched.

        Raises:
            OSError: transformers cannot read the folder.
            ValueError: see ``check_small_files``, or weights are missing.
        """
        from transformers import AutoModelForCausalLM

        tokenizer = check_small_files(folder, name)[1]
        model = whole_model(AutoModelForCausalLM, folder, f"inverter={name!r}", dtype=dtype)
        files = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".json", ".jinja"})
        digest = content_hash([QUESTIONS, MAX_OUTPUT_TOKENS, [[path.name, file_sha256(path)] for path in files]])
        return cls(model.to(device).eval(), tokenizer, name=name, hash=digest)

    def of(self, secret: Secret) -> AskedModelInverter:
        """See ``Inverter.of``: the same model, asked for the other kind of text."""
        if secret == self.secret:
            return self
        return self.beside(AskedModelInverter(self.model, self.tokenizer, name=self.name, hash=self.hash, secret=secret))

    def question(self, outputs: Sequence[str]) -> str:
        """The user message that asks for the secret behind some outputs, whatever their order; white space in them says nothing."""
        texts = sorted(text for line in outputs if (text := " ".join(whole_characters(line[:MAX_OUTPUT_CHARACTERS]).split())))[:MAX_OUTPUTS]
        encoded = self._plain.encode_batch(texts, add_special_tokens=False)
        cut = [text[: max((end for _, end in found.offsets[:MAX_OUTPUT_TOKENS]), default=0)] for text, found in zip(texts, encoded)]
        listed = "\n".join(f"{number}. {text}" for number, text in enumerate(cut, 1))
        return QUESTIONS[self.secret].format(outputs=listed or NO_OUTPUTS)

    def question_ids(self, outputs: Sequence[str]) -> list[int]:
        """Token ids of the whole request, up to where the answer begins; control tokens stand in the template's part only."""
        return [*self._before, *self._text_ids(self.question(outputs)), *self._after]

    def answer_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt given as an answer, with the token that ends an answer."""
        return [*self._text_ids(whole_characters(prompt)), self._end]

    def _text_ids(self, text: str) -> list[int]:
        return plain_ids(self._plain, self.control_ids, text, self._plain.encode(text, add_special_tokens=False))

    def _frame(self) -> tuple[list[int], list[int], int]:
        """What the chat template puts before and behind a user message, and the token that ends an answer."""
        before, _, after = render(self.tokenizer, user_turn(SENTINEL), thinking=False).partition(SENTINEL)
        answered = [*user_turn("?"), {"role": "assistant", "content": SENTINEL}]
        closing = self.tokenizer.apply_chat_template(answered, tokenize=False).partition(SENTINEL)[2]
        special = {*special_ids(self._plain), *self.tokenizer.all_special_ids}
        end = next((token for token in self._ids(closing) if token in special), self.tokenizer.eos_token_id)
        return self._ids(before), self._ids(after), int(end)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _read_question(self, ids: tuple[int, ...]) -> Any:
        """Keys and values of a question but its last token, which is read again by whoever goes on from there."""
        row = torch.tensor([ids[:-1]], device=self.model.device)
        return written_cache(self.model, self.model(input_ids=row, use_cache=True, logits_to_keep=1))

    @torch.inference_mode()
    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """See ``Inverter.invert``; greedy, without any setting of the model's own."""
        return [self._answer(self.question_ids(lines), max_new_tokens) for lines in outputs]

    def _answer(self, ids: Sequence[int], max_new_tokens: int) -> str:
        cache = copy.deepcopy(self._readings.get(tuple(ids), self._read_question))
        stops = {self._end, self.tokenizer.eos_token_id, *listed_ids(self.model.generation_config.eos_token_id)}
        found: list[int] = []
        token = ids[-1]
        for _ in range(max_new_tokens):
            step = self.model(input_ids=torch.tensor([[token]], device=self.model.device), **with_cache(self.model, cache))
            token = int(step.logits[0, -1].argmax())
            if token in stops:
                break
            found.append(token)
        return bare_text(self.tokenizer.decode(found, skip_special_tokens=True))

    @torch.inference_mode()
    def token_nll(self, outputs: OutputSets, prompts: Sequence[str]) -> list[list[float]]:
        """See ``Inverter.token_nll``: of the prompt and the end of the answer, as an answer to the question."""
        check_pairs(outputs, prompts)
        result = []
        for lines, prompt in zip(outputs, prompts):
            question, answer = self.question_ids(lines), self.answer_ids(prompt)
            # Copied, because reading on writes into it; one prompt at a time, so that none sees another.
            cache = copy.deepcopy(self._readings.get(tuple(question), self._read_question))
            row = torch.tensor([[question[-1], *answer]], device=self.model.device)
            logits = self.model(input_ids=row[:, :-1], **with_cache(self.model, cache)).logits
            result.append(torch.nn.functional.cross_entropy(logits[0].float(), row[0, 1:], reduction="none").tolist())
        return result


def check_folder(folder: Path, name: str) -> tuple[int | None, Callable[[str], int]]:
    """Read the small files of a chat model's folder and the names of its weights, so that what cannot be asked is found before a run.

    Returns:
        Tokens of the longest prompt that fits the model's context behind the longest question and before the end of the answer, None
        where the context has no limit; and what counts the tokens of a prompt.

    Raises:
        ValueError: see ``check_small_files``, or weights are missing.
    """
    from transformers import AutoModelForCausalLM

    config, tokenizer = check_small_files(folder, name)
    require_whole_model(AutoModelForCausalLM, folder, name, config)
    context = context_of(config)
    room = None if context is None else context - question_tokens(tokenizer) - 1
    return room, lambda text: len(tokenizer(whole_characters(text), add_special_tokens=False)["input_ids"])


def check_small_files(folder: Path, name: str) -> tuple[Any, Any]:
    """Read the small files of a chat model's folder; returns configuration and tokenizer.

    Raises:
        ValueError: the folder holds no causal language model, see ``check_tokenizer`` and ``require_vocabulary``, or its context is too
            short for the question.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config, tokenizer = config_and_tokenizer(folder, name)
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(f"inverter={name!r}: {folder} holds a {config.model_type}; give a chat model that only decodes")
    require_attention(config.get_text_config(), f"inverter={name!r}")
    check_tokenizer(tokenizer, name)
    context = context_of(config)
    require_vocabulary(tokenizer, config, name, _longest_frame(tokenizer))
    needed = question_tokens(tokenizer) + DEFAULT_MAX_NEW_TOKENS
    if context is not None and context < needed:
        raise ValueError(
            f"inverter={name!r}: the question with {MAX_OUTPUTS} outputs and its answer take up to {needed} tokens, the model's context "
            f"has {context}; give a model with a longer context"
        )
    return config, tokenizer


def question_tokens(tokenizer: Any) -> int:
    """Tokens of the longest question: as many outputs as are read, each as long as it is read."""
    return len(_longest_frame(tokenizer)) + MAX_OUTPUTS * MAX_OUTPUT_TOKENS


def _longest_frame(tokenizer: Any) -> list[int]:
    """Token ids of the question with the numbers of all outputs, and without the outputs."""
    numbers = "".join(f"\n{number}. " for number in range(1, MAX_OUTPUTS + 1))
    asked = render(tokenizer, user_turn(QUESTIONS["system"] + numbers), thinking=False)
    return list(tokenizer(asked, add_special_tokens=False)["input_ids"])


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Check that a chat model can be asked with this tokenizer.

    Raises:
        ValueError: it has no chat template, is no fast tokenizer, or its template does not pass a user message on unchanged.
    """
    if not tokenizer.chat_template:
        raise ValueError(f"inverter={name!r}: its tokenizer has no chat template, so it cannot be asked; give a chat model")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(f"inverter={name!r}: its folder has no tokenizer.json; give a model with a fast tokenizer")
    if render(tokenizer, user_turn(SENTINEL), thinking=False).count(SENTINEL) != 1:
        raise ValueError(f"inverter={name!r}: its chat template does not pass a user message on once and unchanged; give another model")


def bare_text(answer: str) -> str:
    """An answer without thoughts, without a label such as "System prompt:", and without quotation marks around it."""
    text = _LABEL.sub("", strip_thinking(answer)).strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text.strip(_QUOTES).strip()
    return text
