"""What the two tasks with planted secrets share: prompts, signature, and the check of their parameters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lm_eval_inversion.prompts.canaries import Planted, canaries_hash, canary_data
from lm_eval_inversion.prompts.loading import prompts_hash
from lm_eval_inversion.prompts.schema import SystemPrompt
from lm_eval_inversion.queries.conversations import SystemRole
from lm_eval_inversion.queries.defences import NO_DEFENCE
from lm_eval_inversion.signature import run_signature, whole_seed


@dataclass(frozen=True)
class PlantedProtocol:
    """A task whose system prompts hold planted secrets, with its parameters, checked."""

    task: str
    planted: tuple[Planted, ...]
    tier: str
    canary_seed: int

    @property
    def prompts(self) -> tuple[SystemPrompt, ...]:
        """The system prompts, secrets filled in."""
        return tuple(one.prompt for one in self.planted)

    @property
    def source(self) -> str:
        """Where the prompts come from."""
        return str(canary_data()["name"])

    @property
    def version(self) -> float:
        """Of the task; rises with every change that moves a number."""
        raise NotImplementedError

    def data_signature(self) -> dict[str, Any]:
        """What the requests are made from."""
        return {
            "task_version": self.version,
            "prompts": self.source,
            "prompts_hash": prompts_hash(self.prompts),
            "canaries_hash": canaries_hash(),
            "canary_seed": self.canary_seed,
            "tier": self.tier,
            "defence": NO_DEFENCE.id,  # takes none, whatever the metadata of a group say
        }

    def signature(self, host: str, system_role: SystemRole | None) -> dict[str, Any]:
        """Everything that another run must share to be comparable."""
        return {**self.data_signature(), **run_signature(host, system_role)}


def check_planted_parameters(task: str, tasks: Collection[str], tier: str, tiers: Collection[str], canary_seed: int) -> int:
    """Check what the user gave; returns the seed as a whole number.

    Raises:
        ValueError: a bad parameter; the message names it and the mend.
    """
    if task not in tasks:
        raise ValueError(f"task {task!r} is unknown; known: {', '.join(tasks)}")
    if tier not in tiers:
        raise ValueError(f"tier={tier!r} is unknown; known: {', '.join(tiers)}")
    return whole_seed("canary_seed", canary_seed)
