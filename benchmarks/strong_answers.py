"""Does the inverter carry over to a strong model? Scores it on answers written by hand in that manner.

    python benchmarks/strong_answers.py [--inverter default] [--examples 5]

The prompts, their answers and one null conversation lie in ``benchmarks/data/strong_dev.jsonl``; none was trained on. Decoys
come from benchmark v1. Printed: the table of scores with 95 % intervals, for the list answers and for the ordinary ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lm_eval_inversion import evaluate, load_inverter
from lm_eval_inversion.outputs import Outputs, parse_outputs
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.queries import QuerySet, load_query_set
from lm_eval_inversion.report import examples_table, metrics_table
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.training.collect import read_pairs

DATA = Path(__file__).parent / "data" / "strong_dev.jsonl"


def outputs_of(answers: list[list[str]], queries: QuerySet) -> Outputs:
    """The outputs of those queries of a set that were answered, in the set's order."""
    answered = dict(map(tuple, answers))
    kept = tuple(query for query in queries.queries if query.id in answered)
    return parse_outputs([answered[query.id] for query in kept], QuerySet(queries.name, queries.kind, kept))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inverter", default="default")
    parser.add_argument("--examples", type=int, default=9)
    options = parser.parse_args()
    rows = read_pairs(DATA)
    prompted = [row for row in rows if row["prompt"] is not None]
    (null,) = [row for row in rows if row["prompt"] is None]
    prompts = [SystemPrompt(f"strong-{number:02}", "strong", row["prompt"]) for number, row in enumerate(prompted, 1)]
    inverter = load_inverter(options.inverter)
    for name in ("intro4x16", "ordinary16"):
        queries = load_query_set(name)
        found = evaluate(
            prompts, [outputs_of(row["answers"], queries) for row in prompted], outputs_of(null["answers"], queries), inverter
        )
        table = [
            Row(result.prompt_id, prompt.text, result.reconstruction or "", result.metrics)
            for prompt, result in zip(prompts, found.results)
        ]
        results = Results(name, "by hand", table)
        print(f"\n## {name}, {len(table)} system prompts, inverter {inverter.hash}\n\n{metrics_table(results)}\n")
        print(f"reconstruction of the null: {found.null_reconstruction}\n")
        print(examples_table(results, options.examples))


if __name__ == "__main__":
    main()
