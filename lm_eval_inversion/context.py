"""How much a transformers model reads at once, read off its configuration: in one place, because it does not always stand at the top."""

from __future__ import annotations

from typing import Any


def context_of(config: Any) -> int | None:
    """Tokens of a model's context; None where its configuration names no limit.

    Of a model that also sees or hears (gemma3, qwen2_5_vl, mistral3, llama4), the configuration of the part that writes text says it, and
    the one at the top says nothing, which would look like a model without a limit.
    """
    context: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return context
