"""A watchdog for calls that must return, and a warm process to fork runs from that may be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator

import pytest

from .running import PRELOADED


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fail when the body has not returned after so many seconds: a limit against hanging, not a measurement."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"no result after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def watchdog():
    return time_limit


@pytest.fixture(scope="session")
def warm():
    """Starts processes from a server that has imported the hosts already; each is as fresh as one that was started anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
