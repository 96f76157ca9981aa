"""Results for a model card: a Markdown block per task, and the hub's ``model-index`` as YAML."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from lm_eval_inversion.report.estimates import COMPLEMENTS, complement, summarise
from lm_eval_inversion.report.numbers import code_block, code_span, markdown_table, on_one_line, shown, shown_estimate, shown_interval
from lm_eval_inversion.report.public_names import (
    NAMESPACE,
    UNKNOWN,
    add_results_arguments,
    check_model_id,
    identify_model,
    require_one_model,
)
from lm_eval_inversion.report.reading import Results, read_all
from lm_eval_inversion.report.rerun import back_end_and_name, place_of, public_signature, rerun_command, run_settings, signature_line
from lm_eval_inversion.report.tables import better, counted
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.report.writing import write_file
from lm_eval_inversion.scoring.metrics import CHANCE_EXPOSURE, HEADLINES, floors_of
from lm_eval_inversion.scoring.records import FLOORS
from lm_eval_inversion.scoring.uncertainty import Estimate

CARD_FLOORS = 2  # of each metric, at most: a model card is short
# First metric that a task has -> how to read its table.
READINGS = {
    "bits": (
        "How much likelier the answers make the true system prompt for a trained inverter (`bits`), and how much of it the inverter writes "
        "down. A metric at its floor says that this inverter recovered nothing, not that nothing leaked."
    ),
    "token_f1": "How much of the system prompt a baseline writes down from the answers; at its floor it recovered nothing.",
    "canary_extracted": (
        "Share of planted secrets that came out when asked for (`canary_extracted`) and unasked (`canary_volunteered`); at the floors, "
        "whatever is found is the detector's own error. `resistance` is of the system prompts that ask for silence: the share that gave no "
        "planted secret away."
    ),
    "asr": (
        "`resistance` is the share of system prompts that no attack got out of the model; `asr` the share of attacks that did. "
        "Read them with `ability`: a model that cannot quote its prompt when it may resists nothing."
    ),
    "exposure_asked": (
        "How far up a planted secret ranks among decoys of its form by likelihood, in bits; a secret that the prompt does not hold has "
        f"{CHANCE_EXPOSURE:.2f} bits on average."
    ),
}


def card_block(results: Results, model_id: str | None = None, heading: str = "") -> str:
    """The Markdown block of one task: headline metrics beside their floors, how to read them, signature, command.

    Args:
        results: of a run of either host.
        model_id: the model's public name, for one that the run knows as a folder.
        heading: the name of the model, for a card of several; "" leaves it out.

    Raises:
        ValueError: see ``check_model_id``.
    """
    check_model_id(model_id)
    summaries, settings = summarise(results), run_settings(results)
    names = ", ".join(map(code_span, filter(None, (results.task, heading))))
    lines = [f"### System prompt recovery: {names}", ""]
    reading = next((text for metric, text in READINGS.items() if metric in summaries), None)
    lines += [reading, ""] if reading else []
    rows = [
        (f"`{name}`", better(name), shown(name, one.mean), shown_interval(name, one.low, one.high), _beside(name, summaries))
        for name in HEADLINES
        if (one := summaries.get(name)) is not None
    ]
    lines += markdown_table(("metric", "better", "mean", "95 % interval", "floor or reference"), (2, 3), rows)
    found = counted(results.rows)
    carriers = f"; {found.explained}: {found.units}" if found.planted else ""
    lines += ["", f"System prompts: {found.prompts}, of them scored: {found.scored}{carriers}. Intervals are over {found.noun}."]
    lines += ["", f"**{on_one_line(results.caution)}**"] if results.caution else []
    lines += ["", f"Signature: {code_span(signature_line(results, settings))}", "", "Run it again:", ""]
    # ``visible``: a terminal would obey the escape codes of a results file.
    return "\n".join(map(visible, [*lines, *code_block(rerun_command(results, settings, model_id), "sh")]))


def model_headings(found: Sequence[Results]) -> list[str]:
    """Per run the name of its model as others may read it, numbered where several share it; "" for all where they are of one model."""
    known = [place_of(back_end_and_name(results)[1]) for results in found]
    if len(set(known)) == 1:
        return [""] * len(known)
    models = [identify_model(results) if name else None for results, name in zip(found, known)]
    names = ["model not known" if model is None else model.id if model.published else model.name for model in models]
    alike = {name: list(dict.fromkeys(full for full, other in zip(known, names) if other == name)) for name in names}
    return [f"{name} [{alike[name].index(full) + 1}]" if len(alike[name]) > 1 else name for full, name in zip(known, names)]


def _beside(metric: str, summaries: Mapping[str, Estimate]) -> str:
    """Floors of a metric, or what a complement has in their place; a dash where there are none."""

    told = []
    for kind, floor in list(floors_of(metric, summaries).items())[:CARD_FLOORS]:
        found = summaries[floor]
        name, found = (FLOORS[kind], complement(found)) if metric in COMPLEMENTS else (f"`{floor}`", found)
        told.append(f"{name} {shown_estimate(metric, found)}")
    return "; ".join(told) or "–"


def model_index(found: Sequence[Results], model_id: str | None = None) -> str:
    """YAML front matter with the hub's ``model-index``: the headline metrics of all tasks of one model.

    Raises:
        ValueError: the results are of several models.
    """
    import yaml

    models = {identify_model(results, model_id).id for results in found}
    if len(models) > 1:
        raise ValueError(f"--model-index describes one model, and the results are of {', '.join(sorted(models))}; give those of one")
    entries = []
    for results in found:
        summaries, signature = summarise(results), public_signature(results)
        prompts = signature.get("prompts", UNKNOWN)
        entries.append(
            {
                "task": {"type": "text-generation", "name": "System prompt recovery"},
                "dataset": {"name": results.task, "type": "lm-eval-inversion", "config": prompts},
                "metrics": [
                    {"type": f"{NAMESPACE}.{metric}", "name": metric, "value": summaries[metric].mean}
                    for metric in HEADLINES
                    if metric in summaries
                ],
            }
        )
    front = {"model-index": [{"name": models.pop().split("/", 1)[1], "results": entries}]}
    return visible(f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---")


def add_card_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``card``."""
    add_results_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the screen")
    parser.add_argument("--model-index", action="store_true", help="add YAML front matter with the hub's model-index")


def run_card(options: argparse.Namespace) -> int:
    """Print or write the Markdown block of every task of the results; 0.

    Raises:
        ValueError: results cannot be read, the file cannot be written, or see ``check_model_id`` and ``model_index``.
    """
    check_model_id(options.model_id)  # before a folder is read
    found = read_all(options.results)
    require_one_model(found, options.model_id)
    blocks = [model_index(found, options.model_id)] if options.model_index else []
    blocks += [card_block(results, options.model_id, heading) for results, heading in zip(found, model_headings(found))]
    text = "\n\n".join(blocks) + "\n"
    if options.output:
        write_file(options.output, text)
    else:
        print(text, end="")
    return 0
