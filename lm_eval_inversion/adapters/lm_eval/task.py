"""The tasks as lm_eval tasks: the core's protocols on the shared base."""

from __future__ import annotations

import json
from typing import Any

from lm_eval_inversion.adapters.lm_eval.base import ConversationTask, Turns, progress_bar
from lm_eval_inversion.evaluation import Evaluation, evaluate
from lm_eval_inversion.leakage import LEAKAGE_VERSION, LeakageProtocol, LeakageResult, make_leakage_protocol, score_leakage
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.protocol import TASK_VERSION, Protocol, make_protocol
from lm_eval_inversion.scoring.metrics import HIGHER_IS_BETTER, LEAKAGE_HIGHER_IS_BETTER

# Keys of --metadata; lm_eval merges --model_args into the same dictionary, so none of them may be a common model argument.
PARAMETERS = ("prompts", "split", "num_queries", "inverter", "inverter_device", "decoy_seed")
LEAKAGE_PARAMETERS = ("prompts", "split", "attacks", "tier")


def _chosen(config: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    metadata = config.get("metadata") or {}
    return {name: metadata[name] for name in names if name in metadata}


class InversionTask(ConversationTask):
    """A task of ``lm_eval_inversion.protocol.TASKS``, found by its name; parameters (``--metadata``) of ``make_protocol``."""

    protocol: Protocol

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = dict(config or {})
        self.evaluation: Evaluation | None = None
        protocol = make_protocol(config["task"], **_chosen(config, PARAMETERS))
        super().__init__(config, protocol, HIGHER_IS_BETTER, TASK_VERSION)

    def conversations(self, text: str) -> list[tuple[str, Turns]]:
        """Every query in a conversation of its own."""
        return [(text, query.text) for query in self.protocol.queries.queries]

    def shared_conversations(self) -> list[Turns]:
        """The same queries."""
        return [query.text for query in self.protocol.queries.queries]

    def check_parameters(self) -> None:
        """See ``Protocol.check_inverter``."""
        self.protocol.check_inverter()

    def score(self, prompts: list[SystemPrompt], answers: list[list[str]], null_answers: list[str]) -> list[Any]:
        """See ``evaluate``."""
        self.evaluation = evaluate(
            prompts,
            [self.protocol.parse(found) for found in answers],
            self.protocol.parse(null_answers),
            self.protocol.inverter,
            decoys=self.protocol.decoys(prompts),
            seed=self.protocol.decoy_seed,
            progress=progress_bar,
        )
        return self.evaluation.results

    def response(self, prompt_id: str, index: int, shared: bool) -> str:
        """The reconstruction."""
        assert self.evaluation is not None
        return self.evaluation.null_reconstruction if shared else self._results[prompt_id].reconstruction or ""

    def run_signature(self) -> dict[str, Any]:
        """See ``Protocol.signature``."""
        inverter_hash = self.protocol.inverter.hash if self.evaluation is not None else None
        return self.protocol.signature("lm_eval", self.system_role, inverter_hash)


class LeakageTask(ConversationTask):
    """A task of ``lm_eval_inversion.leakage.TASKS``; parameters (``--metadata``) of ``make_leakage_protocol``."""

    protocol: LeakageProtocol

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = dict(config or {})
        protocol = make_leakage_protocol(config["task"], **_chosen(config, LEAKAGE_PARAMETERS))
        super().__init__(config, protocol, LEAKAGE_HIGHER_IS_BETTER, LEAKAGE_VERSION)

    def conversations(self, text: str) -> list[tuple[str, Turns]]:
        """Attacks, the ability request, benign questions."""
        return [(request.system_prompt(text), request.turns) for request in self.protocol.requests()]

    def shared_conversations(self) -> list[Turns]:
        """The attacks."""
        return [request.turns for request in self.protocol.shared_requests()]

    def score(self, prompts: list[SystemPrompt], answers: list[list[str]], null_answers: list[str]) -> list[LeakageResult]:
        """See ``score_leakage``."""
        requests = self.protocol.requests()
        return [
            score_leakage(prompt, self.protocol.matched(prompt).text, requests, found, null_answers)
            for prompt, found in progress_bar(list(zip(prompts, answers)), "looking for leaks")
        ]

    def response(self, prompt_id: str, index: int, shared: bool) -> str:
        """What was found in the answer, as JSON: the harness saves every response as text."""
        return json.dumps({"arm": "null"} if shared else self._results[prompt_id].rows[index])

    def run_signature(self) -> dict[str, Any]:
        """See ``LeakageProtocol.signature``."""
        return self.protocol.signature("lm_eval", self.system_role)
