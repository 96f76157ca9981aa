"""What an inversion task is, before any host: prompts, queries, inverter and settings, checked as early as possible.

Both adapters build a ``Protocol`` from the user's parameters and ask it for everything else, so that a task means the same in
both hosts and a bad parameter fails before the first token is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval_inversion.evaluation import decoys_for
from lm_eval_inversion.inverter.base import Inverter, Secret
from lm_eval_inversion.inverter.registry import check_curve, check_dtype, check_inverter
from lm_eval_inversion.inverter.shared import shared_inverter
from lm_eval_inversion.outputs import Outputs, parse_outputs
from lm_eval_inversion.parameters import flag
from lm_eval_inversion.prompts import SystemPrompt, load_prompts, prompts_hash, source_signature
from lm_eval_inversion.queries import Message, QuerySet, SystemRole, load_query_set, user_turn
from lm_eval_inversion.queries.defences import NO_DEFENCE, Defence, defence_hash, defend_answers, load_defence
from lm_eval_inversion.signature import run_signature, whole_seed

TASK_VERSION = 3.2  # rises with every change that moves a number


@dataclass(frozen=True)
class TaskDefinition:
    """One inversion task.

    Attributes:
        query_set: what is asked.
        max_tokens: longest answer to one query.
        description: one line for people.
        prompts: the shipped set that is used unless the user names another.
        secret: what is inverted: the "system" prompt behind the answers to the queries, or the "user" message itself, answered once
            per query; the queries, asked without any secret, are the null condition of both.
    """

    query_set: str
    max_tokens: int
    description: str
    prompts: str = "v1"
    secret: Secret = "system"


# By their descriptions ``report.kind`` knows logs of Inspect that have no ``BASE_TASK``: a changed one makes older logs unknown.
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
    "prompt_inversion_user": TaskDefinition(
        "ordinary16", 64, "Users' requests inverted from 16 sampled answers to each, without a system prompt.", "user-v1", "user"
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
        inverter_dtype: in which floating-point type; see ``load_inverter``.
        decoy_seed: chooses the decoys of identification.
        source: where the prompts come from, as the user wrote it.
        curve: also measure bits from fewer outputs.
        defence: what stands around the model.
    """

    task: str
    prompts: tuple[SystemPrompt, ...]
    queries: QuerySet
    inverter_name: str
    inverter_device: str
    decoy_seed: int
    source: str
    curve: bool = False
    defence: Defence = NO_DEFENCE
    inverter_dtype: str = "auto"

    @property
    def max_tokens(self) -> int:
        """Longest answer to one query, in tokens of the evaluated model."""
        return TASKS[self.task].max_tokens

    @property
    def secret(self) -> Secret:
        """What is inverted, see ``TaskDefinition``."""
        return TASKS[self.task].secret

    def check_inverter(self) -> None:
        """Fail early where ``inverter`` would fail late, also on one of the prompts; raises ``ValueError``."""
        check_inverter(self.inverter_name, self.inverter_device, self.inverter_dtype, self.prompts)

    @property
    def inverter(self) -> Inverter:
        """The inverter, loaded on first use and shared by all tasks of the process."""
        return shared_inverter(self.inverter_name, self.inverter_device, self.inverter_dtype, self.secret)

    def decoys(self, prompts: Sequence[SystemPrompt]) -> list[list[str]]:
        """Identification decoys of some of the task's prompts, chosen among all of them."""
        texts = [prompt.text for prompt in self.prompts]
        known = dict(zip(texts, decoys_for(texts, self.decoy_seed, TASKS[self.task].prompts)))
        return [known[prompt.text] for prompt in prompts]

    def conversations(self, text: str) -> list[tuple[str | None, tuple[Message, ...]]]:
        """(system prompt, turns) of every conversation about one secret."""
        if self.secret == "user":
            return [(None, tuple(user_turn(text)))] * len(self.queries.queries)
        return [self.defence.request(text, turns) for turns in self.shared_conversations()]

    def shared_conversations(self) -> list[tuple[Message, ...]]:
        """Turns of the null conversations: the queries, without a secret and without a defence."""
        return [tuple(user_turn(query.text)) for query in self.queries.queries]

    def outputs(self, text: str, answers: Sequence[str], null_answers: Sequence[str]) -> Outputs:
        """See ``handed_out``."""
        return handed_out(self.defence, self.queries, text, answers, null_answers)

    def null_outputs(self, null_answers: Sequence[str]) -> Outputs:
        """The outputs of the null conversations."""
        return parse_outputs(null_answers, self.queries)

    def data_signature(self) -> dict[str, Any]:
        """What the requests are made from."""
        return {
            "task_version": TASK_VERSION,
            "prompts": self.source,
            "prompts_hash": prompts_hash(self.prompts),
            "queries": self.queries.name,
            "queries_hash": self.queries.hash,
            "num_queries": len(self.queries.queries),
            "defence": self.defence.id,
            "defence_hash": defence_hash(self.defence),
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
            "inverter_dtype": self.inverter_dtype,
            "decoy_seed": self.decoy_seed,
            **run_signature(host, system_role),
        }


def make_protocol(
    task: str,
    *,
    prompts: str | None = None,
    split: str | None = "test",
    num_queries: int | None = None,
    inverter: str = "default",
    inverter_device: str = "auto",
    decoy_seed: int = 0,
    curve: bool = False,
    defence: str | None = "none",
    inverter_dtype: str = "auto",
) -> Protocol:
    """Check the user's parameters and load what they name.

    Args:
        task: one of ``TASKS``.
        prompts: "v1", "user-v1", a path to a .txt, .jsonl or .csv file, or "hub:org/name@revision"; None takes the task's own.
        split: "test" or "dev" of a shipped prompt set, "dev+test" or None for both; ignored for files.
        num_queries: ask only the first so many queries.
        inverter: see ``load_inverter``; not loaded here.
        inverter_device: "auto" or a torch device.
        decoy_seed: chooses the decoys of identification.
        curve: also measure bits from fewer outputs.
        defence: see ``load_defence``.
        inverter_dtype: "auto" (float32 on CPU, bfloat16 on GPU), "float32", "bfloat16", "float16" or "int8".

    Raises:
        FileNotFoundError: the prompts file does not exist.
        ValueError: any other bad parameter; the message names it and the mend.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown; known: {', '.join(TASKS)}")
    decoy_seed = whole_seed("decoy_seed", decoy_seed)
    check_dtype(str(inverter_dtype))
    curve = flag("curve", curve)
    check_curve(str(inverter), curve)
    queries = load_query_set(TASKS[task].query_set).first(num_queries)
    chosen = load_defence(defence)
    if TASKS[task].secret == "user" and chosen != NO_DEFENCE:
        raise ValueError(f"defence={defence!r}: {task} has no system prompt to defend; remove the parameter")
    source = str(TASKS[task].prompts if prompts is None else prompts)
    loaded = tuple(load_prompts(source, split=split))
    return Protocol(
        task, loaded, queries, str(inverter), str(inverter_device), decoy_seed, source_signature(source, loaded),
        curve, chosen, str(inverter_dtype),
    )  # fmt: skip


def handed_out(defence: Defence, queries: QuerySet, text: str, answers: Sequence[str], null_answers: Sequence[str]) -> Outputs:
    """The outputs of one conversation per query, as whoever stands outside of the defence sees them.

    Args:
        defence: withholds or replaces answers.
        queries: what was asked.
        text: the secret.
        answers: raw, one per query.
        null_answers: to the same queries without the secret.
    """
    turns = [tuple(user_turn(query.text)) for query in queries.queries[: len(answers)]]
    given, acted = defend_answers(defence, text, turns, answers, null_answers[: len(answers)])
    found = parse_outputs([answer or "" for answer in given], queries)
    return replace(found, counts=replace(found.counts, defended=sum(acted)))
