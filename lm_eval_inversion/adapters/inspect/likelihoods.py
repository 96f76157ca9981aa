"""Log-likelihoods of given continuations: Inspect has no call for them, so they are computed on the model that its hf provider loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from inspect_ai.model import Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import StoreModel
from pydantic import Field

from lm_eval_inversion.adapters.inspect.scorers import refuse_replaced_solver, refuse_unknown, sample_prompt, stamp
from lm_eval_inversion.adapters.inspect.solvers import renderer, system_role
from lm_eval_inversion.context import context_of
from lm_eval_inversion.exposure import EXPOSURE_VERSION, NEEDS_LOG_LIKELIHOODS, score_exposure
from lm_eval_inversion.queries import conversation, require_prompt_in_request, require_room
from lm_eval_inversion.scoring.metrics import EXPOSURE_HIGHER_IS_BETTER


class LogLikelihoods(StoreModel):
    """Of one sample.

    Attributes:
        nats: context -> log-likelihoods, in the order of the probe's continuations.
        system_role: how the system prompt reached the model.
        asked: see ``store.Answers``, of ``rank_candidates``.
    """

    nats: dict[str, list[float]] = Field(default_factory=dict)
    system_role: str = "system"
    asked: bool = False


@solver
def rank_candidates() -> Solver:
    """Compute the log-likelihood of every candidate of the sample's probes.

    Raises:
        ValueError: the model gives no log-likelihoods, or a request is too long for it.
    """
    lock: anyio.Lock | None = None

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        nonlocal lock
        found = state.store_as(LogLikelihoods)
        found.asked = True
        lock = lock or anyio.Lock()
        model = get_model()
        render = renderer(model)
        if render is None or not hasattr(model.api, "model"):
            raise ValueError(NEEDS_LOG_LIKELIHOODS.format(model=model))
        role = system_role(model)
        found.system_role = role
        nats: dict[str, list[float]] = {}
        prompt = state.metadata["prompt"]
        for probe in state.metadata["probes"]:
            request = render(conversation(prompt["text"], probe["turns"], role))
            require_prompt_in_request(prompt["text"], request, prompt["id"])
            async with lock:  # one model: two threads on it would only wait for each other
                nats[probe["context"]] = await anyio.to_thread.run_sync(
                    continuation_log_likelihoods, model, prompt["id"], request + probe["beginning"], probe["continuations"]
                )
        found.nats = nats
        return state

    return solve


def continuation_log_likelihoods(model: Model, prompt_id: str, context: str, continuations: Sequence[str]) -> list[float]:
    """Log-likelihoods in nats on the model of Inspect's hf provider; context and continuation are tokenized together, as lm_eval does.

    Raises:
        ValueError: a request is longer than the model's context.
    """
    from lm_eval_inversion.target import continuation_nats

    api: Any = model.api

    def encode(text: str) -> list[int]:
        return list(api.tokenizer(text, **api.tokenizer_call_args)["input_ids"])

    start = len(encode(context))
    whole = [encode(context + continuation) for continuation in continuations]
    if limit := context_of(api.model.config):
        require_room(prompt_id, max(map(len, whole)), 0, limit, "choose a model with a longer context")
    return continuation_nats(api.model, whole, start)


@scorer(metrics={"*": [mean(), stderr()]})
def exposure(**unknown: Any) -> Scorer:
    """Bits of exposure of the planted secret and of its control. Metrics: ``EXPOSURE_HIGHER_IS_BETTER``."""
    refuse_unknown(unknown, exposure)

    async def score(state: TaskState, target: Target) -> Score:
        prompt = sample_prompt(state, "exposure")
        found = state.store_as(LogLikelihoods)
        refuse_replaced_solver(state, prompt.id, "rank_candidates", found.asked or bool(found.nats))
        result = score_exposure(str(state.sample_id), found.nats)
        if not result.rows:  # a limit stopped the sample
            return Score(value=dict.fromkeys(EXPOSURE_HIGHER_IS_BETTER, math.nan), reason="no_response")
        best = max(result.rows, key=lambda row: -row["rank"])
        return Score(
            value={metric: result.metrics[metric] for metric in EXPOSURE_HIGHER_IS_BETTER},
            answer=f"rank {best['rank']:g} of {len(found.nats[best['context']]) - 1} ({best['context']})",
            explanation=f"system prompt:\n{prompt.text}\n\n{result.rows}",
            metadata={**stamp(EXPOSURE_VERSION, found.system_role), "ranks": result.rows},
        )

    return score
