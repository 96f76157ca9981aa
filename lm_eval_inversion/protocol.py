"""What an inversion task is, before any host: prompts, queries, inverter and settings, checked as early as possible.

Both adapters build a ``Protocol`` from the user's parameters and ask it for everything else, so that a task means the same in
both hosts and a bad parameter fails before the first token is generated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lm_eval_inversion.evaluation import decoys_for
from lm_eval_inversion.inverter.base import Inverter
from lm_eval_inversion.inverter.registry import check_inverter, load_inverter
from lm_eval_inversion.outputs import Outputs, parse_outputs
from lm_eval_inversion.prompts import SystemPrompt, load_prompts, prompts_hash
from lm_eval_inversion.queries import QuerySet, SystemRole, load_query_set
from lm_eval_inversion.signature import run_signature

TASK_VERSION = 1.0  # rises with every change that moves a number
TEMPERATURE = 0.7  # of the evaluated model, unless the user says otherwise


@dataclass(frozen=True)
class TaskDefinition:
    """One inversion task.

    Attributes:
        query_set: what is asked.
        max_tokens: longest answer to one query.
        description: one line for people.
    """

    query_set: str
    max_tokens: int
    description: str


TASKS = {
    "prompt_inversion": TaskDefinition(
        "intro4x16", 512, "System prompts inverted from lists: four introspective questions, 16 lines each."
    ),
    "prompt_inversion_paper": TaskDefinition(
        "intro4x16-paper", 512, "As prompt_inversion, with the questions in the exact wording of output2prompt."
    ),
    "prompt_inversion_ordinary": TaskDefinition(
        "ordinary16", 64, "System prompts inverted from the answers to 16 ordinary messages, none about the assistant."
    ),
}


@dataclass(frozen=True)
class Protocol:
    """A task with its parameters, checked.

    Attributes:
        task: name of the task.
        prompts: the system prompts to recover.
        queries: asked under every prompt, one conversation each.
        inverter_name: see ``load_inverter``.
        inverter_device: where the inverter runs.
        decoy_seed: chooses the decoys of identification.
        source: where the prompts come from, as the user wrote it.
        curve: also measure bits from fewer outputs.
    """

    task: str
    prompts: tuple[SystemPrompt, ...]
    queries: QuerySet
    inverter_name: str
    inverter_device: str
    decoy_seed: int
    source: str
    curve: bool = False

    @property
    def max_tokens(self) -> int:
        """Longest answer to one query, in tokens of the evaluated model."""
        return TASKS[self.task].max_tokens

    def check_inverter(self) -> None:
        """Fail early where ``inverter`` would fail late; raises ``ValueError``."""
        check_inverter(self.inverter_name)

    @property
    def inverter(self) -> Inverter:
        """The inverter, loaded on first use and shared by all tasks of the process."""
        return shared_inverter(self.inverter_name, self.inverter_device)

    def decoys(self, prompts: Sequence[SystemPrompt]) -> list[list[str]]:
        """Identification decoys of some of the task's prompts, chosen among all of them."""
        texts = [prompt.text for prompt in self.prompts]
        known = dict(zip(texts, decoys_for(texts, self.decoy_seed)))
        return [known[prompt.text] for prompt in prompts]

    def parse(self, answers: list[str]) -> Outputs:
        """The outputs of one conversation per query."""
        return parse_outputs(answers, self.queries)

    def data_signature(self) -> dict[str, Any]:
        """What the requests are made from."""
        return {
            "task_version": TASK_VERSION,
            "prompts": self.source,
            "prompts_hash": prompts_hash(self.prompts),
            "queries": self.queries.name,
            "queries_hash": self.queries.hash,
            "num_queries": len(self.queries.queries),
        }

    def signature(self, host: str, system_role: SystemRole | None, inverter_hash: str | None) -> dict[str, Any]:
        """Everything that another run must share to be comparable.

        Args:
            host: distribution name of the host.
            system_role: how the system prompt reached the model; None where that is not known yet.
            inverter_hash: None before the inverter is loaded.
        """
        return {
            **self.data_signature(),
            "inverter": self.inverter_name,
            "inverter_hash": inverter_hash,
            "decoy_seed": self.decoy_seed,
            **run_signature(host, system_role),
        }


def make_protocol(
    task: str,
    *,
    prompts: str = "v1",
    split: str = "test",
    num_queries: int | None = None,
    inverter: str = "default",
    inverter_device: str = "auto",
    decoy_seed: int = 0,
    curve: bool = False,
) -> Protocol:
    """Check the user's parameters and load what they name.

    Args:
        task: one of ``TASKS``.
        prompts: "v1", or a path to a .txt, .jsonl or .csv file.
        split: "test" or "dev" of a shipped prompt set; ignored for files.
        num_queries: ask only the first so many queries.
        inverter: see ``load_inverter``; not loaded here.
        inverter_device: "auto" or a torch device.
        decoy_seed: chooses the decoys of identification.
        curve: also measure bits from fewer outputs.

    Raises:
        FileNotFoundError: the prompts file does not exist.
        ValueError: any other bad parameter; the message names it and the mend.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown; known: {', '.join(TASKS)}")
    if isinstance(decoy_seed, bool) or not isinstance(decoy_seed, int):
        raise ValueError(f"decoy_seed={decoy_seed!r} is not a whole number")
    queries = load_query_set(TASKS[task].query_set).first(num_queries)
    loaded = tuple(load_prompts(str(prompts), split=split))
    return Protocol(task, loaded, queries, str(inverter), str(inverter_device), decoy_seed, f"{prompts}/{loaded[0].split}", flag("curve", curve))


def flag(name: str, value: Any) -> bool:
    """A parameter that is true or false; hosts hand it over as they read it, as a word too.

    Raises:
        ValueError: it is neither.
    """
    words = {"true": True, "false": False}
    found = words.get(str(value).lower())
    if found is None:
        raise ValueError(f"{name}={value!r} is neither true nor false")
    return found


@lru_cache(maxsize=2)
def shared_inverter(name: str, device: str) -> Inverter:
    """One loaded inverter per name and device."""
    return load_inverter(name, device=device)


def normalise_sampling(settings: dict[str, Any]) -> dict[str, Any]:
    """Make ``do_sample`` follow ``temperature``: hosts and back ends disagree about which of the two wins.

    Raises:
        ValueError: the temperature is not a number of at least 0.
    """
    temperature = settings.get("temperature", TEMPERATURE)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature!r}: give a number of at least 0")
    if settings.get("do_sample") is False:
        temperature = 0.0
    return {**settings, "temperature": float(temperature), "do_sample": temperature > 0}
