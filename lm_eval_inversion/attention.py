"""Running a transformers model with an attention function of our own, and with a cache, under whichever name its version takes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# transformers' names of cache layers that hold keys and values, or that use those of another layer.
ATTENTION_LAYERS = ("DynamicLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer")


@contextmanager
def attention_by(model: Any, name: str) -> Iterator[None]:
    """Within, the model attends by the registered function ``name``; what it used before is put back. Not for two threads on one model.

    Not with transformers' own ``set_attn_implementation``: where that cannot change a model it only warns, and numbers would be wrong
    without an error; it has no counterpart that tells what to put back; and it goes through all modules (in 5.0 through the file of
    the model's class too), which takes half a millisecond of each decoding step where this takes next to nothing.
    """
    usual = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = usual


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """The arguments of a model's ``forward`` that let it read ``cache`` and write into it.

    transformers calls the cache ``past_key_values``, and ``cache`` from 5.24 on, where the old name warns (it is to go with 5.40).
    """
    return {_cache_name(type(model).forward): cache, "use_cache": True}


def written_cache(model: Any, found: Any) -> Any:
    """The cache that a model made, in what its ``forward`` returned with ``use_cache=True``."""
    return getattr(found, _cache_name(type(model).forward))


@lru_cache
def _cache_name(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def cache_layers(config: Any) -> list[str]:
    """The kinds of layers that a model's cache has, by the names of transformers' classes; the same for all layers where there are none."""
    from transformers import DynamicCache

    return sorted({type(layer).__name__ for layer in DynamicCache(config=config).layers})


def require_attention(config: Any, what: str) -> None:
    """Refuse recurrent and hybrid models where several texts are read on behind one cached beginning.

    The state of a recurrent layer cannot be handed to several rows like keys and values, and some read several tokens behind a cache as if
    there were no cache.

    Raises:
        ValueError: the model is one; ``what`` begins the message, and says what was given.
    """
    kinds = [kind for kind in cache_layers(config) if kind not in ATTENTION_LAYERS]
    if kinds:
        raise ValueError(f"{what} is a recurrent or hybrid model ({config.model_type}: {', '.join(kinds)}); give one that attends only")


def slides(config: Any) -> bool:
    """Whether some layers see a window of tokens only."""
    return "DynamicSlidingWindowLayer" in cache_layers(config)
