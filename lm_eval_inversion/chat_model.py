"""Chat models of transformers, as this package loads and asks them: one way for collecting, reranking, asking and planning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_inversion.queries.conversations import Message, without_thinking

REASON_CHARACTERS = 200  # of what transformers says, which may be a page


def load_chat_model(name: str, dtype: Any, mend: str, revision: str | None = None) -> tuple[Any, Any]:
    """Load the model of ``--model``, a folder or hub name, and its tokenizer; no code of its own is run.

    Args:
        name: folder or hub name.
        dtype: as of transformers.
        mend: what the user can do where it cannot be loaded; ends the message.
        revision: of a hub model.

    Raises:
        ValueError: it cannot be loaded, or see ``require_undamaged``.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_inversion.inverter.model_folder import require_undamaged

    require_undamaged(Path(name), f"--model {name}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"--model {name} cannot be loaded ({_reason(error)}); {mend}") from error
    return model, tokenizer


def load_tokenizer(name: str, what: str, mend: str, revision: str | None = None) -> Any:
    """Load a tokenizer alone, a folder or hub name; no code of its own is run.

    Args:
        name: folder or hub name.
        what: begins the message where it cannot be loaded.
        mend: likewise ends it.
        revision: of a hub tokenizer.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise ValueError(f"{what} cannot be loaded ({_reason(error)}); {mend}") from error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:REASON_CHARACTERS]


def render(tokenizer: Any, messages: Sequence[Message], thinking: bool = True, template_arguments: Mapping[str, Any] | None = None) -> str:
    """A request as text, up to where the answer begins.

    Args:
        tokenizer: with a chat template, which writes the special tokens itself.
        messages: of the conversation so far.
        thinking: False tells a model that can think first not to, whatever ``template_arguments`` say.
        template_arguments: of the chat template, as lm_eval's ``chat_template_args``.
    """
    settings = {**(template_arguments or {}), **({} if thinking else without_thinking(tokenizer))}
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **settings))
