"""The inverters of this process, each loaded once: tasks that run in it share them."""

from __future__ import annotations

import threading
from functools import lru_cache

from lm_eval_inversion.inverter.base import Inverter, Secret
from lm_eval_inversion.inverter.registry import load_inverter

_LOADING = threading.Lock()


def shared_inverter(name: str, device: str, dtype: str = "auto", secret: Secret = "system") -> Inverter:
    """One inverter per name, device, type and kind of secret; the kinds share the loaded weights."""
    with _LOADING:  # the caches below would let two threads load it twice
        return _inverter_of(name, device, dtype, secret)


# Behind the function above, because a cache takes calls that differ only in how they name the same arguments for different ones.
@lru_cache(maxsize=4)
def _inverter_of(name: str, device: str, dtype: str, secret: Secret) -> Inverter:
    return _loaded(name, device, dtype).of(secret)


@lru_cache(maxsize=2)
def _loaded(name: str, device: str, dtype: str) -> Inverter:
    return load_inverter(name, device=device, dtype=dtype)
