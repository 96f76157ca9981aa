"""What the solver leaves for the scorer, inside the log: a saved log can be scored again without the model."""

from __future__ import annotations

from inspect_ai.util import StoreModel
from pydantic import Field


class Answers(StoreModel):
    """Raw answers of one sample.

    Attributes:
        answers: per query, in order; None where no answer arrived (a limit or an error).
        null_answers: of the null conversation, which ran once for the whole task.
        stop_reasons: per query.
        system_role: how the system prompt reached the model ("system", or "user" where the template has no system role).
        asked: whether ``ask_queries`` has begun, and no other solver ran in its place; logs of older versions do not tell.
    """

    answers: list[str | None] = Field(default_factory=list)
    null_answers: list[str] = Field(default_factory=list)
    stop_reasons: list[str | None] = Field(default_factory=list)
    system_role: str = "system"
    asked: bool = False
