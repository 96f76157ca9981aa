"""How the inversion scorer scores: a saved log as it was made, but for what it is given anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm_eval_inversion.inverter.registry import DEFAULT

SETTINGS = "scoring"  # key of a sample's metadata: a scorer sees nothing else of the log


@dataclasses.dataclass(frozen=True)
class Settings:
    """The scorer's parameters, see ``scorers.inversion``. The defaults are for logs whose samples do not tell, as older ones."""

    inverter: str = DEFAULT
    inverter_device: str = "auto"
    inverter_dtype: str = "auto"
    decoy_seed: int = 0
    curve: bool = False


class Chosen:
    """The parameters that a scorer was given, and those of the samples for the others: one choice for all samples of a log.

    Args:
        given: name -> value; None stands for that of the samples.
    """

    def __init__(self, **given: Any) -> None:
        self.given = {name: value for name, value in given.items() if value is not None}
        self.first: Settings | None = None

    def settings(self, metadata: Mapping[str, Any]) -> Settings:
        """How to score a sample.

        Args:
            metadata: of the sample.

        Raises:
            ValueError: another sample was made with other parameters, so that their means would be of nothing that can be named.
        """
        made_with = metadata.get(SETTINGS) or {}
        known = {field.name: made_with[field.name] for field in dataclasses.fields(Settings) if field.name in made_with}
        found = Settings(**{**known, **self.given})
        self.first = self.first or found
        differing = [name for name, value in dataclasses.asdict(found).items() if value != getattr(self.first, name)]
        if differing:
            raise ValueError(
                f"samples were made with different {', '.join(differing)}; give with -S what all of them are to be scored with, as in "
                f"-S {differing[0]}={getattr(found, differing[0])} (in Python: make a scorer for each log)"
            )
        return found

    def told(self, settings: Settings) -> str:
        """Which parameters of some settings nobody gave, in words: an error about one would seem to come from nowhere."""
        usual = Settings()
        inherited = ", ".join(
            f"{name}={value}"
            for name, value in dataclasses.asdict(settings).items()
            if name not in self.given and value != getattr(usual, name)
        )
        return f" (the log was made with {inherited}; -S gives others)" if inherited else ""
