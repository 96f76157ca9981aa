"""Running a transformers model with an attention function of our own, registered with its ``AttentionInterface``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attention_by(model: Any, name: str) -> Iterator[None]:
    """Within, the model attends by the registered function ``name``; what it used before is put back."""
    usual = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = usual
