"""The requests that a task will send, for whoever plans a run: made by the same protocols."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval_inversion.canary import CanaryProtocol
    from lm_eval_inversion.exposure import ExposureProtocol
    from lm_eval_inversion.leakage import LeakageProtocol
    from lm_eval_inversion.protocol import Protocol
    from lm_eval_inversion.queries import Message

# The null outputs are read whole, without each quarter of them (which is three times), and in two halves (``NullCondition``).
NULL_SETS = 1 + 3 + 1


@dataclass(frozen=True)
class PlannedRequest:
    """One request.

    Attributes:
        system_prompt: None where there is none.
        turns: messages after it.
        continuation: what stands behind them where log-likelihoods are asked for.
        null: sent once, not under every system prompt.
    """

    system_prompt: str | None
    turns: Sequence[Message]
    continuation: str = ""
    null: bool = False


@dataclass(frozen=True)
class Workload:
    """What one task sends, and what its inverter reads.

    Attributes:
        requests: all of them, null requests too.
        system_prompts: to be recovered (in ``prompt_inversion_user`` users' requests).
        max_tokens: longest answer to one request; 0 where nothing is generated.
        inverter_outputs: outputs that the inverter reads, at most; 0 for tasks without inverter.
        inverter_tokens: the same in tokens of the inverter; None where its layout is not known before it is fetched.
    """

    requests: tuple[PlannedRequest, ...]
    system_prompts: int
    max_tokens: int
    inverter_outputs: int = 0
    inverter_tokens: int | None = 0


def workload(protocol: Any) -> Workload:
    """What the task of a protocol sends.

    Args:
        protocol: made by one of ``tasks.protocol_makers``.
    """
    from lm_eval_inversion.exposure import ExposureProtocol
    from lm_eval_inversion.protocol import Protocol

    if isinstance(protocol, Protocol):
        return _inversion_workload(protocol)
    return _exposure_workload(protocol) if isinstance(protocol, ExposureProtocol) else _leakage_workload(protocol)


def _inversion_workload(protocol: Protocol) -> Workload:
    asked = sum(query.items for query in protocol.queries.queries)
    most, longest, blocks = _inverter_layout(protocol.inverter_name)
    sets = len(protocol.prompts) + NULL_SETS
    tokens = None if longest is None else sets * min(asked * blocks, most) * longest
    requests = _requests(protocol, protocol.shared_conversations())
    return Workload(requests, len(protocol.prompts), protocol.max_tokens, sets * min(asked, most), tokens)


def _leakage_workload(protocol: LeakageProtocol | CanaryProtocol) -> Workload:
    requests = _requests(protocol, [request.turns for request in protocol.shared_requests()])
    return Workload(requests, len(protocol.prompts), protocol.max_tokens)


def _requests(protocol: Protocol | LeakageProtocol | CanaryProtocol, shared: Sequence[Sequence[Message]]) -> tuple[PlannedRequest, ...]:
    """What is sent under every prompt, as the defence sends it, and what is sent once."""
    own = [PlannedRequest(system, turns) for prompt in protocol.prompts for system, turns in protocol.conversations(prompt.text)]
    return (*own, *(PlannedRequest(None, turns, null=True) for turns in shared))


def _exposure_workload(protocol: ExposureProtocol) -> Workload:
    return Workload(
        tuple(
            PlannedRequest(prompt.text, probe.turns, probe.beginning + continuation)
            for prompt in protocol.prompts
            for probe in protocol.probes(prompt)
            for continuation in probe.continuations
        ),
        len(protocol.prompts),
        protocol.max_tokens,
    )


def _inverter_layout(name: str) -> tuple[int, int | None, int]:
    """Blocks per system prompt, tokens per block, and blocks per output, that an inverter reads at most; checked as the tasks check it."""
    from lm_eval_inversion.inverter.baselines import BASELINES
    from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE
    from lm_eval_inversion.inverter.registry import DEFAULT, check_inverter, shipped_checkpoint
    from lm_eval_inversion.outputs import MAX_OUTPUTS

    if name.startswith(("hub:", "asked:hub:")):
        return MAX_OUTPUTS, None, 1  # a plan fetches nothing
    if name != DEFAULT:  # which ships with the package, and would cost seconds to verify
        check_inverter(name)
    if name in BASELINES:
        return MAX_OUTPUTS, 0, 1
    if name.startswith("t5:"):
        from lm_eval_inversion.inverter.sparse_t5 import read_width

        config = json.loads((Path(name.removeprefix("t5:")).expanduser() / "config.json").read_text(encoding="utf-8"))
        return MAX_OUTPUTS, read_width(SimpleNamespace(**config))[0], 1
    if name.startswith("asked:"):
        from lm_eval_inversion.inverter import asked_model

        return MAX_OUTPUTS, asked_model.MAX_OUTPUT_TOKENS, 1
    folder = shipped_checkpoint() if name == DEFAULT else Path(name).expanduser()
    layout = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["block_format"]
    return int(layout["max_outputs"]), int(layout["max_output_tokens"]), int(layout.get("blocks_per_output", 1))
