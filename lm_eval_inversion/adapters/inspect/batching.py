"""Batches across samples that Inspect scores one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

Item = TypeVar("Item")
Result = TypeVar("Result")
_NOTHING: Any = object()


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    result: Result = _NOTHING
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.result is not _NOTHING or self.error is not None


class MicroBatcher(Generic[Item, Result]):
    """Runs a blocking function on what several tasks submit at about the same time.

    Whoever gets the lock with its item still open waits a short while for company, runs one batch in a thread, and hands
    out the results; the others find theirs done. An error goes to every item of its batch.

    Args:
        run: items -> results, in order; called in a thread, never twice at once by one batcher.
        size: most items per call.
        window: seconds to wait for company.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], size: int = 8, window: float = 0.05) -> None:
        self.run, self.size, self.window = run, size, window
        self.waiting: list[_Entry[Item, Result]] = []
        self.lock: anyio.Lock | None = None

    async def submit(self, item: Item) -> Result:
        """The result for one item."""
        if self.lock is None:
            self.lock = anyio.Lock()
        entry: _Entry[Item, Result] = _Entry(item)
        self.waiting.append(entry)
        try:
            async with self.lock:
                if not entry.done:
                    await anyio.sleep(self.window)
                    # A batch serves others too: a cancelled leader still finishes it.
                    with anyio.CancelScope(shield=True):
                        await self._run_batch(entry)
        finally:
            if entry in self.waiting:
                self.waiting.remove(entry)
        if entry.error is not None:
            raise entry.error
        return entry.result

    async def _run_batch(self, leader: _Entry[Item, Result]) -> None:
        batch = [leader, *(entry for entry in self.waiting if entry is not leader)][: self.size]
        self.waiting = [entry for entry in self.waiting if entry not in batch]
        try:
            results = await anyio.to_thread.run_sync(self.run, [entry.item for entry in batch])
        except Exception as error:
            for entry in batch:
                entry.error = error
        else:
            for entry, result in zip(batch, results):
                entry.result = result
