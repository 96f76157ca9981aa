"""What all tasks share as lm_eval tasks: one document per system prompt, one request per conversation.

Conversations without a system prompt (the null arm) ride as extra requests on the first document of each rank, so that they cost one run
per rank and share the run's cache and settings. Subclasses say what is asked and how answers are scored, by calling the core; this class
only hands data over.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, TaskConfig

from lm_eval_inversion.characters import whole_characters
from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.parameters import flag
from lm_eval_inversion.path import TASKS_FOLDER
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.queries import Message, SystemRole, conversation, detect_system_role, require_prompt_in_request, require_room
from lm_eval_inversion.queries.conversations import SENTINEL
from lm_eval_inversion.redaction import keyed_hash, redact_mapping, redact_prompt, redact_text, run_salt
from lm_eval_inversion.sampling import API_SEED, TEMPERATURE, normalise_sampling, with_one_limit
from lm_eval_inversion.scoring.metrics import COUNTS, is_scored
from lm_eval_inversion.scoring.uncertainty import mean_of_known
from lm_eval_inversion.signature import local_arguments
from lm_eval_inversion.tasks import BASE_TASK, protocol_makers, task_parameters
from lm_eval_inversion.thinking import opens_thinking, with_opened_thinking

logger = logging.getLogger("lm_eval." + __name__)

FILTER = "none"  # the harness's name for "no filter": one table row
# What the harness changes of a task for one run (`--gen_kwargs`, `--predict_only`): in its configuration, and of its own attributes.
OF_ONE_RUN = ("generation_kwargs", "metric_list", "process_results")
METRICS_OF_ONE_RUN = ("_metric_fn_list", "_metric_fn_kwargs", "_aggregation_list", "_higher_is_better")
# What chat APIs get as `stop` where the task has none: the harness would send them an empty list, which some servers refuse. It is what the
# harness itself sends to OpenAI.
END_OF_TEXT = "<|endoftext|>"
# What the harness writes where a server gave no answer; "" unless the user says otherwise.
PLACEHOLDER_VARIABLE = "LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER"
# Where the harness got a task's configuration from, in its metadata: a file's name, or that it was none.
CONFIG_SOURCE, INLINE = "config_source", "inline"
OF_SHIPPED_FILES = {"task", "class", BASE_TASK, "metadata"}  # keys, the last from the command line
NAMELESS = "_metadata"  # where the harness puts `metadata` that is no mapping
# Keys that a user's own file may set, the last where something is generated. The harness takes many more, which the tasks do not follow.
READ_KEYS = ("metadata", "metric_list", "tag", "task_alias", "generation_kwargs")
HARNESS_DEFAULTS = {field.name: field.default for field in fields(TaskConfig)}
# Some of the others -> the parameter that does it here.
PARAMETERS_INSTEAD = {"test_split": "split: dev", "dataset_path": "prompts: FILE", "process_docs": "prompts: FILE"}
SHOWN_CHARACTERS = 80  # of a value in an error
DEFAULT_TEMPLATE = "default"  # the name of the chat template that renders, where a tokenizer has several
OF_REASONING = tuple(name for name in COUNTS if name.endswith("_reasoning"))
NAME_IS_NOT_APPLIED = (
    "The harness only notes the NAME of --apply_chat_template NAME down and does not render with it. To have another one of a tokenizer's "
    'templates give hf --model_args \'{"pretrained": …, "chat_template_args": {"chat_template": "NAME"}}\', or any back end a tokenizer\'s '
    "folder that holds it alone (tokenizer=FOLDER)"
)
Turns = str | Sequence[Message]


class ConversationTask(ConfigurableTask):
    """Base of the tasks. ``protocol`` holds ``task``, ``prompts``, ``max_tokens`` and ``data_signature``.

    Raises:
        ValueError: a parameter, or the model's set-up, would make the run meaningless; before anything is generated.
    """

    protocol: Any

    output_type = "generate_until"

    def __init__(self, config: dict[str, Any], protocol: Any, higher_is_better: dict[str, bool], version: float) -> None:
        refuse_repeats(str(config.get("task")), config.get("repeats"))
        # `process_results` is a name, so that the registry is not asked for the tasks' metrics.
        settled = {"output_type": self.output_type, "test_split": "test", "num_fewshot": 0, "process_results": "process_results"}
        refuse_unread(config, settled, task_parameters(protocol.task))
        self.protocol = protocol
        self.system_role: SystemRole | None = None
        self._results: dict[str, Any] = {}
        self._world_size = 1
        self._host_strips_thinking = False
        self._partial_metrics: set[str] = set()
        self._texts = {prompt.id: prompt.text for prompt in protocol.prompts}
        # Of this process and this run; None where nothing is redacted.
        self._salt = run_salt() if flag("redact", (config.get("metadata") or {}).get("redact", False)) else None
        given = {key: config[key] for key in ("task", *READ_KEYS) if config.get(key) is not None}
        if self.output_type == "generate_until":
            # One by one, so that a YAML file that gives a temperature only keeps the rest. `until: []`, because the harness otherwise stops
            # at the first blank line.
            own = {"until": [], "temperature": TEMPERATURE, "max_gen_toks": protocol.max_tokens}
            given["generation_kwargs"] = {**own, **(config.get("generation_kwargs") or {})}
        super().__init__(
            config={
                **settled,
                "metric_list": [
                    {"metric": name, "aggregation": "mean", "higher_is_better": higher} for name, higher in higher_is_better.items()
                ],
                **given,
                "metadata": {**(config.get("metadata") or {}), "version": version},
            }
        )
        self._settings_are_for: Literal["any run", "the next run", "the last run"] = "any run"
        self._own_settings = deepcopy({key: self.get_config(key) for key in OF_ONE_RUN})
        self._own_metrics = {name: dict(getattr(self, name)) for name in METRICS_OF_ONE_RUN}

    def set_config(self, key: str, value: Any, update: bool = False) -> None:
        """Set what the user gave for this run, on the task as it was made and not as the last run left it."""
        self._forget_last_run()
        super().set_config(key, value, update)

    def override_metric(self, metric_name: str) -> None:
        """Likewise; for ``--predict_only``."""
        self._forget_last_run()
        super().override_metric(metric_name)

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """What the harness calls once for a run, behind the two above, of which it calls those that it needs."""
        self._forget_last_run()
        self._settings_are_for = "the next run"
        super().set_fewshot_seed(seed)

    def _forget_last_run(self) -> None:
        """Take back what was set for a run of this object by ``simple_evaluate``, if any: the next one was not asked for it."""
        if self._settings_are_for == "any run":
            return
        self._settings_are_for = "any run"
        for key, value in deepcopy(self._own_settings).items():
            setattr(self.config, key, value)
        for name, found in self._own_metrics.items():
            setattr(self, name, dict(found))

    def conversations(self, text: str) -> Sequence[tuple[str | None, Turns]]:
        """(system prompt, turns) of every request about the secret ``text``."""
        raise NotImplementedError

    def shared_conversations(self) -> Sequence[Turns]:
        """Turns of the requests without a system prompt."""
        raise NotImplementedError

    def check_parameters(self) -> None:
        """What can be checked only once the run is certain; raises ``ValueError``."""

    def score(self, prompts: list[SystemPrompt], answers: list[list[str]], null_answers: list[str]) -> Sequence[Any]:
        """Results with ``prompt_id`` and ``metrics``, one per prompt."""
        raise NotImplementedError

    def response(self, prompt_id: str, index: int, shared: bool) -> Any:
        """What the sample log shows for one request: by its number, among those without a system prompt if ``shared``."""
        raise NotImplementedError

    def run_signature(self) -> dict[str, Any]:
        """The signature of the run, for the results file."""
        raise NotImplementedError

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """The benchmark's rows; nothing is fetched."""
        import datasets

        # Attributes as JSON text: a column of nested lists would get its type from the first row.
        shown = [prompt if self._salt is None else redact_prompt(prompt, self._salt) for prompt in self.protocol.prompts]
        rows = [{**prompt.to_dict(), "attributes": json.dumps(prompt.to_dict()["attributes"])} for prompt in shown]
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})

    def doc_to_text(self, doc: dict[str, Any], doc_to_text: Any = None) -> str:
        """Nothing: requests are conversations, see ``construct_requests``."""
        return ""

    def text_of(self, doc: dict[str, Any]) -> str:
        """The true system prompt, also where the document holds a marker for it."""
        return self._texts[doc["id"]]

    def doc_to_target(self, doc: dict[str, Any], doc_to_target: Any = None) -> str:
        """The true system prompt, or its marker."""
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
        if self._settings_are_for == "the next run":
            self._settings_are_for = "the last run"
        else:  # the harness's `evaluate` alone, which sets nothing itself
            self._forget_last_run()
        task = self.config.task
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
        if samples is not None:
            require_samples(task, samples, len(self.eval_docs))
            # The list itself, which the harness reads again: it hands the documents out in their own order, and names them in the list's.
            samples.sort()
        require_limit(task, limit, len(self.eval_docs))
        documents = len(self.eval_docs) if limit is None else min(limit, len(self.eval_docs))
        if samples is not None:
            documents = len(samples)
        if world_size > documents:
            raise ValueError(
                f"{task}: {world_size} processes for {documents} system prompts; every process needs one: start at most {documents}, "
                "or raise --limit"
            )
        self.check_parameters()
        self._world_size = world_size
        self._host_strips_thinking = bool(getattr(getattr(chat_template, "__self__", None), "think_end_token", None))
        if self.output_type == "generate_until":
            self.config.generation_kwargs = with_one_limit(self.config.generation_kwargs)
        try:
            self.system_role = detect_system_role(chat_template)
        except Exception as error:
            raise ValueError(f"{task}: {_no_template(chat_template, error)}") from error
        rendered = chat_template(conversation(SENTINEL, "Hello!", self.system_role))
        if isinstance(rendered, list):  # lm_eval's remote tokenizer: its server would get messages where it takes text
            raise ValueError(
                f"{task}: the remote tokenizer that the harness has chosen hands the messages back instead of rendering them; give "
                "--model_args tokenizer_backend=huggingface,tokenizer=NAME, or use local-chat-completions"
            )
        if isinstance(rendered, str):  # no messages, which a server renders
            _warn_of_other_templates(task, chat_template)
        # The harness keys its request cache by task and tokenizer only; the rendering stands for the chat template and its settings.
        rendered = str(rendered)
        if self._host_strips_thinking and opens_thinking(rendered):
            raise ValueError(
                f"{task}: the model's chat template opens the reasoning, so with think_end_token reasoning that is cut off would pass as "
                "the answer; leave think_end_token out: the task takes reasoning away itself"
            )
        # With the order of the prompts, which their hash does not tell: cached requests hold the numbers of their documents.
        order = [prompt.id for prompt in self.protocol.prompts]
        # And with the seed, which repeated requests count on from.
        salt = content_hash([self.protocol.data_signature(), order, rendered, self.sampling, samples, _seed_of(chat_template)])
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
        # Cached requests hold the documents of the run that made them: plain ones, which the harness would hash without a key, or another
        # run's markers.
        documents_by_id = dict(self.doc_iterator(rank=rank, samples=samples, world_size=world_size))
        for instance in self.instances:
            instance.doc = documents_by_id[instance.doc_id]
        self.instances.extend(self._null_requests(chat_template))
        self._check_requests(chat_template)

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings of generation, as requests carry them; empty where nothing is generated.

        Not kept in the configuration: the next run of the same object would take what follows from this run's settings for the user's.
        """
        given = self.config.generation_kwargs
        return {} if given is None else normalise_sampling(given)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **keywords: Any) -> list[Instance]:
        """One request per conversation, ``idx`` counting them."""
        return self._requests(doc, self.conversations(self.text_of(doc)), keywords["chat_template"], keywords["metadata"], first_index=0)

    def _requests(
        self,
        doc: dict[str, Any],
        chosen: Sequence[tuple[str | None, Turns]],
        chat_template: Callable[..., Any],
        metadata: Any,
        first_index: int,
    ) -> list[Instance]:
        requests = []
        seed = _seed_of(chat_template)
        sent: Counter[str] = Counter()
        for index, (system_prompt, turns) in enumerate(chosen):
            rendered = chat_template(conversation(system_prompt, turns, self.system_role or "system"))
            settings = deepcopy(self.sampling)
            times = sent[str(rendered)]
            if not isinstance(rendered, str):  # chat APIs take messages, not text
                settings["until"] = settings.get("until") or [END_OF_TEXT]
            if times and seed is not None:
                # The harness sends one seed, and the same request would be answered in the same words every time.
                settings["seed"] = settings.get("seed", seed) + times
            sent[str(rendered)] += 1
            requests.append(Instance("generate_until", doc, (rendered, settings), first_index + index, metadata=metadata))
        return requests

    def _null_requests(self, chat_template: Callable[..., Any]) -> list[Instance]:
        """The conversations without a system prompt, if any, as requests of this rank's first document behind its own."""
        first = self.instances[0]
        metadata = (first.task_name, first.doc_id, first.repeats)
        chosen = [(None, turns) for turns in self.shared_conversations()]
        return self._requests(first.doc, chosen, chat_template, metadata, first_index=self._own_requests)

    @cached_property
    def _own_requests(self) -> int:
        """Requests per document, those without a system prompt apart."""
        return len(self.conversations(""))

    def _check_requests(self, chat_template: Callable[..., Any]) -> None:
        """Every request carries its system prompt, and is short enough not to be cut at its beginning."""
        lm = getattr(chat_template, "__self__", None)
        encode, max_length = getattr(lm, "tok_encode", None), getattr(lm, "max_length", None)
        room = self.sampling.get("max_gen_toks", self.protocol.max_tokens)
        for instance in self.instances:
            request = getattr(instance.args[0], "prompt", instance.args[0])  # chat APIs wrap their JSON
            if not self._is_null(instance):
                require_prompt_in_request(self.text_of(instance.doc), request, instance.doc["id"])
            # Chat APIs have no tokenizer here and refuse long requests themselves.
            if encode is None or not isinstance(max_length, int) or not isinstance(instance.args[0], str):
                continue
            mend = "give a smaller --gen_kwargs max_gen_toks=…, a larger --model_args max_length=…, or shorter prompts"
            text = "".join(instance.args[:2]) if self.output_type == "loglikelihood" else request
            require_room(instance.doc["id"], len(encode(text)), room, max_length, mend)

    def _is_null(self, instance: Instance) -> bool:
        return bool(instance.idx >= self._own_requests)

    def apply_filters(self) -> None:
        """Score all documents of this rank at once; what was found becomes the filtered responses."""
        for instance in self.instances:
            # Also what the harness saves, so that whoever reads its files reads the same.
            instance.resps = [self._whole_answer(instance, response) for response in instance.resps]
        if "bypass" in self._metric_fn_list:  # --predict_only
            for instance in self.instances:
                instance.filtered_resps[FILTER] = self._shown(str(instance.resps[0]))
            self._redact_instances()
            return
        answers: dict[int, list[str]] = defaultdict(list)
        null_answers: list[str] = []
        firsts: dict[int, Instance] = {}
        for instance in sorted(self.instances, key=lambda instance: (instance.doc_id, instance.idx)):
            # The first response: the harness pads short ranks with copies of their last request.
            text = instance.resps[0]
            if self._is_null(instance):
                null_answers.append(text)
            else:
                answers[instance.doc_id].append(text)
                firsts.setdefault(instance.doc_id, instance)
        by_id = {prompt.id: prompt for prompt in self.protocol.prompts}
        prompts = [by_id[instance.doc["id"]] for instance in firsts.values()]
        results = self.score(prompts, [answers[doc_id] for doc_id in firsts], null_answers)
        self._results = {result.prompt_id: result for result in results}
        self._agree_on_metrics()
        unscored = sum(not is_scored(result.metrics) for result in results)
        if unscored:
            logger.warning(
                "%s: %d of %d system prompts are unscored, because the model gave no usable output (empty or refused). "
                "Unscored is not safe: see coverage.",
                self.config.task, unscored, len(results),
            )  # fmt: skip
        own = self._own_requests
        for instance in self.instances:
            shared = self._is_null(instance)
            instance.filtered_resps[FILTER] = self._shown(self.response(instance.doc["id"], instance.idx - own * shared, shared))
        self._redact_instances()

    def _whole_answer(self, instance: Instance, response: Any) -> str:
        """The answer behind the think tag that the chat template wrote, if any; not where the harness itself cuts reasoning off.

        "" where a server gave none, whatever the harness was told to write there.
        """
        answer = "" if response == os.environ.get(PLACEHOLDER_VARIABLE, "") else whole_characters(str(response or ""))
        request = getattr(instance.args[0], "prompt", instance.args[0])  # chat APIs wrap their JSON
        return answer if self._host_strips_thinking else with_opened_thinking(str(request), answer)

    def _shown(self, found: Any) -> str:
        """What the sample log shows for one request, as text, because the harness saves every response as text."""
        if self._salt is not None:
            # Of a mapping the found piece alone is secret; a text, alone or of several, all of it.
            hidden = redact_mapping({"span": found} if not isinstance(found, dict) else found, {"span"}, self._salt)
            found = hidden if isinstance(found, dict) else hidden["span"]
        return found if isinstance(found, str) else json.dumps(found)

    def _redact_instances(self) -> None:
        """Before the harness logs requests and responses, and hashes them without a key: markers instead of texts."""
        if self._salt is None:
            return
        for instance in self.instances:
            instance.arguments = (redact_text(str(instance.arguments[0]), self._salt), *instance.arguments[1:])
            instance.resps = [redact_text(str(response or ""), self._salt) for response in instance.resps]

    def _agree_on_metrics(self) -> None:
        """Find the metrics that some documents of some process lack.

        The harness gathers the metrics that its first process has, and fails where another one lacks them; a document without a value
        then says NaN, and the mean leaves it out.
        """
        import torch.distributed as processes

        if self._world_size == 1 or not processes.is_initialized():
            return
        found = Counter(metric for result in self._results.values() for metric in result.metrics)
        gathered: list[Any] = [None] * processes.get_world_size()
        processes.all_gather_object(gathered, (len(self._results), found))
        documents = sum(number for number, _ in gathered)
        together: Counter[str] = sum((counts for _, counts in gathered), Counter())
        self._partial_metrics = {metric for metric, number in together.items() if number < documents}
        for metric in self._partial_metrics:
            self._aggregation_list[metric] = mean_of_known  # for which the harness gives no standard error

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        """The metrics of one system prompt; an unscored one has ``coverage`` only, so that means skip it."""
        if "bypass" in self._metric_fn_list:
            return {"bypass": 999}  # the harness's own value
        metrics = {**dict.fromkeys(self._partial_metrics, math.nan), **self._results[doc["id"]].metrics}
        # Where the harness cuts reasoning off nobody looked at it: no value rather than 0.
        return {name: value for name, value in metrics.items() if name not in OF_REASONING or not self._host_strips_thinking}

    def dump_config(self) -> dict[str, Any]:
        """The configuration as logged, with the signature of the run."""
        config: dict[str, Any] = super().dump_config()
        if self.sampling:
            config["generation_kwargs"] = self.sampling
        signature = self.run_signature()
        if self.config.task != self.protocol.task:
            signature[BASE_TASK] = self.protocol.task
        if self._salt is not None:  # the plain hash of a short prompt can be guessed
            signature = {**signature, "prompts_hash": keyed_hash(signature["prompts_hash"], self._salt), "redact": True}
        metadata = config.get("metadata") or {}  # among it the model's arguments
        return {**config, "metadata": {**metadata, **local_arguments(metadata), **signature}}


def task_of(config: dict[str, Any]) -> str:
    """The task of this package that a configuration is of; a YAML file that includes one of this package's has a name of its own.

    Args:
        config: the YAML file's keys; ``BASE_TASK`` comes from the file that it includes.

    Raises:
        ValueError: that cannot be told, or the configuration takes the name of another task, or its parameters have no names.
    """
    known, name = protocol_makers(), str(config["task"])
    refuse_nameless(name, config.get("metadata"))
    task = str(config.get(BASE_TASK, name))
    if task not in known:
        raise ValueError(
            f"{name}: {BASE_TASK} {task!r} is no task of this package; known: {', '.join(known)}. A task of your own `include:`s the YAML "
            f"file of one of these (python -m lm_eval_inversion.path prints their folder), or says which it is with `{BASE_TASK}: NAME`"
        )
    if name != task and name in known:
        raise ValueError(f"{name}: the configuration is of {task}, and {name} is the name of another task; give it a name of its own")
    if name == task:
        refuse_taken_name(config)
    return task


def refuse_taken_name(config: dict[str, Any]) -> None:
    """Refuse a file of the user's own that takes the name of the task that it includes.

    The harness takes a file of ``--include_path`` in place of the package's, with a warning only, and results would call its settings the
    task's own. What a group of the user's own sets for its members comes under the package's file, and passes.

    Args:
        config: keys of the file, with what the harness says of where they come from. Those of a file that ``--tasks`` names come "inline",
            merged with ``--metadata``: its parameters cannot be told from the command's there, and pass.

    Raises:
        ValueError: it is such a file.
    """
    name, source = str(config["task"]), (config.get("metadata") or {}).get(CONFIG_SOURCE)
    if source is None:  # no file, or a harness that does not say
        return
    if source == INLINE:
        own, place = bool(set(config) - OF_SHIPPED_FILES), "a configuration"
    else:
        file = Path(str(source))  # a copy says what the package's own says, wherever it lies
        own, place = file.is_file() and file.read_bytes() != (TASKS_FOLDER / f"{name}.yaml").read_bytes(), str(source)
    if own:
        raise ValueError(
            f"{name}: {place} takes the name of one of this package's tasks and would stand in its place; give it a name of its own, such "
            f"as `task: {name}_mine`"
        )


def refuse_nameless(task: str, metadata: Any) -> None:
    """Check ``metadata`` of a task's YAML file: the harness takes a list as well, in which no parameter is found.

    Args:
        task: for the message.
        metadata: as the harness hands it over, beside what the command gave.

    Raises:
        ValueError: it is neither empty nor a mapping.
    """
    nameless = metadata.get(NAMELESS) if isinstance(metadata, Mapping) else metadata
    if nameless is not None:
        raise ValueError(
            f"{task}: metadata: {_shown(nameless)} in the task's YAML file is no mapping, and its parameters would be left out; write them "
            "as name: value, such as `metadata: {split: dev}`, without dashes"
        )


def refuse_unread(config: Mapping[str, Any], settled: Mapping[str, Any], parameters: Container[str]) -> None:
    """Check the keys of a task's YAML file: the harness takes many that the tasks do not follow, and results would show them all the same.

    Args:
        config: the keys, those that a group of the user's own sets for its members among them.
        settled: key -> the one value that the task has.
        parameters: of the task, for the mend.

    Raises:
        ValueError: a key says what the task does not do; the message names all such keys.
    """
    read = READ_KEYS if settled["output_type"] == "generate_until" else READ_KEYS[:-1]
    so_anyway = {**HARNESS_DEFAULTS, **settled}
    others = {key: value for key, value in config.items() if key not in ("task", "class", BASE_TASK, *read) and value is not None}
    unread = [key for key, value in others.items() if key not in so_anyway or value != so_anyway[key]]
    if not unread:
        return
    named = ", ".join(f"{key}: {_shown(others[key])}" if key in settled else str(key) for key in unread)
    wanted = dict.fromkeys(PARAMETERS_INSTEAD[key] for key in unread if key in PARAMETERS_INSTEAD)
    mend = "".join(f"; you may want `metadata: {{{parameter}}}`" for parameter in wanted if parameter.partition(":")[0] in parameters)
    raise ValueError(
        f"{config.get('task')}: {named} would not do what it says, and results would show it as if it did; remove it from the task's "
        f"YAML file, or from its group's{mend}. What a file can set: {', '.join(read)}"
    )


def refuse_repeats(task: str, repeats: Any) -> None:
    """Check ``repeats`` of a task's YAML file: of several answers to one request only the first is read.

    Raises:
        ValueError: there would be several.
    """
    if repeats not in (None, 1):
        raise ValueError(
            f"{task}: repeats: {repeats!r} asks every request several times, and only the first answer is read; remove it from the task's "
            "YAML file, and run the task again where you want other answers"
        )


def require_limit(task: str, limit: int | None, documents: int) -> None:
    """Check how many system prompts ``--limit`` leaves: the harness builds the requests of all for 0, and then runs none of them.

    Args:
        task: for the message.
        limit: as the harness made it of what the user gave, which may have been a share.
        documents: of the task.

    Raises:
        ValueError: none is left.
    """
    if limit is not None and limit <= 0:
        raise ValueError(f"--limit leaves {task} no system prompt to ask; give a number above 0, or leave it out for all {documents}")


def require_samples(task: str, samples: Any, documents: int) -> None:
    """Check a task's list of ``--samples``: the harness counts from the end for negative numbers and names repeated ones wrongly.

    Raises:
        ValueError: it does not say which prompts shall be asked, each once.
    """
    whole = isinstance(samples, list) and all(isinstance(number, int) and not isinstance(number, bool) for number in samples)
    if not whole or not samples or len(set(samples)) < len(samples) or min(samples) < 0 or max(samples) >= documents:
        raise ValueError(
            f"--samples for {task} is {_shown(samples)}: give a list of different whole numbers from 0 to {documents - 1}, the places of "
            "the system prompts to ask"
        )


def _shown(value: Any) -> str:
    """A value, as much of it as an error needs."""
    shown = str(value)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}…"


def _templates(chat_template: Callable[..., Any]) -> tuple[dict[str, Any], str | None]:
    """A tokenizer's chat templates that have names, and the one that the model's arguments ask for, if any."""
    lm = getattr(chat_template, "__self__", None)
    templates = getattr(getattr(lm, "tokenizer", None), "chat_template", None)
    return templates if isinstance(templates, dict) else {}, (getattr(lm, "chat_template_args", None) or {}).get("chat_template")


def _no_template(chat_template: Callable[..., Any], error: Exception) -> str:
    """What is wrong where nothing can be rendered, and the mend: another of the templates that are there, or else a template."""
    templates, asked_for = _templates(chat_template)
    if not templates:
        return (
            f"the model's chat template cannot be used ({type(error).__name__}: {error}); give a chat model, or a template in the "
            f"tokenizer's folder. {NAME_IS_NOT_APPLIED}"
        )
    name = asked_for or DEFAULT_TEMPLATE
    wrong = f"cannot be used ({type(error).__name__}: {error})" if name in templates else "is not there"
    names = ", ".join(templates)
    return f"the chat template {_shown(name)!r} is to render, which {wrong}; the tokenizer's are {names}. {NAME_IS_NOT_APPLIED}"


def _warn_of_other_templates(task: str, chat_template: Callable[..., Any]) -> None:
    """Tell which of a tokenizer's chat templates renders, where there are several: not the one that the harness is asked for by name.

    The harness does not tell its tasks the name, so that it cannot be refused.
    """
    templates, asked_for = _templates(chat_template)
    if len(templates) < 2 or asked_for is not None:
        return
    logger.warning(
        "%s: of the tokenizer's chat templates (%s) %r renders the requests. %s.",
        task, ", ".join(templates), DEFAULT_TEMPLATE, NAME_IS_NOT_APPLIED,
    )  # fmt: skip


def _seed_of(chat_template: Callable[..., Any]) -> int | None:
    """The seed that the harness sends with every request to a server; None where it sends none."""
    lm = getattr(chat_template, "__self__", None)
    payload = getattr(lm, "_create_payload", None)
    # sglang-generate takes one and does not send it; its server refuses the name.
    if payload is None or "seed" not in inspect.signature(payload).parameters or "sglang" in type(lm).__module__:
        return None
    known = getattr(lm, "_seed", None)
    return known if isinstance(known, int) else API_SEED


def progress_bar(steps: Iterable[Any], description: str) -> Iterable[Any]:
    """The progress of scoring."""
    from tqdm import tqdm

    return tqdm(steps, desc=description)
