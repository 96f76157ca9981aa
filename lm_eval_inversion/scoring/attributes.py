"""Attribute recovery: does a reconstruction name what the prompt says of its assistant, and does it claim what is not so?"""

from __future__ import annotations

from collections.abc import Iterable

from lm_eval_inversion.characters import words_of
from lm_eval_inversion.prompts import Attribute


def _words(text: str) -> str:
    """Lower-case words between spaces."""
    return " " + " ".join(words_of(text.lower())) + " "


def mentions(text: str, value: str) -> bool:
    """Whether the words of ``value`` stand in ``text`` in a row; case and punctuation do not matter, word borders do."""
    wanted = _words(value)
    return bool(wanted.strip()) and wanted in _words(text)


def attribute_scores(attributes: Iterable[Attribute], reconstruction: str) -> dict[str, float]:
    """``attribute_recall`` and ``attribute_false_claims``: shares of attributes whose value (or an alias), respectively whose
    false value, the reconstruction mentions. Empty when there are no attributes.
    """  # noqa: D205
    listed = list(attributes)
    if not listed:
        return {}
    true = sum(any(mentions(reconstruction, value) for value in (a.value, *a.aliases)) for a in listed)
    false = sum(mentions(reconstruction, a.false_value) for a in listed)
    return {"attribute_recall": true / len(listed), "attribute_false_claims": false / len(listed)}
