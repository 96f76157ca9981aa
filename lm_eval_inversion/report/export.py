"""Results for others' programs to read: JSON in the Every Eval Ever schema.

Example: ``export results -o eee --model-id org/name --organisation "Example Lab" --relationship first_party`` writes
``eee/data/lm_eval_inversion/org/name/<uuid>.json``, one file per task of a run, each checked against the schema before it is written.
The schema (https://github.com/evaleval/every_eval_ever, MIT) lies in ``schemas`` as published in every-eval-ever 0.3.0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from lm_eval_inversion.report.estimates import summarise
from lm_eval_inversion.report.public_names import (
    NAMESPACE,
    UNKNOWN,
    add_results_arguments,
    check_model_id,
    identify_model,
    require_one_model,
)
from lm_eval_inversion.report.reading import Results, read_all
from lm_eval_inversion.report.rerun import public_signature, rerun_command, run_settings
from lm_eval_inversion.report.tables import counted, unscored
from lm_eval_inversion.report.units import count_prompts
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.report.writing import write_file
from lm_eval_inversion.scoring.metrics import OF_THE_RUN, RECORDS, is_floor, meaning_of
from lm_eval_inversion.scoring.uncertainty import LEVEL, RESAMPLES, Estimate
from lm_eval_inversion.signature import LOCAL_ARGUMENTS

SCHEMA_FILE = "every_eval_ever-0.3.0.schema.json"
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")
AVAILABILITIES = ("open_weights", "closed_weights", "unknown")


def evaluation_record(
    results: Results,
    *,
    model_id: str | None = None,
    organisation: str = UNKNOWN,
    relationship: str = "other",
    availability: str = UNKNOWN,
    schema_version: str = "0.3.0",
    now: float | None = None,
) -> dict[str, Any]:
    """One task of one run as an object of the Every Eval Ever schema. No text of a system prompt or of an answer is in it.

    Args:
        results: of a run of either host.
        model_id: "developer/name"; None takes what the run says.
        organisation: who ran the evaluation.
        relationship: theirs to the model's developer, one of ``RELATIONSHIPS``.
        availability: of the model's weights, one of ``AVAILABILITIES``.
        schema_version: written into the record.
        now: seconds since 1970 that the record is dated with; None reads the clock.

    Raises:
        ValueError: the model is not known, or a score lies outside its range.
    """
    settings, model, signature = run_settings(results), identify_model(results, model_id), public_signature(results)
    summaries = summarise(results)
    # Of settings too: one log can be scored with several inverters, and every score is a record of its own.
    variant = hashlib.sha256(json.dumps([signature, settings.generation, settings.limit], sort_keys=True).encode()).hexdigest()[:12]
    began = f"{settings.moment:.6f}".rstrip("0").rstrip(".") if settings.moment is not None else str(results.signature.get("date", ""))
    evaluation_id = f"{NAMESPACE}.{results.task}/{model.id}/{began}-{variant}"
    host, _, version = signature.get("host", "").partition(" ")
    timestamp = {"evaluation_timestamp": began} if settings.moment is not None else {}
    command = rerun_command(results, settings, model.id if model.published else None)
    engine = {"name": model.engine, **({"version": signature[model.engine]} if model.engine in signature else {})}
    return {
        "schema_version": schema_version,
        "evaluation_id": evaluation_id,
        **timestamp,
        "retrieved_timestamp": str(time.time() if now is None else now),
        "source_metadata": {
            "source_name": "lm-eval-inversion",
            "source_type": "evaluation_run",
            "source_organization_name": organisation,
            "evaluator_relationship": relationship,
        },
        "eval_library": {
            "name": host or results.host,
            "version": version or UNKNOWN,
            "additional_details": {"plugin": "lm-eval-inversion", **signature},
        },
        "model_info": {
            "name": model.name,
            "id": model.id,
            "developer": model.developer,
            **({"inference_platform": model.platform} if model.platform else {}),
            **({"inference_engine": engine} if model.engine else {}),
            "additional_details": {"deployment_type": model.deployment, "model_availability": availability},
        },
        "evaluation_results": [
            {
                "evaluation_result_id": f"{evaluation_id}#{metric}",
                "evaluation_name": f"{NAMESPACE}.{results.task}",
                **timestamp,
                "source_data": _source_data(results, signature),
                "metric_config": _metric_config(metric, counted(results.rows).planted),
                "score_details": _score_details(metric, summary, results),
                "generation_config": {"generation_args": {**settings.generation, "execution_command": command}},
            }
            for metric, summary in summaries.items()
        ],
    }


def _source_data(results: Results, signature: Mapping[str, str]) -> dict[str, Any]:

    details = {key: value for key, value in signature.items() if key in {"prompts_hash", "queries_hash", "attacks_hash", "canaries_hash"}}
    unfinished = {"unfinished": results.unfinished} if results.unfinished else {}
    return {
        "dataset_name": f"lm-eval-inversion system prompts {signature.get('prompts', UNKNOWN)}",
        "source_type": "other",
        "additional_details": {"system_prompts": str(count_prompts(results.rows)), **details, **unfinished},
    }


def _metric_config(metric: str, planted: bool) -> dict[str, Any]:
    scale = RECORDS[metric].scale
    return {
        "evaluation_description": meaning_of(metric, planted),
        # Never a global id, even for BLEU: elsewhere a higher BLEU is good news, here it means that a secret was read.
        "metric_id": f"{NAMESPACE}.{metric}",
        "metric_name": metric,
        "metric_unit": scale.unit,
        "lower_is_better": not RECORDS[metric].higher_is_better,
        "score_type": "continuous",
        "min_score": _bound(scale.low),
        "max_score": _bound(scale.high),
        "additional_details": {"role": "floor" if is_floor(metric) else "score"},
    }


def _bound(value: float) -> float | str:
    """Infinity is no JSON number; the schema takes the word."""
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _score_details(metric: str, summary: Estimate, results: Results) -> dict[str, Any]:

    scale = RECORDS[metric].scale
    # sacrebleu gives equal texts a hair more than 100, and so does float32 with a cosine.
    if not scale.low <= scale.held(summary.mean) <= scale.high:
        raise ValueError(f"{metric} is {summary.mean}, outside its range from {scale.low} to {scale.high}: the results are damaged")
    details = {"score": scale.held(summary.mean), "details": {"unscored_system_prompts": str(unscored(results.rows, metric))}}
    if metric in OF_THE_RUN:
        return details
    uncertainty: dict[str, Any] = {"num_samples": summary.number}
    if math.isfinite(summary.stderr):
        uncertainty["standard_error"] = {"value": summary.stderr, "method": "analytic"}
    if math.isfinite(summary.low):
        method = "wilson" if summary.wilson else f"studentised bootstrap over {counted(results.rows).noun}"
        uncertainty["confidence_interval"] = {
            "lower": scale.held(summary.low), "upper": scale.held(summary.high), "confidence_level": LEVEL, "method": method,
        }  # fmt: skip
        if not summary.wilson:
            uncertainty["num_bootstrap_samples"] = RESAMPLES
    return {**details, "uncertainty": uncertainty}


def load_schema(path: Path | None = None) -> dict[str, Any]:
    """The shipped schema, or one that the user points to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON schema with a version.
    """
    if path is None:
        text = files("lm_eval_inversion").joinpath("report", "schemas", SCHEMA_FILE).read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(f"schema {path} does not exist ({path.absolute()})")
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"schema {path} line {error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(schema, dict) or not isinstance(schema.get("version"), str):
        raise ValueError(f"schema {path} has no 'version'; give eval.schema.json of every_eval_ever")
    return schema


def check_record(record: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check a record against the schema.

    Raises:
        ValueError: it breaks the schema; the message names the field.
    """
    import jsonschema

    checker = jsonschema.validators.validator_for(schema)(schema)
    error = jsonschema.exceptions.best_match(checker.iter_errors(record))
    if error is not None:
        raise ValueError(f"the record breaks Every Eval Ever {schema.get('version')} at {error.json_path}: {error.message}")


def record_path(folder: Path, record: Mapping[str, Any]) -> Path:
    """Where the datastore wants a record; the same run always has the same name, so that a second export replaces the first."""
    developer, _, name = record["model_info"]["id"].partition("/")
    digest = hashlib.sha256(record["evaluation_id"].encode("utf-8")).digest()
    identifier = uuid.UUID(bytes=digest[:16], version=4)
    parts = (re.sub(r"[^\w.-]", "_", part).rstrip(".") or UNKNOWN for part in (NAMESPACE, developer, name))
    return folder.joinpath("data", *parts, f"{identifier}.json")


def write_records(folder: Path, records: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> list[Path]:
    """Check all records, then write them.

    Raises:
        ValueError: see ``check_record``; then nothing is written.
    """
    for record in records:
        check_record(record, schema)
    paths = [record_path(folder, record) for record in records]
    for path, record in zip(paths, records):
        write_file(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return paths


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``export``."""
    add_results_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder to write data/lm_eval_inversion/… into")
    parser.add_argument("--organisation", "--organization", default=UNKNOWN, metavar="NAME", help="who ran the evaluation")
    parser.add_argument(
        "--relationship", choices=RELATIONSHIPS, default="other",
        help="relationship of whoever ran the evaluation to the model's developer (default: other)",
    )  # fmt: skip
    parser.add_argument(
        "--availability", choices=AVAILABILITIES, default=UNKNOWN, help="whether the model's weights are open (default: unknown)"
    )
    parser.add_argument("--schema", type=Path, metavar="FILE", help="eval.schema.json to use instead of the shipped version")


def run_export(options: argparse.Namespace) -> int:
    """Write one record per task of a run, and print their paths; 0.

    Raises:
        FileNotFoundError: see ``load_schema``.
        ValueError: results cannot be read, or see ``check_model_id``, ``evaluation_record`` and ``check_record``.
    """
    check_model_id(options.model_id)  # before a folder is read
    schema = load_schema(options.schema)
    found = read_all(options.results)
    require_one_model(found, options.model_id)
    records = [
        evaluation_record(
            results,
            model_id=options.model_id,
            organisation=options.organisation,
            relationship=options.relationship,
            availability=options.availability,
            schema_version=schema["version"],
        )
        for results in found
    ]
    for path in write_records(options.output, records, schema):
        print(path)
    missing = [
        option
        for option, unset in (
            ("--model-id", any(record["model_info"]["developer"] == UNKNOWN for record in records)),
            ("--organisation", options.organisation == UNKNOWN),
            ("--availability", options.availability == UNKNOWN),
        )
        if unset
    ]
    if missing:
        print(f"Before you publish: {', '.join(missing)} would replace what now stands as {UNKNOWN!r}.", file=sys.stderr)
    if taken := _taken_for_hub_names(found, records) if options.model_id is None else []:
        told = f"{', '.join(map(visible, taken))} is taken for a name on the hub: if it was a folder, give --model-id."
        print(f"Before you publish: {told}", file=sys.stderr)
    return 0


def _taken_for_hub_names(found: Sequence[Results], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names such as "demo/model" of models that ran on somebody's machine, where the run does not say whether that was a folder there."""
    names = [
        record["model_info"]["id"]
        for results, record in zip(found, records)
        if "inference_engine" in record["model_info"] and LOCAL_ARGUMENTS not in results.signature
    ]
    return list(dict.fromkeys(name for name in names if not name.startswith(f"{UNKNOWN}/")))
