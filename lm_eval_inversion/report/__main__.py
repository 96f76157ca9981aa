"""``python -m lm_eval_inversion.report RESULTS [--examples 8]``: tables of a run of either host, with 95 % intervals."""

from __future__ import annotations

import argparse
from pathlib import Path

from lm_eval_inversion.report import attacks_table, examples_table, metrics_table, read_results


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.report", description="Tables of a run of either host.")
    parser.add_argument("results", type=Path, help="samples_*.jsonl of lm_eval, an .eval log of Inspect, or a folder with such files")
    parser.add_argument("--examples", type=int, default=3, help="truths to show beside their reconstructions (default 3)")
    options = parser.parse_args(arguments)
    try:
        found = read_results(options.results)
    except ValueError as error:
        parser.error(str(error))
    for results in found:
        print(f"\n## {results.task} ({results.host}, {len(results.rows)} system prompts)\n\n{metrics_table(results)}")
        if any(row.requests for row in results.rows):
            print(f"\n{attacks_table(results)}")
        if options.examples:
            print(f"\n{examples_table(results, options.examples)}")


if __name__ == "__main__":
    main()
