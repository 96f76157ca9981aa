"""What a run will take, before anything runs: requests, tokens, minutes, money.

Example: ``plan prompt_leakage --model-args pretrained=FOLDER --tokens-per-second 2000 --prices prices.yaml``, where ``prices.yaml`` holds::

    currency: USD
    input_per_million_tokens: 0.5
    output_per_million_tokens: 1.5
    cached_input_per_million_tokens: 0.05     # optional

Nothing is generated, and nothing is fetched but a dataset that ``prompts=hub:…`` names. The same requests are counted that the tasks will
send, because the same protocols make them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_inversion.arguments import positive, positive_whole
from lm_eval_inversion.tasks import protocol_makers, task_parameters

if TYPE_CHECKING:
    from lm_eval_inversion.canary import CanaryProtocol
    from lm_eval_inversion.exposure import ExposureProtocol
    from lm_eval_inversion.leakage import LeakageProtocol
    from lm_eval_inversion.protocol import Protocol
    from lm_eval_inversion.queries import Message, SystemRole

CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English; only used where no tokenizer is given
MILLION = 1_000_000


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
    sets = len(protocol.prompts) + 1  # the null outputs are read like those of one more prompt
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
        from lm_eval_inversion.inverter.sparse_t5 import MAX_OUTPUT_TOKENS

        config = json.loads((Path(name.removeprefix("t5:")).expanduser() / "config.json").read_text(encoding="utf-8"))
        return MAX_OUTPUTS, int(config.get("max_output_tokens", MAX_OUTPUT_TOKENS)), 1
    if name.startswith("asked:"):
        from lm_eval_inversion.inverter import asked_model

        return MAX_OUTPUTS, asked_model.MAX_OUTPUT_TOKENS, 1
    folder = shipped_checkpoint() if name == DEFAULT else Path(name).expanduser()
    layout = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["block_format"]
    return int(layout["max_outputs"]), int(layout["max_output_tokens"]), int(layout.get("blocks_per_output", 1))


def expand_tasks(names: Sequence[str]) -> list[str]:
    """Tasks in the order given, groups replaced by what they hold, each once.

    Raises:
        ValueError: a name is neither a task nor a group.
    """
    known, groups = protocol_makers(), _groups()
    chosen: dict[str, None] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in groups and name not in path:
            for member in groups[name]:
                add(member, (*path, name))
        elif name in known:
            chosen[name] = None
        else:
            origin = f" (of group {path[-1]})" if path else ""
            raise ValueError(f"task {name!r}{origin} is unknown to plan; known: {', '.join([*known, *groups])}")

    for name in names:
        add(name, ())
    return list(chosen)


def _groups() -> dict[str, list[str]]:
    """Group -> its members, from the files that lm_eval reads."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads lm_eval's files without running what their tags name."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    folder = files("lm_eval_inversion").joinpath("adapters", "lm_eval", "tasks")
    found = [
        yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 (a SafeLoader)
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.name.endswith(".yaml")
    ]
    return {entry["group"]: [str(member) for member in entry["task"]] for entry in found if "group" in entry}


class TokenCounter(ABC):
    """Turns conversations into text, text into sequences of units, and units into tokens.

    Attributes:
        description: how tokens are counted, for people.
        units_per_token: 1 where a unit is a token.
        system_role: where the system prompt stands in a request.
    """

    description: str
    units_per_token: int = 1
    system_role: SystemRole = "system"

    @abstractmethod
    def render(self, messages: list[Message]) -> str:
        """A conversation as the text that the model reads, up to its answer."""

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> list[Sequence[Any]]:
        """The units of texts, one sequence each."""

    def tokens(self, units: Sequence[Any]) -> int:
        """Tokens of one request or text, rounded up."""
        return math.ceil(len(units) / self.units_per_token)


class CharacterCounter(TokenCounter):
    """An estimate from the number of characters, for models without a local tokenizer."""

    description = (
        f"an estimate: characters of all messages / {CHARACTERS_PER_TOKEN}, without what the chat template adds "
        "(give --tokenizer FOLDER to count with the model's own)"
    )
    units_per_token = CHARACTERS_PER_TOKEN

    def render(self, messages: list[Message]) -> str:
        """See ``TokenCounter.render``; only what the messages say."""
        return "".join(message["content"] for message in messages)

    def texts(self, texts: Sequence[str]) -> list[Sequence[Any]]:
        """See ``TokenCounter.texts``."""
        return list(texts)


class ModelCounter(TokenCounter):
    """The evaluated model's own tokenizer and chat template, read from disk.

    Args:
        source: a folder with a tokenizer, or a hub name that is in the local cache.

    Raises:
        FileNotFoundError: there is no tokenizer.
        ValueError: it has no chat template.
    """

    def __init__(self, source: str) -> None:
        from transformers import AutoTokenizer

        from lm_eval_inversion.queries import detect_system_role

        folder = os.path.expanduser(source)  # a home that nobody has stays as it is, where Path would raise
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            kind = "a folder without a usable tokenizer" if os.path.isdir(folder) else "no folder, and not in the hub's cache"
            raise FileNotFoundError(
                f"{source!r} is {kind}; plan fetches nothing: give the model's local folder, or leave the option out for an estimate"
            ) from error
        if not self._tokenizer.chat_template:
            raise ValueError(f"the tokenizer in {source!r} has no chat template, and the tasks need a chat model; give one that has")
        self.system_role = detect_system_role(self.render)
        self.description = f"the tokenizer and chat template of {source}"

    def render(self, messages: list[Message]) -> str:
        """See ``TokenCounter.render``; the template writes the special tokens itself."""
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def texts(self, texts: Sequence[str]) -> list[Sequence[Any]]:
        """See ``TokenCounter.texts``."""
        return list(self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]) if texts else []


@dataclass(frozen=True)
class Counts:
    """What one task, or all of them, will take. Tokens are the evaluated model's, those of the inverter apart.

    Attributes:
        system_prompts: to be recovered, one per task that it stands in (in ``prompt_inversion_user`` users' requests).
        requests: all, null requests among them.
        null_requests: those without a system prompt, sent once per process.
        repeated_prompt_tokens: prompt tokens with which an earlier request of the same task began too: all that a prefix cache can save.
        longest_prompt_tokens: of one request; with the answer it must fit the model's context.
        output_tokens_limit: when every answer runs to its limit.
        output_tokens_typical: when answers are as long as in the saved run that the user named; None without one.
        inverter_outputs: outputs that the inverter reads, at most, those of the null run among them.
        inverter_tokens: the same in the inverter's tokens, per reading; None where that is not known.
    """

    system_prompts: int
    requests: int
    null_requests: int
    prompt_tokens: int
    repeated_prompt_tokens: int
    longest_prompt_tokens: int
    output_tokens_limit: int
    output_tokens_typical: int | None
    inverter_outputs: int
    inverter_tokens: int | None


def count(workload: Workload, counter: TokenCounter, typical_answers: Sequence[str] = ()) -> Counts:
    """Count one task.

    Args:
        typical_answers: answers of a saved run of the same task, redacted ones among them; their mean length, cut at the limit, is the
            typical one.
    """
    from lm_eval_inversion.queries import conversation

    starts: dict[tuple[str | None, str], str] = {}  # candidates of one context share their start

    def text(request: PlannedRequest) -> str:
        key = (request.system_prompt, str(request.turns))
        if key not in starts:
            starts[key] = counter.render(conversation(request.system_prompt, request.turns, counter.system_role))
        return starts[key] + request.continuation

    units = counter.texts([text(request) for request in workload.requests])
    tokens = [counter.tokens(sequence) for sequence in units]
    typical = None
    if typical_answers:
        lengths = [min(workload.max_tokens, tokens) for tokens in _answer_tokens(typical_answers, counter)]
        typical = round(len(units) * sum(lengths) / len(lengths))
    return Counts(
        system_prompts=workload.system_prompts,
        requests=len(units),
        null_requests=sum(request.null for request in workload.requests),
        prompt_tokens=sum(tokens),
        repeated_prompt_tokens=sum(_common_prefixes(units, counter.units_per_token)),
        longest_prompt_tokens=max(tokens),
        output_tokens_limit=len(units) * workload.max_tokens,
        output_tokens_typical=typical,
        inverter_outputs=workload.inverter_outputs,
        inverter_tokens=workload.inverter_tokens,
    )


def _answer_tokens(answers: Sequence[str], counter: TokenCounter) -> Iterator[int]:
    """Tokens of the answers of a saved run; of redacted ones, whose text is gone, an estimate from the characters that it had."""
    from lm_eval_inversion.redaction import redacted_length

    for answer, sequence in zip(answers, counter.texts(answers)):
        length = redacted_length(answer)
        yield counter.tokens(sequence) if length is None else math.ceil(length[0] / CHARACTERS_PER_TOKEN)


def _common_prefixes(sequences: Sequence[Sequence[Any]], units_per_token: int) -> Iterator[int]:
    """Tokens of every sequence that begin another one too; in sorted order that one is the neighbour."""
    ordered: list[Any] = sorted(sequences)  # type: ignore[type-var]
    for first, second in zip(ordered, ordered[1:]):
        yield sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second))) // units_per_token


def add_counts(parts: Sequence[Counts]) -> Counts:
    """The sum over tasks; what is not known of one task is not known of the sum."""
    totals: dict[str, int | None] = {}
    for name in Counts.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        totals[name] = None if None in values else max(values) if name == "longest_prompt_tokens" else sum(values)
    return Counts(**totals)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Prices:
    """Prices per million tokens; ``cached_input_per_million_tokens`` is None where repeated input costs as much as new."""

    currency: str
    input_per_million_tokens: float
    output_per_million_tokens: float
    cached_input_per_million_tokens: float | None = None

    def cost(self, prompt_tokens: int, repeated_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost, ``repeated_tokens`` of the prompt tokens at the cached price where there is one."""
        cached = self.cached_input_per_million_tokens
        saved = 0.0 if cached is None else repeated_tokens * (self.input_per_million_tokens - cached)
        return (prompt_tokens * self.input_per_million_tokens - saved + output_tokens * self.output_per_million_tokens) / MILLION


def read_prices(path: Path) -> Prices:
    """Read a price file: JSON or YAML, an object with the fields of ``Prices``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such an object; the message names line or field.
    """
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"price file {path} does not exist ({path.absolute()})")
    if path.suffix.lower() not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"price file {path}: prices are read from .json, .yaml and .yml; rename or convert the file")
    text = path.read_text(encoding="utf-8-sig")
    try:
        data = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"price file {path} line {error.lineno}: not JSON ({error.msg})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ValueError(f"price file {path}{where}: not YAML ({getattr(error, 'problem', None) or error})") from error
    fields = Prices.__dataclass_fields__
    if not isinstance(data, dict):
        raise ValueError(f"price file {path}: {type(data).__name__} instead of an object with the fields {', '.join(fields)}")
    for name in data:
        if name not in fields:
            raise ValueError(f"{_where(path, text, name)}: field {name!r} is unknown; known: {', '.join(fields)}")
    optional = "cached_input_per_million_tokens"
    for name in fields:
        if name not in data:
            if name != optional:
                raise ValueError(f"price file {path}: field {name!r} is missing")
            continue
        value = data[name]
        if name == "currency":
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{_where(path, text, name)}: field 'currency' is {value!r}; give a name such as USD")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{_where(path, text, name)}: field {name!r} is {value!r}; give a number of at least 0")
    return Prices(**data)


def _where(path: Path, text: str, name: Any) -> str:
    """The file, and the line that names a field where it can be found."""
    pattern = re.compile(rf"""(?:^|[\s{{,"']){re.escape(str(name))}["']?\s*:""")
    line = next((number for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)), None)
    return f"price file {path}" if line is None else f"price file {path} line {line}"


@dataclass(frozen=True)
class Speeds:
    """Throughput of the evaluated model over all requests in flight, in tokens per second; None where it is not known."""

    output: float | None = None
    prefill: float | None = None

    def minutes(self, prompt_tokens: int, output_tokens: int | None) -> float | None:
        """Minutes for so many tokens; reading the prompts takes no time where its speed is not known."""
        if self.output is None or output_tokens is None:
            return None
        reading = prompt_tokens / self.prefill if self.prefill else 0.0
        return (reading + output_tokens / self.output) / 60


@dataclass(frozen=True)
class Plan:
    """The plan of several tasks, in numbers.

    Attributes:
        tasks: task -> what it will take.
        counted_with: how tokens were counted.
        typical_from: the saved run that the typical figure comes from.
    """

    tasks: dict[str, Counts]
    counted_with: str
    speeds: Speeds = Speeds()
    prices: Prices | None = None
    typical_from: str | None = None

    def figures(self, counts: Counts) -> dict[str, Any]:
        """The counts of a row with minutes and costs; None where the user gave no speed, price or saved run."""
        row: dict[str, Any] = asdict(counts)
        for kind, output in (("limit", counts.output_tokens_limit), ("typical", counts.output_tokens_typical)):
            row[f"minutes_{kind}"] = self.speeds.minutes(counts.prompt_tokens, output)
            for name, cached in ((f"cost_{kind}", 0), (f"cost_{kind}_with_cache", counts.repeated_prompt_tokens)):
                row[name] = self.prices.cost(counts.prompt_tokens, cached, output) if self.prices and output is not None else None
            if self.prices and self.prices.cached_input_per_million_tokens is None:
                row[f"cost_{kind}_with_cache"] = None
        return row

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values: one object per task and their sum."""
        return {
            "tasks": [{"task": task, **self.figures(counts)} for task, counts in self.tasks.items()],
            "sum": self.figures(add_counts(list(self.tasks.values()))),
            "tokens_counted_with": self.counted_with,
            "typical_from": self.typical_from,
            "tokens_per_second": self.speeds.output,
            "prefill_tokens_per_second": self.speeds.prefill,
            "prices": asdict(self.prices) if self.prices else None,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What a reader must know of the numbers, one sentence each."""
        notes = [
            f"Tokens: {self.counted_with}.",
            "At most: every answer runs to its token limit; most end before.",
            "Null requests have no system prompt; they are sent once, in lm_eval once per process.",
        ]
        if self.typical_from:
            notes.append(
                f"Typical: answers as long, on average, as those in {self.typical_from} (cut at this plan's limit; of redacted answers, "
                f"characters / {CHARACTERS_PER_TOKEN})."
            )
        if self.speeds.output and not self.speeds.prefill:
            notes.append("Minutes leave out the reading of the prompts (no --prefill-tokens-per-second).")
        if self.speeds.prefill and not self.speeds.output:
            notes.append("No minutes: they need --tokens-per-second too.")
        if self.prices and self.prices.cached_input_per_million_tokens is not None:
            notes.append(
                "With cache: every repeated start of a request at the cached price, the best case; providers cache long starts only."
            )
        if any(counts.inverter_outputs for counts in self.tasks.values()):
            notes.append(
                "The inverter reads these outputs where you run the task, and then the 16 candidates of every prompt; minutes are without "
                "it (10 to 25 seconds a prompt, depending on the CPU core)."
            )
        return notes


def make_plan(
    names: Sequence[str],
    *,
    parameters: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    max_tokens: int | None = None,
    speeds: Speeds = Speeds(),
    prices: Prices | None = None,
    typical_from: Path | None = None,
) -> Plan:
    """Plan tasks and groups.

    Args:
        names: tasks and groups of tasks.
        parameters: the tasks' own (``--metadata``); each goes to the tasks that know it.
        tokenizer: folder of the model's tokenizer; None estimates from characters.
        max_tokens: longest answer, where it is not the task's own.
        typical_from: results of a saved run whose answers give the typical length.

    Raises:
        FileNotFoundError: a named file or folder does not exist.
        ValueError: a task or parameter is unknown or bad; the message names it and the fix.
    """
    chosen, makers = expand_tasks(names), protocol_makers()
    own = {task: task_parameters(task) for task in chosen}
    given = dict(parameters or {})
    known = dict.fromkeys(name for parameters_of_task in own.values() for name in parameters_of_task)
    given.pop("redact", None)  # of the hosts' tasks; it changes what is written, not what is sent
    for name in given:
        if name not in known:
            raise ValueError(f"--metadata {name}={given[name]}: none of {', '.join(chosen)} has this parameter; known: {', '.join(known)}")
    workloads = {task: workload(makers[task](task, **{name: given[name] for name in own[task] if name in given})) for task in chosen}
    answers = _saved_answers(typical_from, chosen) if typical_from else {}
    counter = CharacterCounter() if tokenizer is None else ModelCounter(tokenizer)
    counted = {}
    for task, found in workloads.items():
        limit = max_tokens if max_tokens is not None and found.max_tokens else found.max_tokens
        counted[task] = count(replace(found, max_tokens=limit), counter, answers.get(task, ()))
    return Plan(counted, counter.description, speeds, prices, str(typical_from) if typical_from else None)


def _saved_answers(path: Path, tasks: Sequence[str]) -> dict[str, list[str]]:
    """Task of this package -> all answers of a saved run, whatever the user called it, those without a system prompt apart."""
    from lm_eval_inversion.report.reading import read_results

    found: dict[str, list[str]] = {}
    for results in read_results(path):
        found.setdefault(results.kind, []).extend(answer for row in results.rows for answer in row.answers)
    if not any(found.get(task) for task in tasks):
        raise ValueError(f"--typical-from {path}: no answers of {', '.join(tasks)} (found: {', '.join(found)}); give a run of these tasks")
    return found


def plan_table(plan: Plan) -> str:
    """The plan as text: one row a task, their sum, and what must be known of the numbers."""
    data = plan.to_dict()
    currency = plan.prices.currency if plan.prices else ""
    columns = {
        "system_prompts": "system prompts", "requests": "requests", "null_requests": "of them null", "prompt_tokens": "prompt tokens",
        "output_tokens_limit": "output tokens, at most", "output_tokens_typical": "typical",
        "minutes_limit": "minutes, at most", "minutes_typical": "typical",
        "cost_limit": f"{currency}, at most", "cost_limit_with_cache": "with cache", "cost_typical": f"{currency}, typical",
        "cost_typical_with_cache": "with cache", "inverter_outputs": "inverter: outputs", "inverter_tokens": "inverter: tokens, at most",
    }  # fmt: skip
    rows = [*data["tasks"], {"task": "sum", **data["sum"]}]
    shown = [name for name in columns if any(row[name] is not None for row in rows)]
    if not any(row["inverter_outputs"] for row in rows):
        shown = [name for name in shown if not name.startswith("inverter_")]
    cells = [["task", *(columns[name] for name in shown)], *([row["task"], *(_cell(name, row[name]) for name in shown)] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "| "
        + " | ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(line, widths)))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:], "", *data["notes"]])


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "?"
    if name.startswith("minutes"):
        return f"{value:,.1f}"
    return f"{value:,.2f}" if name.startswith("cost") else f"{value:,}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``plan``."""
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks or groups, by the names that the hosts use")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model-args", metavar="pretrained=FOLDER", help="as given to lm_eval; only the tokenizer is read")
    source.add_argument("--tokenizer", metavar="FOLDER", help="a folder with the model's tokenizer (default: estimate as characters / 4)")
    parser.add_argument("--metadata", nargs="+", action="extend", default=[], metavar="name=value", help="the tasks' parameters")
    parser.add_argument("--max-tokens", type=positive_whole, metavar="N", help="longest answer (default: the task's own)")
    parser.add_argument("--tokens-per-second", type=positive, metavar="N", help="output tokens per second, over all requests in flight")
    parser.add_argument("--prefill-tokens-per-second", type=positive, metavar="N", help="prompt tokens read per second, over all requests")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="JSON or YAML: currency and prices per million tokens")
    parser.add_argument("--typical-from", type=Path, metavar="RESULTS", help="a saved run whose answer lengths are used as typical")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(options: argparse.Namespace) -> int:
    """Print the plan; 0.

    Raises:
        FileNotFoundError: see ``make_plan`` and ``read_prices``.
        ValueError: likewise.
    """
    plan = make_plan(
        options.tasks,
        parameters=_parameters(options.metadata),
        tokenizer=options.tokenizer if options.model_args is None else _tokenizer_of(options.model_args),
        max_tokens=options.max_tokens,
        speeds=Speeds(options.tokens_per_second, options.prefill_tokens_per_second),
        prices=read_prices(options.prices) if options.prices else None,
        typical_from=options.typical_from,
    )
    print(plan_table(plan) if options.format == "text" else json.dumps(plan.to_dict(), indent=2, ensure_ascii=False))
    return 0


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    """Parameters as lm_eval reads them: ``name=value``, also between commas, or one JSON object.

    Raises:
        ValueError: something is neither.
    """
    found: dict[str, Any] = {}
    for text in given:
        if text.startswith("{"):
            try:
                found |= json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"--metadata {text!r} is no JSON object ({error}); put names and texts into double quotes") from error
        else:
            found |= _pairs(text)
    return found


def _pairs(text: str) -> dict[str, Any]:
    """Names and values as the command line of lm_eval itself takes them apart, so that the plan is of the run that it will start.

    Raises:
        ValueError: lm_eval cannot read them, or does it in another place than this package knows.
    """
    try:
        from lm_eval._cli.utils import key_val_to_dict
    except ImportError as error:
        raise ValueError(f"--metadata {text!r}: this lm_eval hides how it reads name=value; give {{\"name\": \"value\"}}") from error
    try:
        return dict(key_val_to_dict(text))
    except ValueError as error:
        raise ValueError(f"--metadata {text!r} is not name=value ({error})") from error


def _tokenizer_of(model_args: str) -> str:
    from lm_eval_inversion.report.reading import model_arguments

    pairs = model_arguments(model_args)
    source = pairs.get("tokenizer") or pairs.get("pretrained")
    if not source:
        raise ValueError(f"--model-args {model_args!r} names no pretrained=FOLDER; add it, or leave the option out for an estimate")
    return source
