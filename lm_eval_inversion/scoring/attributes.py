"""Attribute recovery: does a reconstruction name what the prompt says of its assistant, and does it claim what is not so?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lm_eval_inversion.characters import unspaced
from lm_eval_inversion.prompts import Attribute


def _words(text: str) -> str:
    """Lower-case words between spaces; in scripts without spaces every character is one."""
    words = (list(word) if any(map(unspaced, word)) else [word] for word in re.findall(r"\w+", text.lower()))
    return " " + " ".join(part for parts in words for part in parts) + " "


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
