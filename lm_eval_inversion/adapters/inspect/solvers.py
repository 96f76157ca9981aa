"""The solver: every query in a conversation of its own, under the sample's system prompt."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    GenerateConfig,
    Model,
    ModelInfo,
    ModelOutput,
    get_model,
    set_model_info,
)
from inspect_ai.model._generate_config import active_generate_config
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import collect, span, suspend_token_limit, suspend_turn_limit

from lm_eval_inversion.adapters.inspect.refusals import ParameterError
from lm_eval_inversion.adapters.inspect.store import Answers
from lm_eval_inversion.characters import whole_characters
from lm_eval_inversion.context import context_of
from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.queries import SystemRole, conversation, detect_system_role, require_prompt_in_request, require_room
from lm_eval_inversion.queries.conversations import Message
from lm_eval_inversion.thinking import with_opened_thinking

logger = logging.getLogger(__name__)


@solver
def ask_queries() -> Solver:
    """Have every conversation of the sample's metadata, concurrently; the first sample also has those without a system prompt for all.

    Raises:
        ValueError: a system prompt would not reach the model, or a request is too long for it.
    """
    shared = _NullConversation()

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        found = state.store_as(Answers)
        found.asked = True
        model = get_model()
        _refuse_system_message(model)
        chosen = state.metadata["shared_conversations"]
        found.system_role = role = shared.role(model, chosen)  # at once, so that a sample that a limit stops has it too
        found.null_answers = await shared.get(model, chosen)
        requests = [conversation(sent["system_prompt"], sent["turns"], role) for sent in state.metadata["conversations"]]
        _check_requests(model, state.metadata["prompt"], requests)
        answers: list[str | None] = [None] * len(requests)
        reasons: list[str | None] = [None] * len(requests)

        async def ask(index: int) -> None:
            output = await model.generate(_chat(requests[index]), config=_own_seed(requests, index, state.epoch))
            answers[index] = _raw_answer(output, model, requests[index])
            # What has arrived stays, should a limit or an error cancel the other queries.
            if not output.empty:  # a server may send no choice at all, which has neither a reason nor a message
                reasons[index] = output.stop_reason
                if index == 0:  # what the log shows of the sample: the first request and its own answer
                    state.output = output
            found.answers, found.stop_reasons = list(answers), list(reasons)

        async with span("queries"):
            await collect(*(ask(index) for index in range(len(requests))))
        if isinstance(state.output, ModelOutput) and not state.output.empty:
            state.messages = [*_chat(requests[0]), state.output.message]
        return state

    return solve


UNSCORED = (
    "redact=true does not go with --no-score (score=False): the answers would become hashes before they are scored, and a redacted log "
    "cannot be scored. Leave --no-score out; or run without redact=true, score the log, and then redact it: lm-eval-inversion redact LOG"
)


@solver
def refuse_unscored() -> Solver:
    """Stop a private task that will not be scored, before it asks anything: its answers would be lost for good.

    Raises:
        ValueError: the run leaves scoring out. Neither the task, when it is made, nor a hook is told of that; only samples can know.
    """
    known: ContextVar[list[Scorer]] | None = None
    with suppress(ImportError):  # private to Inspect; should it move, nothing is refused, and scored runs go on as before
        from inspect_ai.scorer._score import _scorers

        known = _scorers

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if known is not None and not known.get(None):
            raise ParameterError(UNSCORED)
        return state

    return solve


class _NullConversation:
    """Has the conversations without a system prompt once per run of the task and hands every sample of it the same answers.

    One task, or copies of it, may run many times, with other models and settings of generation.
    """

    def __init__(self) -> None:
        self.locks: defaultdict[tuple[str, str], anyio.Lock] = defaultdict(anyio.Lock)
        self.roles: dict[tuple[str, str], SystemRole] = {}
        self.known: dict[tuple[str, str], list[str]] = {}

    @staticmethod
    def _key(chosen: Sequence[Sequence[Message]]) -> tuple[str, str]:
        """Of the run: the id of the eval is another for every model, settings, call and attempt."""
        active = sample_active()
        assert active is not None  # solvers run in samples
        return active.eval_id, content_hash(chosen)

    def role(self, model: Model, chosen: Sequence[Sequence[Message]]) -> SystemRole:
        """How a system prompt reaches the model; what there is to warn of is told once per run."""
        key = self._key(chosen)
        if key not in self.roles:
            _tell_overridden(model)
            self.roles[key] = system_role(model)
        return self.roles[key]

    async def get(self, model: Model, chosen: Sequence[Sequence[Message]]) -> list[str]:
        """The answers to the conversations without a system prompt."""
        key = self._key(chosen)
        async with self.locks[key]:
            if key not in self.known:

                async def ask(turns: Sequence[Message]) -> str:
                    request = conversation(None, turns)
                    return _raw_answer(await model.generate(_chat(request)), model, request)

                # It is everybody's: charged to the sample that has it, it would stop that one early.
                with suspend_token_limit(), suspend_turn_limit():
                    async with span("null conversation"):
                        self.known[key] = await collect(*(ask(turns) for turns in chosen))
        return self.known[key]


def _own_seed(requests: Sequence[Sequence[Message]], index: int, epoch: int) -> GenerateConfig:
    """A seed of its own for a request that has been sent before, in this epoch or another.

    Back ends answer the same request under one seed in the same words.
    """
    times = sum(request == requests[index] for request in requests[:index]) + (epoch - 1) * len(requests)
    seed = active_generate_config().seed
    return GenerateConfig(seed=seed + times) if times and seed is not None else GenerateConfig()


_KINDS: dict[str, Any] = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


def _chat(messages: Sequence[Message]) -> list[ChatMessage]:
    return [_KINDS[message["role"]](content=message["content"]) for message in messages]


def _raw_answer(output: ModelOutput, model: Model, request: Sequence[Message]) -> str:
    """The answer as other hosts see it: what the back end split off as reasoning stands before it, in think tags."""
    content = output.message.content if output.choices else output.completion
    parts = [] if isinstance(content, str) else [_reasoning(part) for part in content if isinstance(part, ContentReasoning)]
    answer = whole_characters("".join(f"<think>{part}</think>\n" for part in parts if part) + output.completion)
    render = renderer(model)
    return answer if parts or render is None else with_opened_thinking(render(request), answer)


def _reasoning(part: ContentReasoning) -> str:
    """What can be read of a back end's reasoning: where it is encrypted, ``reasoning`` holds a blob and the words stand in the summary."""
    return (part.summary or "") if part.redacted else part.reasoning


def renderer(model: Model) -> Any:
    """Messages -> request text, for back ends whose template runs in this process; else None."""
    render = getattr(model.api, "hf_chat", None)
    return None if render is None else lambda messages: render(_chat(messages), [])


def system_role(model: Model) -> SystemRole:
    """How a system prompt can reach this model. Remote back ends apply their template out of sight: they have a system role.

    Raises:
        ValueError: a local model has no usable chat template.
    """
    render = renderer(model)
    if render is None:
        return "system"
    api: Any = model.api
    # Inspect looks up the context length of models that it does not know by loading them a second time, from the hub even where they
    # are a local folder ("hf/local"), after every answer until it fails: a minute of retries without a network. So it is told.
    set_model_info(str(model), ModelInfo(context_length=context_of(api.model.config)))
    if getattr(api, "use_chat_template", None) is False or not (getattr(api, "chat_template", None) or api.tokenizer.chat_template):
        raise ValueError(
            f"{model}: the model has no chat template, so no system prompt can reach it; give a chat model, or a template with "
            "-M chat_template=…"
        )
    return detect_system_role(render)


def _refuse_system_message(model: Model) -> None:
    """Inspect puts such a message before every request, also before those without a system prompt, and no check here would see it.

    Raises:
        ValueError: one is set.
    """
    if message := active_generate_config().system_message or model.config.system_message:
        raise ValueError(
            f"this task sets its own system prompts, which --system-message {message[:40]!r} would stand before; remove the option"
        )


def _tell_overridden(model: Model) -> None:
    """Warn of settings that the model brings along and that those of the task go over, as they do in Inspect: it says nothing itself."""
    active = active_generate_config()
    for name in ("temperature", "max_tokens", "seed"):
        own, used = getattr(model.config, name), getattr(active, name)
        if own is not None and used is not None and own != used:
            logger.warning(
                "%s: %s=%s of the model's own configuration is not used, but the task's %s; give --%s %s, or eval(…, %s=%s)",
                model, name, own, used, name.replace("_", "-"), own, name, own,
            )  # fmt: skip


def _check_requests(model: Model, prompt: dict[str, Any], requests: Sequence[Sequence[Message]]) -> None:
    """Every request carries its system prompt and fits the model, as far as this process can see."""
    render = renderer(model)
    if render is None:
        return
    api: Any = model.api
    context = context_of(api.model.config)
    # The task's own settings are active while a sample runs; a CLI flag has overridden them by then.
    room = active_generate_config().max_tokens or model.config.max_tokens or 0
    for messages in requests:
        request = render(messages)
        require_prompt_in_request(prompt["text"], request, prompt["id"])
        if context:
            length = len(api.tokenizer(request, **api.tokenizer_call_args)["input_ids"])
            require_room(prompt["id"], length, room, context, "give a smaller --max-tokens, or shorter prompts")
