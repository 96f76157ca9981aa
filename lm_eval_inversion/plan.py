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
import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from lm_eval_inversion.arguments import positive, positive_whole
from lm_eval_inversion.prices import Prices, read_prices
from lm_eval_inversion.scoring.identification import CANDIDATES
from lm_eval_inversion.tasks import protocol_makers, task_parameters
from lm_eval_inversion.token_counts import CHARACTERS_PER_TOKEN, CharacterCounter, Counts, ModelCounter, add_counts, count
from lm_eval_inversion.workload import workload


def expand_tasks(names: Sequence[str]) -> list[str]:
    """Tasks in the order given, groups replaced by what they hold.

    Args:
        names: as lm_eval takes them: tasks, groups and patterns, also several between commas; those that are repeated count once.

    Raises:
        ValueError: a name is neither a task nor a group, a pattern fits none, or a task comes from two of the names, which lm_eval refuses.
    """
    known, groups = protocol_makers(), _groups()
    chosen: dict[str, str] = {}  # task -> the name that it came from

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in groups and name not in path:
            for member in groups[name]:
                add(member, (*path, name))
        elif name in known:
            source = (*path, name)[0]
            if (other := chosen.setdefault(name, source)) != source:
                of_patterns = "" if source in given and other in given else ": give names in place of patterns, which fit groups too"
                raise ValueError(
                    f"task {name!r} comes from both {other!r} and {source!r}, and lm_eval refuses a task that it finds twice; leave one of "
                    f"the two out{of_patterns}"
                )
        else:
            origin = f" (of group {path[-1]})" if path else ""
            raise ValueError(
                f"task {name!r}{origin} is unknown to plan; known: {', '.join([*known, *groups])}; of a task of your own give the one that "
                "its file includes, with the file's metadata as --metadata and its max_gen_toks as --max-tokens"
            )

    given = dict.fromkeys(part for name in names for part in name.split(","))
    for name in dict.fromkeys(found for part in given for found in fnmatch.filter(sorted([*known, *groups]), part) or [part]):
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
                f"The inverter reads these outputs where you run the task, and then the {CANDIDATES} candidates of every prompt; minutes "
                "are without it (10 to 25 seconds a prompt, depending on the CPU core)."
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
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks or groups, named as for lm_eval's --tasks")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model-args", nargs="+", action="append", metavar="pretrained=FOLDER", help="as given to lm_eval; only the tokenizer is read"
    )  # fmt: skip
    source.add_argument("--tokenizer", metavar="FOLDER", help="a folder with the model's tokenizer (default: estimate as characters / 4)")
    parser.add_argument("--metadata", nargs="+", action="append", default=[], metavar="name=value", help="the tasks' parameters")
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
        parameters=_merged(options.metadata, "--metadata"),
        tokenizer=options.tokenizer if options.model_args is None else _tokenizer_of(options.model_args),
        max_tokens=options.max_tokens,
        speeds=Speeds(options.tokens_per_second, options.prefill_tokens_per_second),
        prices=read_prices(options.prices) if options.prices else None,
        typical_from=options.typical_from,
    )
    print(plan_table(plan) if options.format == "text" else json.dumps(plan.to_dict(), indent=2, ensure_ascii=False))
    return 0


def _merged(repeated: Sequence[Sequence[str]], option: str) -> dict[str, Any]:
    """What an option that may be repeated is given in all; the later counts, as in lm_eval."""
    return {name: value for given in repeated for name, value in _parameters(given, option).items()}


def _parameters(given: Sequence[str], option: str) -> dict[str, Any]:
    """What one option is given, as lm_eval reads it: ``name=value``, also between commas, or one JSON object and nothing else.

    Raises:
        ValueError: something is neither, or stands beside a JSON object.
    """
    found: dict[str, Any] = {}
    for place, text in enumerate(given):
        if text.startswith("{"):
            if others := " ".join((*given[:place], *given[place + 1 :])):
                raise ValueError(f"{option} {text!r}: lm_eval reads a JSON object alone, and drops what follows it; put {others} into it")
            try:
                found |= json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{option} {text!r} is no JSON object ({error}); put names and texts into double quotes") from error
        else:
            found |= _pairs(text, option)
    return found


def _pairs(text: str, option: str) -> dict[str, Any]:
    """Names and values as the command line of lm_eval itself takes them apart, so that the plan is of the run that it will start.

    Raises:
        ValueError: lm_eval cannot read them, or does it in another place than this package knows.
    """
    try:
        from lm_eval._cli.utils import key_val_to_dict
    except ImportError as error:
        raise ValueError(f"{option} {text!r}: this lm_eval hides how it reads name=value; give {{\"name\": \"value\"}}") from error
    try:
        found = dict(key_val_to_dict(text))
    except ValueError as error:
        raise ValueError(f"{option} {text!r} is not name=value ({error})") from error
    if not found or "" in found:
        raise ValueError(f"{option} {text!r} is not name=value")
    return found


def _tokenizer_of(model_args: Sequence[Sequence[str]]) -> str:
    """The folder that model arguments name."""
    pairs = _merged(model_args, "--model-args")
    source = pairs.get("tokenizer") or pairs.get("pretrained")
    if not source:
        told = " ".join(text for given in model_args for text in given)
        raise ValueError(f"--model-args {told!r} names no pretrained=FOLDER; add it, or leave the option out for an estimate")
    return str(source)
