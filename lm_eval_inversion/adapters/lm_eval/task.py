"""The inversion tasks as lm_eval tasks: one document per system prompt, one request per query.

The null conversation (the same queries, no system prompt) rides as extra requests on the first document of each rank, so that
it costs one conversation per query and shares the run's cache and settings. All scores come from ``evaluate``; this class only
hands data over.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from lm_eval_inversion.evaluation import Evaluation, PromptResult, evaluate
from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.protocol import TASK_VERSION, TEMPERATURE, Protocol, make_protocol, normalise_sampling
from lm_eval_inversion.queries import SystemRole, conversation, detect_system_role, require_prompt_in_request, require_room
from lm_eval_inversion.scoring.metrics import HIGHER_IS_BETTER

logger = logging.getLogger("lm_eval." + __name__)

# Keys of --metadata; lm_eval merges --model_args into the same dictionary, so none of them may be a common model argument.
PARAMETERS = ("prompts", "split", "num_queries", "inverter", "inverter_device", "decoy_seed")
FILTER = "none"  # the harness's name for "no filter": one table row


class InversionTask(ConfigurableTask):
    """A task of ``lm_eval_inversion.protocol.TASKS``, found by its name in the YAML file.

    Parameters come with ``--metadata``: see ``make_protocol``.

    Raises:
        ValueError: a parameter, or the model's set-up, would make the run meaningless; before anything is generated.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        config = {key: value for key, value in (config or {}).items() if key != "class"}
        metadata = dict(config.get("metadata") or {})
        self.protocol: Protocol = make_protocol(config["task"], **{key: metadata[key] for key in PARAMETERS if key in metadata})
        self.system_role: SystemRole | None = None
        self.evaluation: Evaluation | None = None
        self._results: dict[str, PromptResult] = {}
        super().__init__(
            config={
                # `until: []`, because the harness otherwise stops at the first blank line.
                "generation_kwargs": {"until": [], "temperature": TEMPERATURE, "max_gen_toks": self.protocol.max_tokens},
                "output_type": "generate_until",
                "test_split": "test",
                "num_fewshot": 0,
                "metric_list": [
                    {"metric": name, "aggregation": "mean", "higher_is_better": higher} for name, higher in HIGHER_IS_BETTER.items()
                ],
                "process_results": "process_results",  # a name, so that the registry is not asked for these metrics
                **config,
                "metadata": {**metadata, "version": TASK_VERSION},
            }
        )

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """The benchmark's rows; nothing is fetched."""
        import datasets

        rows = [{"id": prompt.id, "category": prompt.category, "text": prompt.text} for prompt in self.protocol.prompts]
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})

    def doc_to_text(self, doc: dict[str, Any], doc_to_text: Any = None) -> str:
        """Nothing: requests are conversations, see ``construct_requests``."""
        return ""

    def doc_to_target(self, doc: dict[str, Any], doc_to_target: Any = None) -> str:
        """The true system prompt."""
        return str(doc["text"])

    def fewshot_context(self, doc: dict[str, Any], *arguments: Any, **keywords: Any) -> str:
        """Nothing: there are no few-shot examples."""
        return ""

    def build_all_requests(
        self,
        *,
        limit: int | None = None,
        samples: list[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        chat_template: Callable[..., Any] | None = None,
        tokenizer_name: str = "",
        **keywords: Any,
    ) -> None:
        """Build the requests of this rank, after everything that could spoil the run has been checked."""
        task = self.protocol.task
        if system_instruction:
            raise ValueError(
                f"{task} sets its own system prompts, which --system_instruction {system_instruction[:40]!r} would replace; "
                "remove the option"
            )
        if not apply_chat_template or chat_template is None:
            raise ValueError(
                f"{task} needs a chat model: without --apply_chat_template no system prompt reaches the model. Add "
                "--apply_chat_template; a base model without a chat template has no system prompt to recover"
            )
        documents = len(samples) if samples is not None else min(limit or len(self.eval_docs), len(self.eval_docs))
        if world_size > documents:
            raise ValueError(
                f"{task}: {world_size} processes for {documents} system prompts; every process needs one: start at most {documents}, "
                "or raise --limit"
            )
        self.protocol.check_inverter()
        self._config.generation_kwargs = normalise_sampling(self._config.generation_kwargs)
        try:
            self.system_role = detect_system_role(chat_template)
        except Exception as error:
            raise ValueError(
                f"{task}: the model's chat template cannot be used ({type(error).__name__}: {error}); give a chat model, or a template "
                "with --apply_chat_template NAME or in the tokenizer's folder"
            ) from error
        # The harness keys its request cache by task and tokenizer only.
        salt = content_hash([self.protocol.data_signature(), self.system_role, self._config.generation_kwargs, samples])
        super().build_all_requests(
            limit=limit,
            samples=samples,
            rank=rank,
            world_size=world_size,
            apply_chat_template=True,
            chat_template=chat_template,
            tokenizer_name=f"{tokenizer_name}-{salt}",
            **keywords,
        )
        self._instances += self._null_requests(chat_template)
        self._check_requests(chat_template)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **keywords: Any) -> list[Instance]:
        """One request per query, ``idx`` counting the queries."""
        return self._requests(doc, str(doc["text"]), keywords["chat_template"], keywords["metadata"], first_index=0)

    def _requests(
        self, doc: dict[str, Any], system_prompt: str | None, chat_template: Callable[..., Any], metadata: Any, first_index: int
    ) -> list[Instance]:
        return [
            Instance(
                "generate_until",
                doc,
                (
                    chat_template(conversation(system_prompt, query.text, self.system_role or "system")),
                    deepcopy(self._config.generation_kwargs),
                ),
                first_index + index,
                metadata=metadata,
            )
            for index, query in enumerate(self.protocol.queries.queries)
        ]

    def _null_requests(self, chat_template: Callable[..., Any]) -> list[Instance]:
        """The null conversation, as requests of this rank's first document behind its own."""
        first = self._instances[0]
        metadata = (first.task_name, first.doc_id, first.repeats)
        return self._requests(first.doc, None, chat_template, metadata, first_index=len(self.protocol.queries.queries))

    def _check_requests(self, chat_template: Callable[..., Any]) -> None:
        """Every request carries its system prompt, and is short enough not to be cut at its beginning."""
        lm = getattr(chat_template, "__self__", None)
        encode, max_length = getattr(lm, "tok_encode", None), getattr(lm, "max_length", None)
        room = self._config.generation_kwargs.get("max_gen_toks", self.protocol.max_tokens)
        for instance in self._instances:
            request = getattr(instance.args[0], "prompt", instance.args[0])  # chat APIs wrap their JSON
            if not self._is_null(instance):
                require_prompt_in_request(instance.doc["text"], request)
            # Chat APIs have no tokenizer here and refuse long requests themselves.
            if encode is None or not isinstance(max_length, int) or not isinstance(instance.args[0], str):
                continue
            mend = "give a smaller --gen_kwargs max_gen_toks=…, a larger --model_args max_length=…, or shorter prompts"
            require_room(instance.doc["id"], len(encode(request)), room, max_length, mend)

    def _is_null(self, instance: Instance) -> bool:
        return bool(instance.idx >= len(self.protocol.queries.queries))

    def apply_filters(self) -> None:
        """Invert and score all documents of this rank at once; reconstructions become the filtered responses."""
        if "bypass" in self._metric_fn_list:  # --predict_only
            for instance in self._instances:
                instance.filtered_resps[FILTER] = instance.resps[0]
            return
        answers: dict[int, list[str]] = defaultdict(list)
        null_answers: list[str] = []
        firsts: dict[int, Instance] = {}
        for instance in sorted(self._instances, key=lambda instance: (instance.doc_id, instance.idx)):
            # The first response: the harness pads short ranks with copies of their last request.
            text = str(instance.resps[0] or "")
            if self._is_null(instance):
                null_answers.append(text)
            else:
                answers[instance.doc_id].append(text)
                firsts.setdefault(instance.doc_id, instance)
        by_id = {prompt.id: prompt for prompt in self.protocol.prompts}
        prompts = [by_id[instance.doc["id"]] for instance in firsts.values()]
        self.evaluation = evaluate(
            prompts,
            [self.protocol.parse(answers[doc_id]) for doc_id in firsts],
            self.protocol.parse(null_answers),
            self.protocol.inverter,
            decoys=self.protocol.decoys(prompts),
            seed=self.protocol.decoy_seed,
            progress=_progress_bar,
        )
        self._results = {result.prompt_id: result for result in self.evaluation.results}
        unscored = sum(result.reconstruction is None for result in self.evaluation.results)
        if unscored:
            logger.warning(
                "%s: %d of %d system prompts are unscored, because the model gave no usable output (empty or refused). "
                "Unscored is not safe: see coverage.",
                self.protocol.task, unscored, len(self.evaluation.results),
            )  # fmt: skip
        for instance in self._instances:
            if self._is_null(instance):
                instance.filtered_resps[FILTER] = self.evaluation.null_reconstruction
            else:
                instance.filtered_resps[FILTER] = self._results[instance.doc["id"]].reconstruction or ""

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        """The metrics of one system prompt; an unscored one has ``coverage`` only, so that means skip it."""
        if "bypass" in self._metric_fn_list:
            return {"bypass": 999}  # the harness's own value
        return dict(self._results[doc["id"]].metrics)

    def dump_config(self) -> dict[str, Any]:
        """The configuration as logged, with the signature of the run."""
        config: dict[str, Any] = super().dump_config()
        inverter_hash = self.protocol.inverter.hash if self.evaluation is not None else None
        signature = self.protocol.signature("lm_eval", self.system_role, inverter_hash)
        return {**config, "metadata": {**(config.get("metadata") or {}), **signature}}


def _progress_bar(steps: Iterable[Any], description: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(steps, desc=description)
