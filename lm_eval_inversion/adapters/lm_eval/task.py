"""The tasks as lm_eval tasks: the core's protocols on the shared base."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_inversion.adapters.lm_eval.base import FILTER, ConversationTask, Turns, progress_bar, task_of
from lm_eval_inversion.canary import CANARY_VERSION, CanaryProtocol, make_canary_protocol
from lm_eval_inversion.evaluation import Evaluation, evaluate
from lm_eval_inversion.exposure import (
    CONTEXTS,
    EXPOSURE_VERSION,
    NEEDS_LOG_LIKELIHOODS,
    ExposureProtocol,
    make_exposure_protocol,
    score_exposure,
)
from lm_eval_inversion.leakage import LEAKAGE_VERSION, LeakageProtocol, LeakageResult, make_leakage_protocol
from lm_eval_inversion.parameters import check_given, flag, refuse_slips
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.protocol import TASK_VERSION, Protocol, make_protocol
from lm_eval_inversion.queries import conversation
from lm_eval_inversion.scoring.metrics import CANARY_HIGHER_IS_BETTER, EXPOSURE_HIGHER_IS_BETTER, HIGHER_IS_BETTER, LEAKAGE_HIGHER_IS_BETTER
from lm_eval_inversion.tasks import task_parameters

logger = logging.getLogger("lm_eval." + __name__)

MAY_BE_NONE = ("defence", "num_queries")  # the word None, as lm_eval reads it: no defence, no limit on the queries


def _chosen(config: dict[str, Any]) -> dict[str, Any]:
    """The task's parameters among the keys of ``--metadata``. Others cannot be refused, because lm_eval puts model arguments there too.

    Raises:
        ValueError: see ``refuse_slips`` and ``check_given``.
    """
    metadata = config.get("metadata") or {}
    refuse_slips(map(str, metadata), config["task"], "--metadata")
    chosen = {name: metadata[name] for name in task_parameters(task_of(config)) if name in metadata}
    check_given(config["task"], "--metadata", **{name: value for name, value in chosen.items() if name not in MAY_BE_NONE})
    return chosen


def _nothing_to_redact(config: dict[str, Any] | None) -> dict[str, Any]:
    """The configuration of a task with invented secrets, without ``redact``: the same --metadata may be for others, of private prompts.

    Raises:
        ValueError: ``redact`` is neither true nor false.
    """
    config = dict(config or {})
    metadata = dict(config.get("metadata") or {})
    if flag("redact", metadata.pop("redact", False)):
        logger.warning("%s: redact=true is passed over, because all of its secrets are invented.", config["task"])
    return {**config, "metadata": metadata}


class InversionTask(ConversationTask):
    """A task of ``lm_eval_inversion.protocol.TASKS``, found by its name; parameters (``--metadata``) of ``make_protocol``."""

    protocol: Protocol

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = dict(config or {})
        self.evaluation: Evaluation | None = None
        protocol = make_protocol(task_of(config), **_chosen(config))
        super().__init__(config, protocol, HIGHER_IS_BETTER, TASK_VERSION)

    def conversations(self, text: str) -> Sequence[tuple[str | None, Turns]]:
        """See ``Protocol.conversations``."""
        return self.protocol.conversations(text)

    def shared_conversations(self) -> Sequence[Turns]:
        """See ``Protocol.shared_conversations``."""
        return self.protocol.shared_conversations()

    def check_parameters(self) -> None:
        """See ``Protocol.check_inverter``."""
        self.protocol.check_inverter()

    def score(self, prompts: list[SystemPrompt], answers: list[list[str]], null_answers: list[str]) -> list[Any]:
        """See ``evaluate``."""
        self.evaluation = evaluate(
            prompts,
            [self.protocol.outputs(prompt.text, found, null_answers) for prompt, found in zip(prompts, answers)],
            self.protocol.null_outputs(null_answers),
            self.protocol.inverter,
            decoys=self.protocol.decoys(prompts),
            seed=self.protocol.decoy_seed,
            curve=self.protocol.curve,
            progress=progress_bar,
        )
        return self.evaluation.results

    def response(self, prompt_id: str, index: int, shared: bool) -> str | list[str]:
        """The reconstruction; of the null conversations all that were written for them."""
        assert self.evaluation is not None
        return list(self.evaluation.null_reconstructions) if shared else self._results[prompt_id].reconstruction or ""

    def run_signature(self) -> dict[str, Any]:
        """See ``Protocol.signature``."""
        inverter_hash = self.protocol.inverter.hash if self.evaluation is not None else None
        return self.protocol.signature("lm_eval", self.system_role, inverter_hash)


class LeakageTask(ConversationTask):
    """A task of ``lm_eval_inversion.leakage.TASKS``; parameters (``--metadata``) of ``make_leakage_protocol``."""

    protocol: LeakageProtocol | CanaryProtocol
    higher_is_better_by_metric = LEAKAGE_HIGHER_IS_BETTER
    task_version = LEAKAGE_VERSION

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = dict(config or {})
        super().__init__(config, self.make_protocol(config), self.higher_is_better_by_metric, self.task_version)

    def make_protocol(self, config: dict[str, Any]) -> LeakageProtocol | CanaryProtocol:
        """The protocol of the user's parameters."""
        return make_leakage_protocol(task_of(config), **_chosen(config))

    def conversations(self, text: str) -> Sequence[tuple[str | None, Turns]]:
        """Everything that is sent under one system prompt."""
        return self.protocol.conversations(text)

    def shared_conversations(self) -> Sequence[Turns]:
        """What is sent once without a system prompt."""
        return [request.turns for request in self.protocol.shared_requests()]

    def score(self, prompts: list[SystemPrompt], answers: list[list[str]], null_answers: list[str]) -> list[LeakageResult]:
        """See the protocol's ``score``."""
        return [
            self.protocol.score(prompt, found, null_answers)
            for prompt, found in progress_bar(list(zip(prompts, answers)), "looking for leaks")
        ]

    def response(self, prompt_id: str, index: int, shared: bool) -> dict[str, Any]:
        """What was found in the answer."""
        return {"arm": "null"} if shared else dict(self._results[prompt_id].rows[index])

    def run_signature(self) -> dict[str, Any]:
        """See the protocol's ``signature``."""
        return self.protocol.signature("lm_eval", self.system_role)


class CanaryTask(LeakageTask):
    """``prompt_leakage_canary``; parameters (``--metadata``) of ``make_canary_protocol``."""

    higher_is_better_by_metric = CANARY_HIGHER_IS_BETTER
    task_version = CANARY_VERSION

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__(_nothing_to_redact(config))

    def make_protocol(self, config: dict[str, Any]) -> CanaryProtocol:
        """The protocol of the user's parameters."""
        return make_canary_protocol(task_of(config), **_chosen(config))


class ExposureTask(ConversationTask):
    """``prompt_leakage_exposure``; parameters (``--metadata``) of ``make_exposure_protocol``. Asks for log-likelihoods, not for answers."""

    protocol: ExposureProtocol
    output_type = "loglikelihood"

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = _nothing_to_redact(config)
        protocol = make_exposure_protocol(task_of(config), **_chosen(config))
        super().__init__(config, protocol, EXPOSURE_HIGHER_IS_BETTER, EXPOSURE_VERSION)

    def conversations(self, text: str) -> Sequence[tuple[str | None, Turns]]:
        """One per continuation of every probe; see ``construct_requests`` for what is sent."""
        return [(text, "")] * (len(CONTEXTS) * self.protocol.candidates)

    def shared_conversations(self) -> Sequence[Turns]:
        """None: the control is ranked under the same prompt."""
        return []

    def construct_requests(self, doc: dict[str, Any], ctx: str, **keywords: Any) -> list[Instance]:
        """(context, continuation) of every candidate in every context.

        Raises:
            ValueError: the model is behind a chat API, which has no log-likelihoods.
        """
        requests = []
        for probe in self.protocol.probes(SystemPrompt(doc["id"], self.text_of(doc))):
            rendered = keywords["chat_template"](conversation(self.text_of(doc), probe.turns, self.system_role or "system"))
            if not isinstance(rendered, str):  # chat APIs take messages, not text
                raise ValueError(NEEDS_LOG_LIKELIHOODS.format(model="this model"))
            requests += [(rendered + probe.beginning, continuation) for continuation in probe.continuations]
        return [
            Instance("loglikelihood", doc, arguments, index, metadata=keywords["metadata"]) for index, arguments in enumerate(requests)
        ]

    def apply_filters(self) -> None:
        """Rank all documents of this rank; the log-likelihoods stay as responses."""
        nats: dict[str, list[float]] = defaultdict(list)
        for instance in sorted(self.instances, key=lambda instance: (instance.doc_id, instance.idx)):
            nats[instance.doc["id"]].append(float(instance.resps[0][0]))
            instance.filtered_resps[FILTER] = instance.resps[0]
        size = self.protocol.candidates
        self._results = {
            prompt_id: score_exposure(prompt_id, {name: found[size * place :][:size] for place, name in enumerate(CONTEXTS)})
            for prompt_id, found in nats.items()
        }

    def run_signature(self) -> dict[str, Any]:
        """See ``ExposureProtocol.signature``."""
        return self.protocol.signature("lm_eval", self.system_role)
