"""The verb ``rerank``: what ranking by the target's likelihood was worth and what it cost, as a table."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from lm_eval_inversion.arguments import positive, positive_whole
from lm_eval_inversion.report.estimates import metric_estimate
from lm_eval_inversion.report.numbers import markdown_table, shown, shown_interval
from lm_eval_inversion.report.reading import Results, progress_bar, read_all
from lm_eval_inversion.report.rerun import back_end_and_name, place_of
from lm_eval_inversion.report.units import count_prompts
from lm_eval_inversion.report.visible import visible
from lm_eval_inversion.report.writing import open_file
from lm_eval_inversion.reranking import CANDIDATES, TEMPERATURE, Reranked, asked_as, prepare, require_same_role, rerank

if TYPE_CHECKING:
    from lm_eval_inversion.confidence import Confidence


def choices(rows: Sequence[Reranked]) -> dict[str, list[float]]:
    """Token F1 of every way to choose among the candidates, one value per secret: the mean where a run asked about it several times.

    Epochs of one secret are alike; as values of their own they would make intervals too narrow.
    """
    ways: dict[str, Callable[[Reranked], float]] = {
        "greedy": lambda row: row.token_f1[0],
        "mean candidate": lambda row: sum(row.token_f1) / len(row.token_f1),
        "most agreed with": lambda row: row.token_f1[row.ranking.chosen_by_agreement],
        "inverter's likelihood": lambda row: row.token_f1[row.ranking.chosen_by_inverter],
        "target's likelihood": lambda row: row.token_f1[row.ranking.chosen],
        "best (needs the secret)": lambda row: max(row.token_f1),
    }
    by_secret: dict[str, list[Reranked]] = {}
    for row in rows:
        by_secret.setdefault(row.truth, []).append(row)
    return {name: [sum(map(value, own)) / len(own) for own in by_secret.values()] for name, value in ways.items()}


def rerank_table(rows: Sequence[Reranked]) -> str:
    """What choosing was worth, what it cost, and whether the confidence tells good reconstructions from bad ones, as Markdown."""
    cells = []
    values = choices(rows)
    for name, own in values.items():
        mean = metric_estimate("token_f1", own)
        # A difference of two shares, with the range of the lift.
        gain = metric_estimate("token_f1_lift", [value - greedy for value, greedy in zip(own, values["greedy"])])
        gained = (shown("token_f1_lift", gain.mean, "+"), shown_interval("token_f1_lift", gain.low, gain.high, "+"))
        told = (shown("token_f1", mean.mean), shown_interval("token_f1", mean.low, mean.high))
        cells.append((name, *told, *(("", "") if name == "greedy" else gained)))
    number = len(values["greedy"])
    return "\n".join([
        *markdown_table(("reconstruction", "token F1", "95 % interval", "gain over greedy", "95 % interval"), range(1, 5), cells),
        "",
        f"Cost per system prompt: {sum(row.target_tokens for row in rows) / number:,.0f} tokens read by the target in "
        f"{sum(row.seconds_target for row in rows) / number:.1f} s; sampling took the inverter "
        f"{sum(row.seconds_sampling for row in rows) / number:.1f} s.",
        confidence_line(rows),
    ])  # fmt: skip


def confidence_line(rows: Sequence[Reranked]) -> str:
    """How well confidence, told without the secrets, finds the reconstructions of these rows whose lift is above their median."""
    from lm_eval_inversion.scoring.auroc import auroc, auroc_interval

    middle = median(row.lift for row in rows)
    above, secrets = [row.lift > middle for row in rows], [row.truth for row in rows]
    fitted = [row.confidence for row in rows if row.confidence is not None]
    calibrated = len(fitted) == len(rows)
    scores = fitted if calibrated else [row.features["agreement"] for row in rows]
    low, high = auroc_interval(scores, above, secrets)
    found = auroc(scores, above)
    value = "unknown: all lie on one side" if math.isnan(found) else f"{shown('auroc', found)} ({shown_interval('auroc', low, high)})"
    what = "Confidence" if calibrated else "No confidence is fitted for this inverter. Agreement of the candidates, which is no probability"
    return f"{what}, for a lift above the median of this run ({shown('token_f1_lift', middle)}): AUROC {value}."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``rerank``."""
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="runs of inversion tasks, all of --model")
    parser.add_argument("--model", required=True, metavar="NAME", help="folder or hub name of the model that answered")
    parser.add_argument("--revision", metavar="R", help="of a hub model")
    parser.add_argument(
        "--no-thinking", action="store_true",
        help="the model was told not to think before it answered (detected automatically if the run recorded enable_thinking=False)",
    )  # fmt: skip
    parser.add_argument("--inverter", metavar="NAME", help="as the task parameter (default: the run's)")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="of the model and the inverter (default auto)")
    parser.add_argument("--candidates", type=positive_whole, default=CANDIDATES, metavar="K", help=f"sampled (default {CANDIDATES})")
    parser.add_argument("--temperature", type=positive, default=TEMPERATURE, metavar="T", help=f"of the draws (default {TEMPERATURE})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    parser.add_argument("--limit", type=positive_whole, metavar="N", help="only so many system prompts of each run")
    parser.add_argument("--confidence", type=Path, metavar="FILE", help="a fit of your own, of training.confidence")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write a line of JSON per system prompt")


def run(options: argparse.Namespace) -> int:
    """Rerank, print the tables; 0.

    Raises:
        ValueError: see ``check_models``, ``rerank`` and ``Target.load``.
        FileNotFoundError: the fit does not exist.
    """
    from lm_eval_inversion.confidence import SHIPPED, load_confidence
    from lm_eval_inversion.target import Target

    found = read_all(options.results)
    check_models(found, options.model)
    for results in found:  # before the model is loaded
        prepare(results, options.inverter, options.device, options.limit)
    confidence = load_confidence(options.confidence or SHIPPED) if options.confidence or SHIPPED.is_file() else None
    target = Target.load(options.model, options.revision, options.device, thinking=not options.no_thinking, needs_template=False)
    for results in found:  # before a file is written that may hold an earlier ranking
        require_same_role(results, asked_as(results, target))
    with open_file(options.output) if options.output else nullcontext() as stream:
        for results in found:
            rows = []
            for row in rerank(
                results, target, inverter=options.inverter, device=options.device, candidates=options.candidates,
                temperature=options.temperature, seed=options.seed, limit=options.limit, confidence=confidence, progress=progress_bar,
            ):  # fmt: skip
                rows.append(row)
                if stream is not None:  # line by line: an interrupt costs one system prompt, not hours
                    stream.write(json.dumps(row.to_dict()) + "\n")
                    stream.flush()
            prompts = count_prompts(results.rows)
            print(_summary(results, rows, options.candidates + 1, min(prompts, options.limit or prompts), confidence))
    if options.output:
        print(f"\nwritten to {options.output}")
    return 0


def check_models(found: Sequence[Results], model: str) -> None:
    """Say on stderr where runs name another model than the one that is to rank them; the same weights may have several names.

    Raises:
        ValueError: the runs name several models, which cannot all be that one.
    """
    names = {place_of(name): name for results in found if (name := back_end_and_name(results)[1])}
    if len(names) > 1:
        raise ValueError(f"one model ranks its own answers, and the runs are of {', '.join(sorted(names.values()))}; give those of one")
    for place, name in names.items():
        if place != place_of(model):
            print(f"warning: the runs are of {visible(name)}, ranked by {visible(model)}: is it the model that answered?", file=sys.stderr)


def _summary(results: Results, rows: Sequence[Reranked], candidates: int, asked: int, confidence: Confidence | None = None) -> str:
    """Heading, table and what a reader must know of it; ``asked`` is the number of system prompts that were to be reranked."""
    reranked = count_prompts(rows)
    lines = [f"\n## {results.task} ({results.host}, {reranked} system prompts, {candidates} candidates each)\n"]
    lines.append(rerank_table(rows) if rows else "No system prompt has usable outputs: nothing to rerank.")
    if reranked < asked:
        lines.append(f"{asked - reranked} system prompts without usable outputs are not in the table: unscored, not safe.")
        if failed := results.errors():
            lines.append(visible(f"Of the run, {failed}."))
    if rows and rows[0].inverter_hash != results.signature.get("inverter_hash", rows[0].inverter_hash):
        lines.append("The run was scored with another inverter; greedy reconstructions are those of this one.")
    if rows and rows[0].inverter_dtype != (dtype := results.signature.get("inverter_dtype", rows[0].inverter_dtype)):
        lines.append(f"The run's inverter computed in inverter_dtype={dtype}, this one in {rows[0].inverter_dtype}.")
    if confidence and rows and rows[0].confidence is not None:
        known = confidence.fitted
        prompts, models = known.get("system_prompts", "some"), ", ".join(known.get("models", {})) or "some model"
        lines.append(
            f"Confidence is the chance of a lift above {shown('token_f1_lift', confidence.threshold)}, as fitted on {prompts} system "
            f"prompts under {models}; of other models it may rank reconstructions well and be a wrong probability."
        )
    return "\n".join(lines)
