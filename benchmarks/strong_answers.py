"""Does the inverter carry over to a strong model? Scores it on answers written by hand in that manner.

    python benchmarks/strong_answers.py [--inverter default] [--examples 17] [--curve lists.png]

The 17 prompts, their answers and one null conversation lie in ``benchmarks/data/strong_dev.jsonl`` and ``strong_dev_2.jsonl``; none was
trained on. Decoys come from benchmark v1. Printed, for the list answers and for the ordinary ones: token F1 lift, bits, identification
among 16, and the share of reconstructions that name the assistant's role, each with its 95 % interval; then all other scores, and
truths beside reconstructions. ``--curve`` also draws bits from 1, 2, 4, ... of the list lines.

A role is named where one of the words of ``ROLE_WORDS`` stands in the reconstruction. Its floors are the same words looked for in the
reconstructions of the null, and in the reconstructions of the other prompts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines import curve_points, draw_curve, with_interval

from lm_eval_inversion import evaluate, load_inverter
from lm_eval_inversion.evaluation import Evaluation
from lm_eval_inversion.outputs import Outputs, parse_outputs
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.queries import QuerySet, load_query_set
from lm_eval_inversion.report import examples_table, metrics_table
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import on_one_line, shown, shown_interval
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.attributes import mentions
from lm_eval_inversion.scoring.uncertainty import mean_of_known, wilson
from lm_eval_inversion.training.rows import read_pairs

DATA = tuple(Path(__file__).parent / "data" / name for name in ("strong_dev.jsonl", "strong_dev_2.jsonl"))
HEADLINES = {"token_f1_lift": "token F1 lift", "bits": "bits", "identification_top1": "identification top-1 of 16"}
# The "role" of a row -> words that name it.
ROLE_WORDS = {
    "laundry care assistant": ("laundry", "laundries", "washing", "dry cleaner", "dry cleaning", "stain", "stains", "fabric care"),
    "medieval market trader": ("spice", "spices", "merchant", "trader", "market stall", "medieval", "pedlar", "peddler"),
    "SQL helper": ("sql", "postgresql", "postgres", "database", "databases"),
    "grief companion": ("grief", "grieving", "mourning", "bereaved", "bereavement", "pet loss", "lost a pet", "lost their pet"),
    "astronomy guide": ("astronomy", "astronomer", "stargazing", "night sky", "stars", "constellations", "planetarium"),
    "negotiation coach": ("negotiation", "negotiations", "negotiator", "negotiating", "negotiate"),
    "crossword setter": ("crossword", "crosswords", "cryptic"),
    "night nurse line for new parents": ("midwife", "midwives", "baby", "babies", "newborn", "newborns", "infant", "infants"),
    "spoiler-free film adviser": ("film", "films", "movie", "movies", "cinema"),
    "telegraph clerk": ("telegraph", "telegraphist", "telegram", "telegrams"),
    "incident assistant for Kubernetes": ("kubernetes", "incident", "incidents", "cluster", "clusters", "on-call"),
    "Georgian grandmother cook": ("georgian", "grandmother", "grandma", "khachapuri", "cooking", "cook"),
    "funeral home enquiries": ("funeral", "funerals", "undertaker", "undertakers", "burial", "burials"),
    "game narrator": ("narrator", "text adventure", "adventure game", "game master", "dungeon master", "role-playing game"),
    "farm advice by SMS": ("farm", "farmer", "farmers", "farming", "smallholders", "crops", "agricultural"),
    "statistics tutor": ("statistics", "statistician"),
    "exotic vet reception": ("vet", "vets", "veterinary", "veterinarian", "exotic pet", "exotic pets", "animal clinic", "reptiles"),
}


def outputs_of(answers: list[list[str]], queries: QuerySet) -> Outputs:
    """The outputs of those queries of a set that were answered, in the set's order."""
    answered = dict(map(tuple, answers))
    kept = tuple(query for query in queries.queries if query.id in answered)
    return parse_outputs([answered[query.id] for query in kept], QuerySet(queries.name, queries.kind, kept))


def names_role(text: str | None, role: str) -> bool:
    """Whether a reconstruction names a role of ``ROLE_WORDS``."""
    return any(mentions(text or "", word) for word in ROLE_WORDS[role])


def headlines(found: Evaluation, roles: Sequence[str]) -> str:
    """The scores that the inverter is judged by, as a Markdown table."""
    lines = ["| | mean | 95 % interval | floor |", "|---|---:|---:|---|"]
    values = {metric: [result.metrics.get(metric, math.nan) for result in found.results] for metric in (*HEADLINES, "bits_spread_null")}
    floors = {
        "token_f1_lift": "0",
        "bits": f"{mean_of_known(values['bits_spread_null']):.1f} (control)",
        "identification_top1": "1/16",
    }
    for metric, words in HEADLINES.items():
        value = metric_estimate(metric, values[metric])
        if value.number:
            interval = shown_interval(metric, value.low, value.high)
            lines.append(f"| {words} | {shown(metric, value.mean)} | {interval} | {floors[metric]} |")
    texts = [result.reconstruction for result in found.results]
    named = sum(names_role(text, role) for text, role in zip(texts, roles))
    low, high = wilson(named, len(roles))
    nulls = [names_role(text, role) for text in found.null_reconstructions for role in roles]
    others = [names_role(text, role) for i, text in enumerate(texts) for j, role in enumerate(roles) if i != j]
    lines.append(
        f"| role named ({named} of {len(roles)}) | {named / len(roles):.3f} | {low:.3f} to {high:.3f} "
        f"| null {sum(nulls) / len(nulls):.3f}, other prompts {sum(others) / len(others):.3f} |"
    )
    return "\n".join(lines)


def read_rows(paths: Sequence[Path] = DATA) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows with a system prompt, and the one without.

    Raises:
        ValueError: there is not exactly one null conversation, or a role has no words.
    """
    rows = [row for path in paths for row in read_pairs(path)]
    prompted = [row for row in rows if row["prompt"] is not None]
    nulls = [row for row in rows if row["prompt"] is None]
    if len(nulls) != 1:
        raise ValueError(f"{', '.join(map(str, paths))}: {len(nulls)} rows without a system prompt; exactly one is needed")
    if unknown := sorted({row["role"] for row in prompted} - set(ROLE_WORDS)):
        raise ValueError(f"ROLE_WORDS has no words for {', '.join(unknown)}")
    return prompted, nulls[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inverter", default="default")
    parser.add_argument("--examples", type=int, default=17)
    parser.add_argument("--curve", type=Path, help="image to write: bits by number of list lines")
    options = parser.parse_args()
    prompted, null = read_rows()
    prompts = [SystemPrompt(id=f"strong-{number:02}", text=row["prompt"], category="strong") for number, row in enumerate(prompted, 1)]
    inverter = load_inverter(options.inverter)
    for name in ("intro4x16", "ordinary16"):
        queries = load_query_set(name)
        outputs = [outputs_of(row["answers"], queries) for row in prompted]
        curve = options.curve is not None and queries.kind == "list"
        found = evaluate(prompts, outputs, outputs_of(null["answers"], queries), inverter, curve=curve)
        table = [Row(prompt, result.reconstruction or "", result.metrics) for prompt, result in zip(prompts, found.results)]
        results = Results(name, "by hand", table)
        print(f"\n## {name}, {len(table)} system prompts, inverter {inverter.hash}\n\n{headlines(found, [r['role'] for r in prompted])}\n")
        shown_nulls = " | ".join(on_one_line(visible(text)) for text in found.null_reconstructions)
        print(f"{metrics_table(results)}\n\nreconstructions of the null: {shown_nulls}\n")
        print(examples_table(results, options.examples))
        if curve:
            points = curve_points(table, max(len(lines.lines) for lines in outputs))
            print("\n| list lines | bits |\n|---:|---|")
            print("\n".join(f"| {number} | {with_interval(bits, 1)} |" for number, bits in points))
            draw_curve(points, options.curve)


if __name__ == "__main__":
    main()
