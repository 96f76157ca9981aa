"""The last few things that an inverter has read, kept because the same outputs are asked about several times in a row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Results of a computation by its argument, the most recent ones.

    Not ``lru_cache`` on a method: a copy of an inverter would share it, and so read with the model of the original. A copy of this one
    begins empty.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, compute: Callable[[Key], Value]) -> Value:
        """What was computed of the key, now or before."""
        if key not in self._kept:
            self._kept[key] = compute(key)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def __reduce__(self) -> tuple[type[Recent[Key, Value]], tuple[int]]:
        return type(self), (self.most,)
