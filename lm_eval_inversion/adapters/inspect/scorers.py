"""The scorer: answers of one sample in, reconstruction and all metrics out, through ``lm_eval_inversion.evaluate``."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import anyio.to_thread
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

import lm_eval_inversion
from lm_eval_inversion.adapters.inspect.batching import MicroBatcher
from lm_eval_inversion.adapters.inspect.refusals import of_a_scorer
from lm_eval_inversion.adapters.inspect.settings import Chosen, Settings
from lm_eval_inversion.adapters.inspect.store import Answers
from lm_eval_inversion.canary import CANARY_VERSION, score_canaries
from lm_eval_inversion.evaluation import Evaluation, evaluate
from lm_eval_inversion.inverter.base import Secret
from lm_eval_inversion.inverter.registry import check_curve, check_device, check_dtype, check_inverter
from lm_eval_inversion.inverter.shared import shared_inverter
from lm_eval_inversion.leakage import LEAKAGE_VERSION, LeakageResult, Request, request_from_dict, score_leakage, worst_request
from lm_eval_inversion.outputs import Outputs, parse_outputs
from lm_eval_inversion.parameters import flag, refuse_lists, refuse_slips
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.prompts.canaries import planted_from_dict
from lm_eval_inversion.prompts.schema import prompt_from_row
from lm_eval_inversion.protocol import TASK_VERSION, handed_out
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.queries.defences import load_defence
from lm_eval_inversion.redaction import redacted_length
from lm_eval_inversion.scoring.metrics import (
    CANARY_HIGHER_IS_BETTER,
    FAMILY_PREFIX,
    LEAKAGE_HIGHER_IS_BETTER,
    METRICS,
    UNSCORED,
    USUAL_METRICS,
    WITHHELD,
    is_scored,
)
from lm_eval_inversion.signature import HASH_ENDING, whole_seed


@dataclasses.dataclass(frozen=True)
class _Work:
    prompt: SystemPrompt
    outputs: Outputs
    null_outputs: Outputs
    decoys: tuple[str, ...]
    secret: Secret
    settings: Settings


# What only the samples for one scorer hold -> that scorer.
_SCORER_OF = {"query_set": "inversion", "matched": "leakage", "planted": "canaries", "probes": "exposure"}


def stamp(version: float, system_role: str) -> dict[str, Any]:
    """What every scorer writes beside a score of how it was made, for whoever reads a log that was scored again.

    Args:
        version: of the task.
        system_role: how the system prompt reached the model.
    """
    return {"task_version": version, "package_version": lm_eval_inversion.__version__, "system_role": system_role}


def sample_prompt(state: TaskState, scorer: str) -> SystemPrompt:
    """The sample's system prompt: every scorer takes it from here.

    Args:
        state: of the sample.
        scorer: name of the scorer that asks.

    Raises:
        ValueError: the log is redacted (scored all the same, its markers would look like a model that gives nothing away); or its
            samples are for another scorer.
    """
    if "prompt" not in state.metadata:
        raise ValueError(f"sample {state.sample_id} is not of a task of this package, and lm_eval_inversion/{scorer} can score no others")
    prompt = prompt_from_row(state.metadata["prompt"], default_id=str(state.sample_id))
    if redacted_length(prompt.text) is not None:
        raise ValueError(
            f"{prompt.id}: a marker stands in the place of the system prompt; a redacted log cannot be scored again, because its texts "
            "are gone. Use the scores that it holds, or run the task again"
        )
    fitting = next((name for key, name in _SCORER_OF.items() if key in state.metadata), scorer)
    if fitting != scorer:
        raise ValueError(
            f"{prompt.id}: lm_eval_inversion/{scorer} does not score logs of this task; give --scorer lm_eval_inversion/{fitting}"
        )
    return prompt


def answers_of(state: TaskState, prompt_id: str) -> Answers:
    """What ``ask_queries`` left of a sample.

    Args:
        state: of the sample.
        prompt_id: for the message.

    Raises:
        ScorerError: see ``refuse_replaced_solver``.
    """
    found = state.store_as(Answers)
    refuse_replaced_solver(state, prompt_id, "ask_queries", found.asked or bool(found.answers or found.null_answers))
    return found


def refuse_replaced_solver(state: TaskState, prompt_id: str, solver: str, ran: bool) -> None:
    """Refuse a sample that the task's solver never saw: scored, it would look like a model that says nothing.

    Args:
        state: of the sample.
        prompt_id: for the message.
        solver: of the task.
        ran: whether it left anything behind.

    Raises:
        ScorerError: it did not run.
    """
    # Of older versions, samples that a limit stopped early look the same; they have no hashes of what was asked.
    if ran or not any(name.endswith(HASH_ENDING) and name != "prompts_hash" for name in state.metadata):
        return
    with of_a_scorer():
        raise ValueError(
            f"{prompt_id}: another solver ran in the place of lm_eval_inversion/{solver}, which asks what this task is about; leave "
            "--solver out, or let that solver be one step of yours"
        )


def refuse_unknown(unknown: dict[str, Any], make: Callable[..., Scorer]) -> None:
    """Refuse what ``-S`` names and a scorer does not take, which Inspect answers with a trace.

    Args:
        unknown: name -> value.
        make: of the scorer that was given them.

    Raises:
        ScorerError: there is such a name.
    """
    takes = [name for name, parameter in signature(make).parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    with of_a_scorer():
        for name in refuse_slips(unknown, make.__name__, "-S", takes):
            raise ValueError(f"-S {name}=… is no parameter of {make.__name__}, which takes {', '.join(takes) or 'none'}; leave it out")


@scorer(metrics={"*": [mean(), stderr()]})
def leakage(**unknown: Any) -> Scorer:
    """Look for the system prompt in the answers; scores a saved log again too. Metrics: ``LEAKAGE_HIGHER_IS_BETTER``."""
    refuse_unknown(unknown, leakage)

    async def score(state: TaskState, target: Target) -> Score:
        sent = _sent(state, "leakage")
        result = await anyio.to_thread.run_sync(
            score_leakage, sent.prompt, state.metadata["matched"], sent.requests, sent.answers, sent.null_answers,
            load_defence(state.metadata.get("defence")),
        )  # fmt: skip
        families = {f"{FAMILY_PREFIX}{request.family}" for request in sent.requests if request.family}
        names = [metric for metric in LEAKAGE_HIGHER_IS_BETTER if not metric.startswith(FAMILY_PREFIX) or metric in families]
        return _leakage_score(sent, result, names, LEAKAGE_VERSION)

    return score


@scorer(metrics={"*": [mean(), stderr()]})
def canaries(**unknown: Any) -> Scorer:
    """Look for planted secrets in the answers; scores a saved log again too. Metrics: ``CANARY_HIGHER_IS_BETTER``."""
    refuse_unknown(unknown, canaries)

    async def score(state: TaskState, target: Target) -> Score:
        sent = _sent(state, "canaries")
        planted = planted_from_dict(sent.prompt, state.metadata["planted"])
        result = await anyio.to_thread.run_sync(score_canaries, planted, sent.requests, sent.answers, sent.null_answers)
        return _leakage_score(sent, result, list(CANARY_HIGHER_IS_BETTER), CANARY_VERSION)

    return score


@dataclasses.dataclass(frozen=True)
class _Sent:
    """What the solver left of a leakage sample."""

    prompt: SystemPrompt
    requests: list[Request]
    answers: list[str | None]
    null_answers: list[str]
    system_role: str
    stop_reasons: list[str | None]


def _sent(state: TaskState, scorer: str) -> _Sent:
    prompt = sample_prompt(state, scorer)
    found = answers_of(state, prompt.id)
    requests = [request_from_dict(row) for row in state.metadata["requests"]]
    return _Sent(
        prompt,
        requests,
        [*found.answers, *[None] * (len(requests) - len(found.answers))],
        found.null_answers,
        found.system_role,
        found.stop_reasons,
    )


def _leakage_score(sent: _Sent, result: LeakageResult, names: Sequence[str], version: float) -> Score:
    place = worst_request(result.rows)
    worst = result.rows[place]
    # Inspect wants every key in every score and leaves NaN out of means.
    return Score(
        value={metric: result.metrics.get(metric, math.nan) for metric in names},
        answer=f"{worst['id']}: " + (f"({WITHHELD})" if worst.get("defended") else sent.answers[place] or ""),
        reason=None if is_scored(result.metrics) else "no_response",
        explanation=f"system prompt:\n{sent.prompt.text}\n\nwhat most came out, recovery {worst['recovery']:.2f} ({worst['decoder']})",
        metadata={
            **stamp(version, sent.system_role),
            "requests": result.rows,
            "stop_reasons": sent.stop_reasons,
        },
    )


# Tasks run at once, each with batches of its own, and share inverters. A whole evaluation has them to itself: its likelihoods need what
# its own reconstruction has just read.
_EVALUATION = threading.Lock()


@dataclasses.dataclass(frozen=True)
class _Found:
    evaluation: Evaluation  # of one sample
    inverter_hash: str


@scorer(metrics={"*": [mean(), stderr()]})
def inversion(
    inverter: str | None = None,
    inverter_device: str | None = None,
    decoy_seed: int | None = None,
    curve: bool | None = None,
    inverter_dtype: str | None = None,
    **unknown: Any,
) -> Scorer:
    """Reconstruct the system prompt from the sample's answers and score the reconstruction.

    Also scores a saved log again. What is not given, or None, is then as the log was made, so that only the inverter changes here::

        inspect score LOG --model none/none --scorer lm_eval_inversion/inversion -S inverter=FOLDER --action overwrite

    Args:
        inverter: see ``lm_eval_inversion.load_inverter``.
        inverter_device: "auto" or a torch device.
        decoy_seed: chooses the sign of the null control; the decoys themselves stand in the log.
        curve: also measure bits from fewer outputs; one that the log brings along is empty where the inverter has no likelihoods.
        inverter_dtype: "auto", "float32", "bfloat16", "float16" or "int8".

    Raises:
        ScorerError: the inverter is unknown or damaged, or another argument is bad; at once, before anything is generated.
        FileNotFoundError: the inverter is a file or folder that is not there.
    """
    refuse_unknown(unknown, inversion)
    with of_a_scorer():
        chosen = _checked(inverter, inverter_device, inverter_dtype, decoy_seed, curve)

    def run(work: Sequence[_Work]) -> Sequence[_Found]:
        # Inverted together where they share a null conversation, a kind of secret and the settings, which all samples of a run do.
        results: list[_Found | None] = [None] * len(work)
        for shared in dict.fromkeys(map(_shared, work)):
            indices = [index for index, item in enumerate(work) if _shared(item) == shared]
            null_outputs, secret, settings = shared
            with _EVALUATION:
                with of_a_scorer():  # the log may name what is not here
                    try:
                        used = shared_inverter(settings.inverter, settings.inverter_device, settings.inverter_dtype, secret)
                    except ValueError as error:
                        raise ValueError(f"{error}{chosen.told(settings)}") from error
                evaluation = evaluate(
                    [work[index].prompt for index in indices],
                    [work[index].outputs for index in indices],
                    null_outputs,
                    used,
                    decoys=[work[index].decoys for index in indices],
                    seed=settings.decoy_seed,
                    curve=settings.curve,
                )
            for index, result in zip(indices, evaluation.results):
                results[index] = _Found(dataclasses.replace(evaluation, results=[result]), used.hash)
        return [result for result in results if result is not None]

    batcher: MicroBatcher[_Work, _Found] = MicroBatcher(run)

    async def score(state: TaskState, target: Target) -> Score:
        prompt = sample_prompt(state, "inversion")
        found = answers_of(state, prompt.id)
        metadata = state.metadata
        with of_a_scorer():
            settings = chosen.settings(metadata)
            check_curve(settings.inverter, "curve" in chosen.given and settings.curve)
        queries = load_query_set(metadata["query_set"]).first(len(metadata["queries"]))
        defence, answers = load_defence(metadata.get("defence")), [answer or "" for answer in found.answers]
        outputs = handed_out(defence, queries, prompt.text, answers, found.null_answers)
        null_outputs = parse_outputs(found.null_answers, queries)
        work = _Work(prompt, outputs, null_outputs, tuple(metadata["decoys"]), metadata.get("secret", "system"), settings)
        scored = await batcher.submit(work)
        evaluation, result = scored.evaluation, scored.evaluation.results[0]
        counts = dataclasses.asdict(result.outputs.counts)
        shown, shown_nulls = result.reconstruction or UNSCORED, "\n\n".join(evaluation.null_reconstructions)
        # Inspect wants every key in every score and leaves NaN out of means: an unscored prompt has its coverage and nothing else.
        return Score(
            value={metric: result.metrics.get(metric, math.nan) for metric in (METRICS if settings.curve else USUAL_METRICS)},
            answer=result.reconstruction,
            reason="no_response" if result.reconstruction is None else None,
            explanation=(
                f"true system prompt:\n{prompt.text}\n\nreconstruction:\n{shown}\n\n"
                f"reconstructions without any system prompt (null; the floor is the mean over them):\n{shown_nulls}"
            ),
            metadata={
                **stamp(TASK_VERSION, found.system_role),
                "inverter": settings.inverter,
                "inverter_hash": scored.inverter_hash,
                "inverter_dtype": settings.inverter_dtype,
                "decoy_seed": settings.decoy_seed,
                "stop_reasons": found.stop_reasons,
                "outputs": counts,
                "null_reconstructions": list(evaluation.null_reconstructions),
                "null_coverage": evaluation.null_coverage,
            },
        )

    return score


def _shared(work: _Work) -> tuple[Outputs, Secret, Settings]:
    """What samples must share to be inverted together."""
    return work.null_outputs, work.secret, work.settings


def _checked(inverter: Any, device: Any, dtype: Any, decoy_seed: Any, curve: Any) -> Chosen:
    """The parameters of ``inversion`` that were given, as far as they can be checked without a sample.

    ``inspect score -S`` hands over what it reads, as a word or a number too.

    Raises:
        ValueError: one is bad, or they do not go together.
        FileNotFoundError: the inverter is a file or folder that is not there.
    """
    refuse_lists("inversion", "-S", inverter=inverter)
    named = {"inverter": inverter, "inverter_device": device, "inverter_dtype": dtype}
    chosen = Chosen(
        **{name: None if value is None else str(value) for name, value in named.items()},
        decoy_seed=None if decoy_seed is None else whole_seed("decoy_seed", decoy_seed),
        curve=None if curve is None else flag("curve", curve),
    )
    given = Settings(**chosen.given)
    if inverter is None:
        check_device(given.inverter_device)
        check_dtype(given.inverter_dtype)
    else:
        check_curve(given.inverter, given.curve)
        check_inverter(given.inverter, given.inverter_device, given.inverter_dtype)
    return chosen
