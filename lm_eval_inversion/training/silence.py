"""Whether a collection collects anything: models that think are cut off before they speak, and their answers say nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lm_eval_inversion.thinking import strip_thinking

logger = logging.getLogger(__name__)

MANY_ANSWERS = 40  # of which so many tell whether a model says anything


class Silence:
    """Counts answers that say nothing, and warns once when most do.

    Args:
        model: its name, for the warning.
    """

    def __init__(self, model: str) -> None:
        self.model, self.asked, self.silent, self._warned = model, 0, 0, False

    def add(self, answers: Iterable[str]) -> None:
        """Count further answers, "" for those that ended before they said anything; thoughts say nothing."""
        for answer in answers:
            self.asked += 1
            self.silent += not strip_thinking(answer)
        if self.asked >= MANY_ANSWERS and self.silent > self.asked / 2 and not self._warned:
            self._warned = True
            logger.warning(
                "%d of %d answers say nothing once their reasoning is taken away: %s seems to think until it is cut off; switch that "
                "off in its chat template (behind an endpoint: --body '{\"chat_template_kwargs\": {\"enable_thinking\": false}}', or what "
                "its maker calls it), or give longer --message-tokens and --list-tokens",
                self.silent, self.asked, self.model,
            )  # fmt: skip
