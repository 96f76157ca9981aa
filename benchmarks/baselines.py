"""The shared inverter beside every baseline, on the same outputs, under the project's own evaluation.

Commands::

    python -m lm_eval_inversion.training.collect --model FOLDER --source v1 --split dev --prompts 50 --shares ordinary16=16 \\
        --temperature 0.7 --message-tokens 64 --defence-share 0 --output dev.jsonl
    python benchmarks/baselines.py dev.jsonl --inverters default nearest central constant words asked:FOLDER t5:runs/t5/final [--limit 20]

The answers are a file of ``training.collect`` (its rows without a system prompt are the null condition), or a finished run of an inversion
task in either host. Prints one Markdown table: means over system prompts with 95 % intervals; ``-`` where an inverter has no likelihood.
Decoys are drawn from all prompts of the shipped split that the prompts are of (else from the file's own); *hard* decoys are the 15 of
them whose sentence embeddings are nearest to the truth. "above swap" is token F1 above that of the same reconstruction with other
prompts: unlike the lift, it does not hang on the texts of the null answers. "ahead" is how much the first inverter's lift exceeds this
one's, prompt by prompt. Bits are each inverter's own: above what it makes of the null answers. Seconds are those of the whole
evaluation, per prompt.
``--curve FILE.png`` also prints and draws the first inverter's bits from 1, 2, 4, ... of the outputs; ``--details N`` all of its metrics,
what it writes for the null answers, and N reconstructions beside the truth.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_inversion import evaluate, load_inverter, load_prompts
from lm_eval_inversion.evaluation import decoys_for, null_condition
from lm_eval_inversion.inverter import Inverter, check_inverter
from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS, Secret
from lm_eval_inversion.outputs import MAX_OUTPUTS, OutputCounts, Outputs, parse_outputs
from lm_eval_inversion.prompts import PROMPT_SETS, SystemPrompt
from lm_eval_inversion.protocol import TASKS, handed_out
from lm_eval_inversion.queries import QuerySet, load_query_set, query_set_names
from lm_eval_inversion.queries.defences import load_defence
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import on_one_line
from lm_eval_inversion.report.reading import Results, Row, read_results
from lm_eval_inversion.report.tables import examples_table, metrics_table
from lm_eval_inversion.report.units import values_of
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.scoring.embedding import embed, embed_many
from lm_eval_inversion.scoring.identification import CANDIDATES, identification_scores
from lm_eval_inversion.scoring.metrics import CURVE_NUMBERS, CURVE_PREFIX
from lm_eval_inversion.scoring.uncertainty import Estimate
from lm_eval_inversion.training.rows import read_pairs, repeated_place

HARD, ABOVE_SWAP = "identification_top1_hard", "token_f1_above_swap"
# Heading -> metric, decimals.
COLUMNS = {
    "token F1": ("token_f1", 3), "lift": ("token_f1_lift", 3), "above swap": (ABOVE_SWAP, 3), "bits": ("bits", 1),
    "top-1": ("identification_top1", 3), "top-1, hard decoys": (HARD, 3),
}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """What a target model answered.

    Attributes:
        prompts: the secrets.
        outputs: one per secret.
        null: of the model without a secret.
        pool: texts that decoys are drawn from.
        secret: what the secrets are.
        seed: chooses the decoys.
    """

    prompts: list[SystemPrompt]
    outputs: list[Outputs]
    null: Outputs
    pool: list[str]
    secret: Secret = "system"
    seed: int = 0


def read_answers(path: Path) -> Answers:
    """Read saved answers of one target.

    Raises:
        ValueError: there are none, or they cannot be inverted (again); the message says why.
    """
    if path.suffix == ".xz" or (path.suffix == ".jsonl" and not path.name.startswith("samples_")):
        return collected_answers(read_pairs(path), str(path))
    found = [results for results in read_results(path) if results.task in TASKS]
    if len(found) != 1:
        names = ", ".join(f"{results.source}" for results in found) or "none"
        raise ValueError(f"{path}: one run of an inversion task is needed, found {names}; give its file")
    return run_answers(found[0])


def collected_answers(rows: Sequence[Mapping[str, Any]], name: str) -> Answers:
    """The answers in rows of ``training.collect``.

    Raises:
        ValueError: no rows with a prompt, none without or none that fits, one twice, both kinds of secrets, or an unknown query.
    """
    prompted = [row for row in rows if row["prompt"] is not None]
    nulls = [row for row in rows if row["prompt"] is None]
    if not prompted or not nulls:
        raise ValueError(
            f"{name}: {len(prompted)} rows with a prompt and {len(nulls)} without; both are needed, as training.collect writes them"
        )
    if (place := repeated_place(rows)) is not None:
        raise ValueError(f"{name} holds place {place} twice: two collectors wrote it at a time; keep one row of each place")
    secrets = {row.get("secret", "system") for row in prompted}
    if len(secrets) > 1:
        raise ValueError(f"{name} holds system prompts and messages of users; give one kind")
    known = shipped_prompts()
    prompts = [known.get(row["prompt"]) or SystemPrompt(f"row-{number}", row["prompt"]) for number, row in enumerate(prompted, 1)]
    asked = dict.fromkeys(query for row in prompted for query, _ in row["answers"])
    # One null answer to each query that was asked, or there would be more null outputs than outputs.
    null: dict[str, str] = {}
    for row in nulls:
        for query, answer in row["answers"]:
            if query in asked:
                null.setdefault(query, answer)
    if not null:
        raise ValueError(f"{name}: its rows without a prompt answer none of the queries that the others were asked; collect them together")
    outputs = [outputs_of(row["answers"]) for row in prompted]
    return Answers(prompts, outputs, outputs_of(list(null.items())), decoy_pool(prompts), secrets.pop())


def outputs_of(answers: Sequence[Sequence[str]]) -> Outputs:
    """Outputs of (query id, answer) pairs, whichever query sets the queries are of.

    Raises:
        ValueError: no set has one of the queries.
    """
    sets = {query.id: (queries.kind, query) for queries in map(load_query_set, query_set_names()) for query in queries.queries}
    if unknown := next((query for query, _ in answers if query not in sets), None):
        raise ValueError(f"query {unknown!r} is of no query set that ships with this version")
    lines: list[str] = []
    counts = OutputCounts()
    for kind in ("message", "list"):
        chosen = [(sets[query][1], answer) for query, answer in answers if sets[query][0] == kind]
        found = parse_outputs([answer for _, answer in chosen], QuerySet("saved", kind, tuple(query for query, _ in chosen)))
        lines += found.lines
        counts += found.counts
    return Outputs(tuple(lines[:MAX_OUTPUTS]), counts)


def run_answers(results: Results) -> Answers:
    """The answers of a finished run, as they left its defence.

    Raises:
        ValueError: the run was redacted, or its files hold no null answers.
    """
    if any(row.redacted for row in results.rows):
        raise ValueError(f"{results.source} was redacted: its answers are gone, so they cannot be inverted")
    if not results.null_answers:
        raise ValueError(f"{results.source} holds no answers without a system prompt; run the task again")
    task = TASKS[results.task]
    queries = load_query_set(task.query_set).first(results.signature.get("num_queries"))
    defence = load_defence(results.signature.get("defence"))
    prompts = [row.prompt for row in results.rows]
    outputs = [handed_out(defence, queries, row.truth, row.answers, results.null_answers) for row in results.rows]
    null = parse_outputs(results.null_answers, queries)
    return Answers(prompts, outputs, null, decoy_pool(prompts), task.secret, int(results.signature.get("decoy_seed") or 0))


def shipped_prompts() -> dict[str, SystemPrompt]:
    """Text -> prompt, of all shipped sets."""
    return {prompt.text: prompt for name in PROMPT_SETS for prompt in load_prompts(name, split=None)}


def decoy_pool(prompts: Sequence[SystemPrompt]) -> list[str]:
    """All texts of the shipped split that holds all the prompts; their own texts where none does."""
    texts = {prompt.text for prompt in prompts}
    for name in PROMPT_SETS:
        for split in ("dev", "test"):
            pool = [prompt.text for prompt in load_prompts(name, split=split)]
            if texts <= set(pool):
                return pool
    return sorted(texts)


def filling_of(secret: Secret) -> str:
    """The shipped set that fills up decoys of a kind of secret: that of the tasks."""
    return next(task.prompts for task in TASKS.values() if task.secret == secret)


def hard_decoys(truths: Sequence[str], pool: Sequence[str], filling: str = "v1") -> list[list[str]]:
    """Per truth, the other texts whose sentence embeddings are nearest to its own; filled up from a shipped set like all decoys."""
    texts = set(pool)
    if len(texts) < CANDIDATES:
        texts |= {prompt.text for prompt in load_prompts(filling, split=None)}
    known = sorted(texts)
    vectors = embed_many(known)
    found = []
    for truth in truths:
        order = (vectors @ embed(truth)).argsort()[::-1]
        found.append([known[index] for index in order if known[index] != truth][: CANDIDATES - 1])
    return found


def rows_of(inverter: Inverter, answers: Answers, curve: bool = False) -> list[Row]:
    """Everything that is measured of one inverter, one row per prompt; with ``curve``, bits from fewer outputs too."""
    texts = [prompt.text for prompt in answers.prompts]
    decoys = dict(zip(answers.pool, decoys_for(answers.pool, answers.seed, filling_of(answers.secret))))
    found = evaluate(
        answers.prompts, answers.outputs, answers.null, inverter, decoys=[decoys[text] for text in texts], seed=answers.seed,
        curve=curve,
    )  # fmt: skip
    rows = [Row(prompt, result.reconstruction or "", dict(result.metrics)) for prompt, result in zip(answers.prompts, found.results)]
    for row in rows:
        if "token_f1" in row.metrics:
            row.metrics[ABOVE_SWAP] = row.metrics["token_f1"] - row.metrics["token_f1_swap"]
    if inverter.has_likelihood() or inverter.has_word_evidence():
        null = null_condition(inverter, answers.null.lines)
        for row, outputs, hard in zip(rows, answers.outputs, hard_decoys(texts, answers.pool, filling_of(answers.secret))):
            if outputs.usable:
                candidates = [row.truth, *hard]
                row.metrics[HARD] = identification_scores(null.evidence(outputs.lines, candidates))["top1"]
    return rows


def shown(metric: str, values: Sequence[float], decimals: int) -> str:
    """Mean and interval as a cell of the table."""
    # The same kind of interval as of the metric that is like it: hard decoys are yes or no, too.
    found = metric_estimate({HARD: "identification_top1", ABOVE_SWAP: "token_f1_lift"}.get(metric, metric), values)
    if not found.number:
        return "-"
    return with_interval(found, decimals)


def with_interval(found: Estimate, decimals: int) -> str:
    """Mean and interval, of few prompts the mean alone."""
    interval = f" ({found.low:.{decimals}f} to {found.high:.{decimals}f})" if not math.isnan(found.low) else ""
    return f"{found.mean:.{decimals}f}{interval}"


def ahead(first: Sequence[Row], other: Sequence[Row]) -> str:
    """How much the lift of the first inverter exceeds another's, paired by prompt."""
    pairs = zip(values_of(first, "token_f1_lift"), values_of(other, "token_f1_lift"))
    return shown("token_f1_lift", [one - two for one, two in pairs], 3)


def table_row(name: str, rows: Sequence[Row], first: Sequence[Row], seconds: float) -> str:
    """One line of the table."""
    cells = [shown(metric, values_of(rows, metric), decimals) for metric, decimals in COLUMNS.values()]
    return f"| {name} | {' | '.join(cells)} | {'-' if rows is first else ahead(first, rows)} | {seconds:.2f} |"


def curve_points(rows: Sequence[Row], total: int) -> list[tuple[int, Estimate]]:
    """(number of outputs, bits), of the numbers that were measured and of all outputs."""
    metrics = {number: f"{CURVE_PREFIX}{number}" for number in CURVE_NUMBERS if number < total} | {total: "bits"}
    found = ((number, metric_estimate(metric, values_of(rows, metric))) for number, metric in metrics.items())
    return [(number, estimate) for number, estimate in found if estimate.number]


def draw_curve(points: Sequence[tuple[int, Estimate]], path: Path) -> None:
    """Bits by number of outputs, with intervals, as an image."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    numbers = [number for number, _ in points]
    axes.plot(numbers, [found.mean for _, found in points], marker="o", color="#1f5fa8")
    axes.fill_between(numbers, [found.low for _, found in points], [found.high for _, found in points], color="#1f5fa8", alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("outputs read")
    axes.set_ylabel("bits above the null, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def details(rows: Sequence[Row], null_reconstructions: Sequence[str], examples: int) -> str:
    """All metrics of one inverter, what it writes for the null answers, and some of its reconstructions, as Markdown."""
    results = Results("baselines", "by hand", list(rows))
    written = "\n".join(f"- {on_one_line(visible(text))}" for text in null_reconstructions)
    parts = [metrics_table(results), f"Written for the null answers:\n\n{written}", examples_table(results, examples)]
    return "\n\n".join(parts)


def limited(answers: Answers, limit: int | None) -> Answers:
    """The first prompts only; decoys stay those of all."""
    return Answers(answers.prompts[:limit], answers.outputs[:limit], answers.null, answers.pool, answers.secret, answers.seed)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="JSONL file of training.collect, or samples_*.jsonl, .eval or folder of a finished run")
    named = ["default", "nearest", "central", "constant", "words"]
    parser.add_argument("--inverters", nargs="+", default=named, help="the first is compared to")
    parser.add_argument("--limit", type=int, help="only the first so many prompts")
    parser.add_argument("--curve", type=Path, metavar="FILE.png", help="of the first inverter: bits by number of outputs")
    parser.add_argument("--details", type=int, default=0, metavar="N", help="of the first inverter: all metrics and N reconstructions")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--output", type=Path, help="JSONL file for reconstructions and metrics of every prompt")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit {options.limit}: give at least 1")
    try:
        answers = limited(read_answers(options.answers), options.limit)
        for name in options.inverters:
            check_inverter(name, options.device, options.dtype)
    except ValueError as error:
        parser.error(str(error))
    embed("")  # loads the sentence embeddings before any clock runs
    print(f"{len(answers.prompts)} prompts, {len(answers.null.lines)} null outputs\n")
    print(f"| inverter | {' | '.join(COLUMNS)} | ahead | seconds |\n|---|{'---:|' * (len(COLUMNS) + 2)}", flush=True)
    first: list[Row] = []
    stream = options.output.open("w", encoding="utf-8") if options.output else None
    for name in options.inverters:
        inverter = load_inverter(name, device=options.device, dtype=options.dtype).of(answers.secret)
        began = time.perf_counter()
        rows = rows_of(inverter, answers, bool(options.curve) and not first)
        seconds = (time.perf_counter() - began) / len(rows)
        if not first:
            first, null_reconstructions = rows, null_condition(inverter, answers.null.lines).reconstructions(DEFAULT_MAX_NEW_TOKENS)
        print(table_row(f"{name} {inverter.hash}", rows, first, seconds), flush=True)
        if stream:
            for row in rows:
                line = {"inverter": name, "id": row.prompt_id, "prompt": row.truth, "reconstruction": row.reconstruction, **row.metrics}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()
        del inverter
        gc.collect()
    if stream:
        stream.close()
    if options.curve:
        points = curve_points(first, max(len(outputs.lines) for outputs in answers.outputs))
        print("\n| outputs | bits |\n|---:|---|")
        for number, found in points:
            print(f"| {number} | {with_interval(found, 1)} |")
        draw_curve(points, options.curve)
    if options.details:
        print("\n" + details(first, null_reconstructions, options.details))


if __name__ == "__main__":
    main()
