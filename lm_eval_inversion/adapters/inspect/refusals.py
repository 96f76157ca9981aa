"""Errors of tasks and scorers that Inspect's command line shows as their sentence alone, without the trace of the call behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.markup import escape

from lm_eval_inversion.inverter.checkpoint import CheckpointError

try:
    # Private, but the only class whose trace Inspect leaves out.
    from inspect_ai._util.error import PrerequisiteError as _Told
except ImportError:  # it moved: then the trace is shown, with the same sentence below it
    _Told = Exception  # type: ignore[assignment,misc]


class _Refusal(_Told):
    def __init__(self, sentence: str) -> None:
        Exception.__init__(self, sentence)
        # Inspect prints this as markup, in which "[/tmp]" would be a tag and an error of its own.
        self.message = escape(sentence)


class ParameterError(_Refusal, ValueError):
    """A parameter has a value that it cannot have."""


class MissingFileError(_Refusal, FileNotFoundError):
    """A parameter names a file that is not there."""


class RefusedCheckpointError(_Refusal, CheckpointError):
    """The inverter is incomplete or damaged."""


class ScorerError(_Refusal):
    """A scorer cannot be made so. No ``ValueError``, which Inspect's command line takes for a scorer that it does not know."""


# By the very class: one of another, such as a UnicodeDecodeError, is no answer to a user but a fault of this package, and needs its trace.
_REFUSALS: dict[type[Exception], type[_Refusal]] = {
    ValueError: ParameterError,
    FileNotFoundError: MissingFileError,
    CheckpointError: RefusedCheckpointError,
}


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """A ``ValueError``, ``FileNotFoundError`` or ``CheckpointError`` from inside stays one, and the command line shows no trace of it."""
    try:
        yield
    except tuple(_REFUSALS) as error:
        refusal = _REFUSALS.get(type(error))
        if refusal is None:
            raise
        raise refusal(str(error)).with_traceback(error.__traceback__) from None


@contextmanager
def of_a_scorer() -> Iterator[None]:
    """``in_one_sentence`` for what makes a scorer: a ``ValueError`` from inside becomes a ``ScorerError``, which reaches the user."""
    try:
        with in_one_sentence():
            yield
    except (ParameterError, RefusedCheckpointError) as error:
        raise ScorerError(str(error)).with_traceback(error.__traceback__) from None
