"""How to run a run again: its settings as its own files say, the commands, and the signature that others compare by.

Everything here may be published. Keys are left out, local places stand as FOLDER, addresses as URL, a system message of the host as TEXT,
lm_eval's choice of single prompts, which its files do not tell, as FILE, and of files only the names are told.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lm_eval_inversion.prompts.loading import FILE_TYPES, HUB_PREFIX
from lm_eval_inversion.report.kind import PACKAGE, kind_of_log
from lm_eval_inversion.report.numbers import on_one_line
from lm_eval_inversion.report.reading import (
    SECRET_ARGUMENT,
    Results,
    model_arguments,
    model_of_lm_eval,
    no_results_file,
    read_facts,
    results_file,
)
from lm_eval_inversion.sampling import API_SEED, LIMIT_NAMES, TEMPERATURE
from lm_eval_inversion.scoring.metrics import CURVE_PREFIX
from lm_eval_inversion.signature import MODEL_NAMES
from lm_eval_inversion.tasks import protocol_makers, task_parameters

# What is known of a run beside its samples, and says neither where it ran nor whose machine it was. Hashes are added by their ending.
SIGNATURE_KEYS = (
    "package_version", "task_version", "inverter", "inverter_dtype", "prompts", "queries", "num_queries", "attacks", "tier", "defence",
    "decoys", "canary_seed", "decoy_seed", "system_role", "host", "torch", "transformers", "python",
)  # fmt: skip
PLACELESS = ("revision", "subfolder", "gguf_file", "until", "stop", "stop_seqs")  # whose slashes lead nowhere on a machine
_PLACE = re.compile(r"^(?:/|~|\.{1,2}/)|^\\\\|\\\w{2,}|^[A-Za-z]:[/\\]|/.*/")
# A file of prompts, and behind a slash the splits of its rows.
_PROMPTS_FILE = re.compile(rf"(.*(?:{'|'.join(map(re.escape, FILE_TYPES))}))(?:/(.*))?", re.IGNORECASE | re.DOTALL)
OUTPUT_FOLDERS = {"lm_eval": "results", "inspect": "logs"}  # of the commands
COMMA_LISTS = ("stop_seqs", "fallback_models", "modalities")  # of Inspect; its command line parts them at the commas
JSON_OPTIONS = ("extra_body", "response_schema")  # likewise, in JSON
SWITCHES = ("parallel_tool_calls", "internal_tools", "fail_on_refusal")  # of Inspect; off with "--no-" before their name
# Settings that are known under other names, or say how requests are sent and not how they are answered.
UNCOMPARED = (
    "seed", "max_gen_toks", "do_sample", "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections",
    "adaptive_connections", "cache", "batch",
)  # fmt: skip
# A comment of the shell, for whoever copies the line, and without an apostrophe, which some shells would take for the beginning of a text.
NO_COMMAND = "# This run was made by a self-written task and cannot be given as one command."
API_ENDINGS = ("-chat-completions", "-completions", "-chat")  # of lm_eval's names of back ends
CHAT_BACK_ENDS = ("-chat-completions", "-chat", "litellm")  # endings of those that leave the chat template to the server
# Back ends of lm_eval that take the argument ``seed``, send it or give it their engine, and are not reached by the option ``--seed``.
SEED_SENDERS = (
    "local-completions", "local-chat-completions", "openai-completions", "openai-chat-completions", "azure-openai-chat-completions",
    "litellm", "litellm-chat", "litellm-chat-completions", "vllm", "vllm-vlm",
)  # fmt: skip


@dataclass(frozen=True)
class RunSettings:
    """How a run was started, as its own files say.

    Attributes:
        model: the host's name of the back end, or of the model.
        arguments: of the model.
        generation: temperature, top_p, top_k, max_tokens, as far as they are known.
        given: generation settings that the user gave, in the host's own names.
        limit: system prompts, or a share of them below 1, where not all were used; a range of them in Inspect's words ("11-20").
        epochs: how often each system prompt was run, where more than once.
        seeds: in the words of the host's option; "" where unknown, and where the back end takes the argument ``seed`` in its place.
        sent_seed: that lm_eval's back end sends with its requests or gives its engine, whatever the option says; "" of all others.
        moment: when it began, in seconds since 1970.
        sample_ids: of the system prompts that were chosen by their ids, as Inspect's option has them; "" where none were.
        shuffle: the seed of another order of the system prompts, or "true" for any order, as Inspect's option has it; "" for their own.
        own_address: whether Inspect was told at which address the model is.
        curve: whether the scorer was to measure bits from fewer outputs too, as far as Inspect's log says.
        picked: whether lm_eval was told by ``--samples`` which system prompts to ask under; its files do not say which.
    """

    model: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, float] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    limit: float | str | None = None
    epochs: int | None = None
    seeds: str = ""
    sent_seed: str = ""
    moment: float | None = None
    sample_ids: str = ""
    shuffle: str = ""
    own_address: bool = False
    curve: bool = False
    picked: bool = False

    @property
    def seed(self) -> str:
        """What answers were drawn with; "" where unknown."""
        return self.sent_seed or self.seeds


def run_settings(results: Results) -> RunSettings:
    """Read the settings from the run's own files; empty where they are missing, as for results that no file holds.

    Raises:
        ValueError: the results file beside lm_eval's samples is not what its name says.
    """
    if results.source is None or not results.source.is_file():
        return RunSettings()
    return _inspect_settings(results.source) if results.host == "inspect" else _lm_eval_settings(results.source, results.task, results.kind)


def _lm_eval_settings(source: Path, task: str, kind: str) -> RunSettings:
    path = results_file(source)
    if path is None:
        return RunSettings()
    found = read_facts(path)
    try:
        config, own = found["config"], found["configs"][task]
        back_end, arguments = model_of_lm_eval({"model": None, "model_args": "", **config}, own.get("metadata"))
        generation = dict(own.get("generation_kwargs") or {})
        counts = (found.get("n-samples") or {}).get(task) or {}
    except (ValueError, KeyError, TypeError) as error:
        raise no_results_file(path, error) from error
    sends = back_end in SEED_SENDERS
    sent = next(seed for seed in (generation.get("seed"), arguments.get("seed"), API_SEED) if seed is not None)
    seeds = [None if sends else config.get(name) for name in ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")]
    return RunSettings(
        model=back_end,
        arguments=arguments,
        generation=_generation(generation, generation.get("max_gen_toks"), generation.get("do_sample")),
        given=_given(model_arguments(config.get("gen_kwargs")), generation, kind),
        limit=config.get("limit"),
        seeds=",".join(map(str, seeds)) if set(seeds) != {None} else "",
        sent_seed=str(sent) if sends else "",
        moment=float(found["date"]) if found.get("date") else None,
        picked=config.get("limit") is None and counts.get("effective", 0) < counts.get("original", 0),
    )


def _given(told: Mapping[str, Any], used: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What must be told to have the same answers again: lm_eval's ``--gen_kwargs``, and what a user's own task file says otherwise.

    Args:
        told: of the command line.
        used: by the run.
        kind: the task of this package that it is.
    """
    make = protocol_makers().get(kind)
    if make is None:
        return dict(told)
    known = {"until": [], "temperature": TEMPERATURE, "max_gen_toks": make(kind).max_tokens, **told}
    known["do_sample"] = used.get("do_sample")  # it follows the temperature, unless it was told
    if "do_sample" in told and not used.get("do_sample"):
        known["temperature"] = used.get("temperature")  # which follows it then
    if not told.keys().isdisjoint(LIMIT_NAMES):
        known["max_gen_toks"] = used.get("max_gen_toks")  # the same under the harness's name
    typed = {name: used.get(name, value) if isinstance(value, str) else value for name, value in told.items()}
    return {**typed, **{name: value for name, value in used.items() if name not in told and value != known.get(name)}}


def _inspect_settings(source: Path) -> RunSettings:
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(source), header_only=True)
    used = log.plan.config.model_dump(exclude_none=True)
    arguments = dict(log.eval.model_args or {})
    own = log.eval.model_generate_config.model_dump(exclude_none=True)
    make = protocol_makers().get(kind_of_log(log))
    # What the task has of its own goes over what the model brings along: somebody gave it where what was used is not the task's.
    usual = {"temperature": TEMPERATURE, "max_tokens": make(kind_of_log(log)).max_tokens} if make else {}
    given = {name: value for name, value in {**own, **used}.items() if name != "seed" and (name not in usual or value != usual[name])}
    config = log.eval.config
    # The log counts from 0 and ends before the last, the option counts from 1 and ends with it.
    limit = f"{config.limit[0] + 1}-{config.limit[1]}" if isinstance(config.limit, tuple) else config.limit
    return RunSettings(
        model=log.eval.model,
        arguments=arguments,
        generation=_generation(used, used.get("max_tokens"), arguments.get("do_sample")),
        given=given,
        limit=limit,
        epochs=config.epochs if (config.epochs or 1) > 1 else None,
        seeds=str({**own, **used}.get("seed", "")),
        moment=datetime.fromisoformat(log.eval.created).timestamp(),
        sample_ids=_sample_ids(config.sample_id),
        shuffle=_shuffle(config.sample_shuffle),
        own_address=bool(log.eval.model_base_url),
        curve=any(str((scorer.options or {}).get("curve")).lower() == "true" for scorer in log.eval.scorers or []),
    )


def _sample_ids(found: Any) -> str:
    """Ids of a log of Inspect as its option has them: patterns between commas, so that any character must stand for a comma in an id."""
    ids = found if isinstance(found, list) else [] if found is None else [found]
    return ",".join(str(_placeless("sample_id", one)).replace(",", "?") for one in ids)


def _shuffle(found: bool | int | None) -> str:
    """The order of a log of Inspect as its option has it, which takes a plain 1 for yes, that is for no seed."""
    if not found:
        return ""
    return "true" if found is True else "01" if found == 1 else str(found)


def public_arguments(arguments: Mapping[str, Any], model_id: str | None = None) -> dict[str, str]:
    """A model's arguments that were set, as a command line has them, without keys and places.

    Args:
        arguments: of ``RunSettings``.
        model_id: the model's public name, for one that the run knows as a folder.
    """
    return {
        name: _argument(name, value, model_id)
        for name, value in arguments.items()
        if value is not None and not SECRET_ARGUMENT.search(name)
    }


def public_generation(settings: RunSettings) -> dict[str, str]:
    """How answers were made, as far as it is known, without keys and places; neither seeds nor how requests were sent."""
    known = {name: f"{value:g}" for name, value in settings.generation.items()}
    for name, value in settings.given.items():
        if name == "system_message":
            known[name] = f"TEXT of {len(str(value))} characters"
        elif name not in known and name not in UNCOMPARED and not SECRET_ARGUMENT.search(name):
            known[name] = _argument(name, value)
    return known


def _generation(settings: Mapping[str, Any], max_tokens: Any, do_sample: Any) -> dict[str, float]:
    known = {name: settings[name] for name in ("temperature", "top_p", "top_k") if isinstance(settings.get(name), (int, float))}
    if do_sample is False:
        known["temperature"] = 0.0
    return {**known, "max_tokens": int(max_tokens)} if max_tokens else known


def back_end_and_name(results: Results) -> tuple[str, str]:
    """What ran the model, and the model, from either host's words."""
    first, _, second = results.model.partition(" ")
    if results.host == "lm_eval":
        return first, second
    provider, _, rest = first.partition("/")
    return provider, second or rest


def is_local(name: str) -> bool:
    """Whether a model's name is a place on somebody's machine: a path, or a folder that is there ("demo/model" looks like a hub name)."""
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1 or os.path.exists(name)


def place_of(name: str) -> str:
    """What tells a model from others: its folder, however that was written, or the name of one that is no folder. Not to be shown."""
    return os.path.realpath(name) if is_local(name) else name


def public_signature(results: Results) -> dict[str, str]:
    """What another run must share to be comparable, as text, without anything that names a machine or a key."""
    found = {}
    for key, value in results.signature.items():
        if value is not None and (key in SIGNATURE_KEYS or key.endswith("_hash")):
            found[key] = _shareable(value, key) if isinstance(value, str) else json.dumps(value)
    return found


def _shareable(value: str, key: str = "") -> str:
    """File names instead of paths; the names of shipped sets ("v1/test") stay as they are.

    Args:
        value: of a signature or a parameter.
        key: its name; behind the path of "prompts" in a signature stands a split, which is no part of the file's name.
    """
    if value.startswith(HUB_PREFIX) or ("\\" not in value and not value.startswith(("/", ".", "~")) and value.count("/") <= 1):
        return value
    prefix, place = value.split(":", 1) if re.match(r"^[a-z]\w+:", value) else ("", value)
    *_, name = re.split(r"[/\\]", source_and_split(place)[0] if key == "prompts" else place)
    return f"{prefix}:{name}" if prefix else name


def source_and_split(signed: str) -> tuple[str, str]:
    """Source and split of the prompts that a signature names ("v1/dev"). Rows of a file may name any split, even one with slashes."""
    if not signed.startswith(HUB_PREFIX) and (file := _PROMPTS_FILE.fullmatch(signed)):
        return file[1], file[2] or ""
    source, _, split = signed.rpartition("/")
    return source, split


def signature_line(results: Results, settings: RunSettings) -> str:
    """What another run must share to be comparable, on one line for readers."""
    known = public_signature(results)

    def named(key: str) -> str:
        return " ".join(filter(None, (known.get(key), known.get(f"{key}_hash"))))

    parts = {
        "lm-eval-inversion": known.get("package_version"),
        results.task: known.get("task_version"),
        "inverter": named("inverter"),
        "inverter dtype": known.get("inverter_dtype"),
        "prompts": named("prompts"),
        "queries": named("queries"),
        "num queries": known.get("num_queries"),
        "attacks": named("attacks"),
        "canaries": named("canaries"),
        "tier": known.get("tier"),
        "defence": known.get("defence"),
        "system role": known.get("system_role"),
        "seed": settings.seed,
        "decoy seed": known.get("decoy_seed"),
        "canary seed": known.get("canary_seed"),
        "host": known.get("host", results.host),
    }
    return " | ".join(f"{name} {value}" for name, value in parts.items() if value)


def run_lines(results: Results) -> list[str]:
    """What a table is of, and what a reader of it must know first: model, signature, file, caution."""
    lines = [
        f"- model: {results.model or 'not known'}",
        f"- signature: {signature_line(results, run_settings(results))}",
        f"- file: {results.source or 'not known'}",
    ]
    return list(map(on_one_line, [*lines, *([f"- caution: {results.caution}"] if results.caution else [])]))


def install_command(results: Results) -> str:
    """``pip install`` of the versions that the run had; those that it does not say are left open."""
    known = public_signature(results)
    host, _, host_version = known.get("host", "").partition(" ")
    versions = {"lm-eval-inversion": known.get("package_version"), host: host_version}
    # A local version label ("+cpu") is not on every index.
    versions |= {name: known.get(name, "").partition("+")[0] for name in ("torch", "transformers")}
    pinned = [f"{name}=={version}" for name, version in versions.items() if name and version]
    return shlex.join(["pip", "install", *([] if versions["lm-eval-inversion"] else ["lm-eval-inversion"]), *pinned])


def rerun_command(results: Results, settings: RunSettings, model_id: str | None = None) -> str:
    """The host's command for the same run; local places stand as FOLDER, addresses as URL, and nothing secret stands at all.

    Of a run of Inspect by a task that is not known to be of this package a comment in its place: the file that holds the task is not here.
    Settings that no option of Inspect can hold are named in a comment behind the command.

    Args:
        results: of a run of either host.
        settings: from ``run_settings``; what they do not say of the model is taken from ``results.model``.
        model_id: the model's public name, for one that the run knows as a folder.
    """
    task = results.kind
    if results.host == "inspect" and task not in protocol_makers():
        return NO_COMMAND
    parameters = [f"{name}={value}" for name, value in _task_parameters(results, settings.curve).items()]
    arguments = public_arguments(settings.arguments or _model_arguments(results), model_id)
    given = {name: value for name, value in settings.given.items() if not SECRET_ARGUMENT.search(name)}
    limit = ["--limit", settings.limit if isinstance(settings.limit, str) else f"{settings.limit:g}"] if settings.limit else []
    if results.host == "lm_eval":
        words = ["lm_eval", "run", "--model", str(_placeless("", settings.model or back_end_and_name(results)[0] or "hf"))]
        words += ["--model_args", _lm_eval_pairs(arguments or {"pretrained": model_id or "MODEL"}, settings.arguments)]
        words += ["--apply_chat_template", "--tasks", task]
        words += ["--metadata", *parameters] if parameters else []
        words += ["--gen_kwargs", _lm_eval_pairs({name: _argument(name, value) for name, value in given.items()}, given)] if given else []
        words += ["--seed", settings.seeds] if settings.seeds else []
        words += ["--samples", "FILE"] if settings.picked else []
        return shlex.join([*words, *limit, "--log_samples", "--output_path", OUTPUT_FOLDERS["lm_eval"]])
    model = _without_place(settings.model or results.model.partition(" ")[0]) or model_id or "MODEL"
    words = ["inspect", "eval", f"{PACKAGE}/{task}", "--model", model]
    words += ["--model-base-url", "URL"] if settings.own_address else []
    words += [word for name, value in arguments.items() for word in ("-M", f"{name}={value}")]
    words += [word for parameter in parameters for word in ("-T", parameter)]
    without = [name for name, value in given.items() if _has_no_option(name, value)]
    words += [word for name, value in given.items() if name not in without for word in _inspect_option(name, value)]
    words += ["--seed", settings.seeds] if settings.seeds else []
    words += ["--epochs", str(settings.epochs)] if settings.epochs else []
    words += ["--sample-id", settings.sample_ids] if settings.sample_ids else []
    words += ["--sample-shuffle", settings.shuffle] if settings.shuffle else []
    words += [*limit, "--log-dir", OUTPUT_FOLDERS["inspect"]]
    untold = [name for name in without if name not in UNCOMPARED]
    return shlex.join(words) + (f"  # and {', '.join(untold)}, which no option can hold: give a --generate-config" if untold else "")


def _has_no_option(name: str, value: Any) -> bool:
    """Whether a setting of generation cannot be given on Inspect's command line: a mapping, or a list of more than plain words."""
    if name in COMMA_LISTS and isinstance(value, list):
        return not all(isinstance(one, str) and one and "," not in one and _placeless(name, one) == one for one in value)
    return isinstance(value, (dict, list)) and name not in ("logit_bias", *JSON_OPTIONS)


def _inspect_option(name: str, value: Any) -> list[str]:
    """A setting of generation as Inspect's command line has it."""
    option = name.replace("_", "-")
    if name in COMMA_LISTS:
        return [f"--{option}", ",".join(_argument(name, one) for one in value)]
    if name == "logit_bias":
        return [f"--{option}", ",".join(f"{token}={bias:g}" for token, bias in value.items())]
    if name == "logprobs":  # there is no word for no
        return [f"--{option}"] if value else []
    if name in SWITCHES:
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", "TEXT" if name == "system_message" else _argument(name, value)]


def report_command(results: Results) -> str:
    """The command that makes a page of what ``rerun_command`` writes."""
    return shlex.join(["lm-eval-inversion", "report", OUTPUT_FOLDERS.get(results.host, "logs"), "-o", "report.html"])


def _model_arguments(results: Results) -> dict[str, str]:
    """The model's arguments as far as its name tells them, for runs whose files do not."""
    back_end, name = back_end_and_name(results)
    if results.host == "lm_eval":
        return {"model" if back_end.endswith(API_ENDINGS) else "pretrained": name} if name else {}
    return {"model_path": name} if " " in results.model else {}


def _without_place(model: str) -> str:
    """Inspect's name of a model, without the folder of a local one ("hf//srv/model")."""
    provider, _, name = model.partition("/")
    return f"{provider}/FOLDER" if name.startswith(("/", ".", "~")) or "\\" in name else model


def _lm_eval_pairs(told: Mapping[str, str], given: Mapping[str, Any]) -> str:
    """Arguments as lm_eval reads them: ``a=1,b=2``, or one JSON object where one of them is a mapping or a list, which pairs cannot hold.

    Args:
        told: what may be published, as texts.
        given: the same arguments as the run had them.
    """
    if any(isinstance(given.get(name), (dict, list)) for name in told):
        typed = (dict, list, bool, int, float)
        return json.dumps({name: json.loads(text) if isinstance(given.get(name), typed) else text for name, text in told.items()})
    return ",".join(f"{name}={value}" for name, value in told.items())


def _argument(name: str, value: Any, model_id: str | None = None) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(_placeless(name, value))
    if model_id and name == "pretrained" and is_local(str(value)):
        return model_id
    return str(value).lower() if isinstance(value, bool) else str(_placeless(name, value))


def _placeless(name: str, value: Any) -> Any:
    """An argument's value without keys, places and addresses, however deep they stand."""
    if isinstance(value, dict):
        return {inner: _placeless(str(inner), found) for inner, found in value.items() if not SECRET_ARGUMENT.search(str(inner))}
    if isinstance(value, list):
        return [_placeless(name, found) for found in value]
    if not isinstance(value, str):
        return value
    if "://" in value or name.endswith("url"):
        return "URL"
    if name in PLACELESS and not value.startswith(("/", "~")):
        return value
    # Of other arguments a plain word is a setting, even where a file of that name lies about.
    local = is_local(value) if name in MODEL_NAMES else _PLACE.search(value) is not None
    return "FOLDER" if local else value


def _task_parameters(results: Results, curve: bool) -> dict[str, str]:
    """The task's parameters that were not left at their defaults, as a command gives them.

    Args:
        results: of a run of either host.
        curve: whether bits from fewer outputs were asked for. It moves no number, so that no signature of Inspect has it; where nothing
            else tells it, the rows do.
    """
    if results.kind not in protocol_makers():
        return {}
    found = changed_parameters(results)
    measured = curve or any(name.startswith(CURVE_PREFIX) for row in results.rows for name in row.metrics)
    if measured and "curve" in task_parameters(results.kind):
        found["curve"] = "true"
    # No parameter of the measurement: run again without it, private prompts would stand in the files.
    return {**found, "redact": "true"} if str(results.signature.get("redact")).lower() == "true" else found


def changed_parameters(results: Results) -> dict[str, str]:
    """The task's parameters that were not left at their defaults, as far as a run's signature has them, without places."""
    make = protocol_makers().get(results.kind)
    if make is None:
        return {}
    parameters = task_parameters(results.kind)
    usual = {**parameters, **make(results.kind).data_signature()}
    known = results.signature
    found: dict[str, str] = {}
    for name in parameters:
        value = known.get(name)
        if value is None or value == usual[name]:
            continue
        if name == "prompts":
            (source, split), (default_source, default_split) = source_and_split(str(value)), source_and_split(str(usual[name]))
            if source != default_source:
                found["prompts"] = _shareable(source)
            # A file is read whole: the splits of its rows are no parameter that somebody gave.
            if split != default_split and not source.lower().endswith(FILE_TYPES):
                found["split"] = split
        else:
            found.setdefault(name, _shareable(value) if isinstance(value, str) else json.dumps(value))
    return found
