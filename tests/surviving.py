"""What a redaction left of its secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lm_eval_inversion.prompts.schema import REDACTED
from lm_eval_inversion.redaction import _holds, _secret_runs


def surviving_runs(value: Any, secrets: Iterable[str]) -> list[str]:
    """Runs of three consecutive words of a secret that still stand in a text or key of a record: an empty list, if all is well.

    A secret of two words is looked for whole.
    """
    wanted = _secret_runs(secrets)
    texts = [text for text in _texts(value) if not REDACTED.fullmatch(text) and _holds(text, wanted)]
    return sorted({" ".join(run) for text in texts for run in wanted if _holds(text, frozenset({run}))})


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
