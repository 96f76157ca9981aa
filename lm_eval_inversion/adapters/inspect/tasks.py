"""The tasks as Inspect tasks."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Solver

from lm_eval_inversion.adapters.inspect.likelihoods import exposure, rank_candidates
from lm_eval_inversion.adapters.inspect.refusals import in_one_sentence
from lm_eval_inversion.adapters.inspect.scorers import canaries, inversion, leakage
from lm_eval_inversion.adapters.inspect.settings import SETTINGS, Settings
from lm_eval_inversion.adapters.inspect.solvers import ask_queries, refuse_unscored
from lm_eval_inversion.canary import CANARY_VERSION, CanaryProtocol, make_canary_protocol
from lm_eval_inversion.canary import TASKS as CANARY_TASKS
from lm_eval_inversion.exposure import CONTEXTS, EXPOSURE_VERSION, make_exposure_protocol
from lm_eval_inversion.exposure import TASKS as EXPOSURE_TASKS
from lm_eval_inversion.leakage import LEAKAGE_VERSION, LeakageProtocol, make_leakage_protocol
from lm_eval_inversion.leakage import TASKS as LEAKAGE_TASKS
from lm_eval_inversion.parameters import check_given, flag, refuse_slips, refuse_unserved
from lm_eval_inversion.protocol import TASK_VERSION, TASKS, make_protocol
from lm_eval_inversion.redaction import run_salt
from lm_eval_inversion.sampling import API_SEED, TEMPERATURE
from lm_eval_inversion.signature import HASH_ENDING
from lm_eval_inversion.tasks import BASE_TASK

logger = logging.getLogger(__name__)


@task
def prompt_inversion(
    prompts: str = "v1",
    split: str = "test",
    num_queries: int | None = None,
    inverter: str = "default",
    inverter_device: str = "auto",
    decoy_seed: int = 0,
    curve: bool = False,
    defence: str = "none",
    redact: bool = False,
    inverter_dtype: str = "auto",
    **unknown: Any,
) -> Task:
    """System prompts inverted from lists: four introspective questions, 16 lines each (output2prompt, arXiv 2405.15012).

    Args:
        prompts: "v1", or a .txt, .jsonl or .csv file with system prompts of your own.
        split: "test" or "dev" of a shipped set.
        num_queries: ask only the first so many queries.
        inverter: "default", a checkpoint folder, "hub:org/name@revision", "t5:<folder>", "asked:<folder>", or a baseline.
        inverter_device: "auto" or a torch device.
        decoy_seed: chooses the decoys of identification.
        curve: also measure bits from fewer outputs.
        defence: "none", "refusal_line", "sandwich", "self_reminder", "ngram_filter" or "regenerate".
        redact: write hashes and scores only into the log, for private prompts.
        inverter_dtype: "auto" (float32 on CPU, bfloat16 on GPU), "float32", "bfloat16", "float16" or "int8".
    """
    return inversion_task("prompt_inversion", **locals())


@task
def prompt_inversion_paper(
    prompts: str = "v1",
    split: str = "test",
    num_queries: int | None = None,
    inverter: str = "default",
    inverter_device: str = "auto",
    decoy_seed: int = 0,
    curve: bool = False,
    defence: str = "none",
    redact: bool = False,
    inverter_dtype: str = "auto",
    **unknown: Any,
) -> Task:
    """As ``prompt_inversion``, with the questions in the exact wording of output2prompt. Same arguments."""
    return inversion_task("prompt_inversion_paper", **locals())


@task
def prompt_inversion_ordinary(
    prompts: str = "v1",
    split: str = "test",
    num_queries: int | None = None,
    inverter: str = "default",
    inverter_device: str = "auto",
    decoy_seed: int = 0,
    curve: bool = False,
    defence: str = "none",
    redact: bool = False,
    inverter_dtype: str = "auto",
    **unknown: Any,
) -> Task:
    """System prompts inverted from the answers to 16 ordinary messages, none about the assistant. Same arguments."""
    return inversion_task("prompt_inversion_ordinary", **locals())


@task
def prompt_inversion_user(
    prompts: str = "user-v1",
    split: str = "test",
    num_queries: int | None = None,
    inverter: str = "default",
    inverter_device: str = "auto",
    decoy_seed: int = 0,
    curve: bool = False,
    redact: bool = False,
    inverter_dtype: str = "auto",
    **unknown: Any,
) -> Task:
    """Users' requests inverted from 16 sampled answers to each, without a system prompt. Arguments of ``prompt_inversion``."""
    return inversion_task("prompt_inversion_user", **locals())


def _check_unused(unknown: dict[str, Any], task: str) -> None:
    """Look at the parameters that a task was given and does not have. One command gives them to all its tasks: what others use is no error.

    Raises:
        ValueError: see ``refuse_slips`` and ``refuse_unserved``; Inspect would only warn, and write private prompts in plain text.
    """
    refuse_slips(unknown, task, "-T")
    refuse_unserved(unknown, task, "-T")
    for name in unknown:
        logger.warning("%s does not use the parameter %s", task, name)


def _checked(task: str, redact: Any, unknown: dict[str, Any], parameters: dict[str, Any]) -> bool:
    """Whether the log is to be redacted. The user's key is looked at here: when it is needed, the log is already full of plain text.

    Raises:
        ValueError: see ``_check_unused`` and ``check_given``; ``redact`` is neither true nor false, or see ``run_salt``.
    """
    _check_unused(unknown, task)
    check_given(task, "-T", **{name: value for name, value in parameters.items() if name != "num_queries"})
    private = flag("redact", redact)
    if private:
        run_salt()
    return private


@in_one_sentence()
def inversion_task(name: str, *, redact: bool, unknown: dict[str, Any], **parameters: Any) -> Task:
    """One task of ``lm_eval_inversion.protocol.TASKS``; arguments and errors of ``make_protocol`` and of the checks of this file."""
    private = _checked(name, redact, unknown, parameters)
    protocol = make_protocol(name, **parameters)
    protocol.check_inverter()
    # As the protocol has checked them, so that the log says what was meant and not how it was spelt.
    settings = dataclasses.asdict(
        Settings(
            inverter=protocol.inverter_name,
            inverter_device=protocol.inverter_device,
            inverter_dtype=protocol.inverter_dtype,
            decoy_seed=protocol.decoy_seed,
            curve=protocol.curve,
        )
    )
    found = {**protocol.signature("inspect_ai", None, None), "redact": private}
    return _task(protocol, _samples(protocol, settings), inversion(**settings), TASKS[name].description, TASK_VERSION, found)


def _samples(protocol: Any, settings: dict[str, Any]) -> list[Sample]:
    queries = [query.text for query in protocol.queries.queries]
    shared = [list(turns) for turns in protocol.shared_conversations()]
    return [
        Sample(
            id=prompt.id,
            input=f"{len(queries)} conversations under the system prompt {prompt.id}",
            target=prompt.text,
            metadata={
                "category": prompt.category,
                "prompt": prompt.to_dict(),
                "query_set": protocol.queries.name,
                "queries": queries,
                "defence": protocol.defence.id,
                "conversations": _conversations(protocol, prompt.text),
                "shared_conversations": shared,
                "decoys": decoys,
                "secret": protocol.secret,
                SETTINGS: settings,
            },
        )
        for prompt, decoys in zip(protocol.prompts, protocol.decoys(protocol.prompts))
    ]


@task
def prompt_leakage_attacks(
    prompts: str = "v1",
    split: str = "test",
    attacks: str = "v1",
    tier: str = "core",
    defence: str = "none",
    redact: bool = False,
    **unknown: Any,
) -> Task:
    """System prompts asked for outright: 14 families of attacks of one turn.

    Args:
        prompts: "v1", or a .txt, .jsonl or .csv file with system prompts of your own (all are used).
        split: "test" or "dev" of a shipped set.
        attacks: "v1", or a YAML file with attacks of your own.
        tier: "smoke" (about 50 requests), "core" (about 1,000) or "full".
        defence: "none", "refusal_line", "sandwich", "self_reminder", "ngram_filter" or "regenerate".
        redact: write hashes and scores only into the log, for private prompts.
    """
    return leakage_task("prompt_leakage_attacks", **locals())


@task
def prompt_leakage_multiturn(
    prompts: str = "v1",
    split: str = "test",
    attacks: str = "multiturn-v1",
    tier: str = "core",
    defence: str = "none",
    redact: bool = False,
    **unknown: Any,
) -> Task:
    """System prompts asked for in scripted dialogues of two and three turns. Arguments of ``prompt_leakage_attacks``."""
    return leakage_task("prompt_leakage_multiturn", **locals())


@task
def prompt_leakage_canary(tier: str = "core", canary_seed: int = 0, **unknown: Any) -> Task:
    """Secrets drawn from a seed and planted in system prompts: volunteered, handed over, encoded?

    Args:
        tier: "smoke" (50 requests), "core" (980) or "full" (5,780).
        canary_seed: chooses the secrets.
    """
    with in_one_sentence():
        _check_unused(unknown, "prompt_leakage_canary")
        protocol = make_canary_protocol(tier=tier, canary_seed=canary_seed)
    found = {one.prompt.id: {"planted": one.to_dict()} for one in protocol.planted}
    return _leakage(protocol, CANARY_TASKS[protocol.task], CANARY_VERSION, canaries(), found)


@task
def prompt_leakage_exposure(tier: str = "core", canary_seed: int = 0, **unknown: Any) -> Task:
    """Rank of a planted secret among decoys of the same form, by log-likelihood, in bits. Needs Inspect's hf provider.

    Args:
        tier: "smoke" (2 system prompts, 100 decoys), "core" (10, 1,000) or "full" (24, 1,000).
        canary_seed: chooses secrets and decoys.
    """
    with in_one_sentence():
        _check_unused(unknown, "prompt_leakage_exposure")
        protocol = make_exposure_protocol(tier=tier, canary_seed=canary_seed)
    samples = [
        Sample(
            id=prompt.id,
            input=f"{len(CONTEXTS) * protocol.candidates} continuations under the system prompt {prompt.id}",
            target=prompt.text,
            metadata={
                "category": prompt.category,
                "prompt": prompt.to_dict(),
                "probes": [
                    {
                        "context": probe.context,
                        "turns": list(probe.turns),
                        "beginning": probe.beginning,
                        "continuations": list(probe.continuations),
                    }
                    for probe in protocol.probes(prompt)
                ],
            },
        )
        for prompt in protocol.prompts
    ]
    found = protocol.signature("inspect_ai", None)
    return _task(protocol, samples, exposure(), EXPOSURE_TASKS[protocol.task], EXPOSURE_VERSION, found, rank_candidates())


@in_one_sentence()
def leakage_task(name: str, *, redact: bool, unknown: dict[str, Any], **parameters: Any) -> Task:
    """One task of ``lm_eval_inversion.leakage.TASKS``; arguments and errors of ``make_leakage_protocol`` and of the checks of this file."""
    private = _checked(name, redact, unknown, parameters)
    protocol = make_leakage_protocol(name, **parameters)
    found = {prompt.id: {"matched": protocol.matched(prompt).text, "defence": protocol.defence.id} for prompt in protocol.prompts}
    return _leakage(protocol, LEAKAGE_TASKS[name][1], LEAKAGE_VERSION, leakage(), found, private)


def _leakage(
    protocol: LeakageProtocol | CanaryProtocol,
    description: str,
    version: float,
    scorer: Scorer,
    of_prompt: dict[str, dict[str, Any]],
    redact: bool = False,
) -> Task:
    """A task whose samples hold the requests and, in ``of_prompt`` by its id, what the scorer needs of each system prompt."""
    requests = protocol.requests()
    shared = [list(request.turns) for request in protocol.shared_requests()]
    samples = [
        Sample(
            id=prompt.id,
            input=f"{len(requests)} conversations under the system prompt {prompt.id}",
            target=prompt.text,
            metadata={
                "category": prompt.category,
                "prompt": prompt.to_dict(),
                **of_prompt[prompt.id],
                "requests": [request.to_dict() for request in requests],
                "conversations": _conversations(protocol, prompt.text),
                "shared_conversations": shared,
            },
        )
        for prompt in protocol.prompts
    ]
    return _task(protocol, samples, scorer, description, version, {**protocol.signature("inspect_ai", None), "redact": redact})


def _conversations(protocol: Any, text: str) -> list[dict[str, Any]]:
    return [{"system_prompt": system_prompt, "turns": list(turns)} for system_prompt, turns in protocol.conversations(text)]


def _task(
    protocol: Any,
    samples: list[Sample],
    scorer: Scorer,
    description: str,
    version: float,
    protocol_signature: dict[str, Any],
    solver: Solver | None = None,
) -> Task:
    # A retried run takes samples along that may have been made with other prompts, attacks or questions, see ``report.doubts``.
    made_with = {name: value for name, value in protocol_signature.items() if name.endswith(HASH_ENDING) and value is not None}
    for sample in samples:
        sample.metadata = {**(sample.metadata or {}), **made_with}
    return Task(
        dataset=MemoryDataset(samples, name=protocol.source),
        # A step before the solver, and not a part of it, because --solver replaces that one.
        setup=refuse_unscored() if protocol_signature.get("redact") else None,
        solver=solver or ask_queries(),
        scorer=scorer,
        # Defaults that CLI flags override. Greedy decoding on hf: -M do_sample=false (it refuses temperature 0).
        config=GenerateConfig(temperature=TEMPERATURE, max_tokens=protocol.max_tokens or None, seed=API_SEED),
        name=protocol.task,
        version=str(version),
        metadata={"description": description, BASE_TASK: protocol.task, **protocol_signature},
    )
