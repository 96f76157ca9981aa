"""What was sampled, and the one way to average over rows: epochs first, then the system prompts of each sampled unit.

Table, page, export, gate, comparison and the cautions of a run all average in this way, so that one run has one mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from lm_eval_inversion.prompts.canaries import carrier_of, is_planted
from lm_eval_inversion.redaction import redacted_length
from lm_eval_inversion.scoring.uncertainty import mean_of_known

if TYPE_CHECKING:
    from lm_eval_inversion.report.reading import Row


class OfAPrompt(Protocol):
    """A row of anything that is of one system prompt."""

    @property
    def prompt_id(self) -> str:
        """Id of the system prompt."""

    @property
    def truth(self) -> str:
        """The system prompt's text."""


AnyRow = TypeVar("AnyRow", bound=OfAPrompt)


def prompt_key(row: OfAPrompt) -> tuple[str, str]:
    """What tells the system prompt of a row from others: its id and text, whatever the epoch; of a redacted one its id and lengths."""
    # Each attempt at a run may redact under a salt of its own, and then one prompt has markers with different hashes.
    lengths = redacted_length(row.truth)
    return row.prompt_id, row.truth if lengths is None else "{} characters, {} words".format(*lengths)


def rows_by_prompt(rows: Iterable[AnyRow]) -> dict[tuple[str, str], list[AnyRow]]:
    """Id and text of every system prompt -> its rows, of which there are several where a run had several epochs.

    The text is that of the first row, which of a redacted prompt is a whole marker: by its hash, runs under one key are paired.
    """
    found: dict[tuple[str, str], list[AnyRow]] = {}
    for row in rows:
        found.setdefault(prompt_key(row), []).append(row)
    return {(own[0].prompt_id, own[0].truth): own for own in found.values()}


def count_prompts(rows: Iterable[OfAPrompt]) -> int:
    """How many system prompts rows are of: epochs are no further ones."""
    return len(rows_by_prompt(rows))


def sampled_unit(row: Row) -> tuple[str, str]:
    """What was sampled: a prompt, whatever its epochs; of planted secrets the carrier, whatever its draws and its secrecy line."""
    return (carrier_of(row.prompt_id), "") if is_planted(row.prompt) else prompt_key(row)


def values_of(rows: Iterable[Row], metric: str) -> list[float]:
    """A metric of every sampled unit; NaN where a unit has no value."""
    return by_unit((row, row.metrics.get(metric, math.nan)) for row in rows)


def by_unit(values: Iterable[tuple[Row, float]]) -> list[float]:
    """Values of rows, averaged over the epochs of each prompt, then over the prompts of each sampled unit.

    In one step, a prompt of which more epochs were answered would count for more. NaN where a unit has no value.
    """
    units: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for row, value in values:
        prompts = units.setdefault(sampled_unit(row), {})
        prompts.setdefault(prompt_key(row), []).append(value)
    return [mean_of_known(map(mean_of_known, prompts.values())) for prompts in units.values()]
