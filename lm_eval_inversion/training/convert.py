"""Training pairs from runs that exist already: lm_eval's ``--log_samples`` files and Inspect's logs.

Command::

    python -m lm_eval_inversion.training.convert results logs/run.eval --output pairs.jsonl

So anybody can collect from a model of their own with the host that already runs it. A run of an inversion task with ``prompts=FILE``
(``--predict_only`` in lm_eval, ``--no-score`` in Inspect) gives one row per system prompt, in the format of ``training.rows``; the null
conversation is a row with ``"prompt": null``. A run of any other task that lets the model write gives one row for each system prompt
that it was run under: that of ``--system_instruction`` in lm_eval, the system message of each sample in Inspect.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval_inversion.inverter.base import Secret
from lm_eval_inversion.prompts.schema import REDACTED
from lm_eval_inversion.protocol import TASKS
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.queries.conversations import prompt_in_request
from lm_eval_inversion.report.kind import kind_of_log
from lm_eval_inversion.report.reading import is_inspect_log, kind_of_samples, read_facts, result_files, results_file
from lm_eval_inversion.thinking import with_opened_thinking

LEAKAGE_TASKS = "prompt_leakage"  # begin so; answers to attacks quote the prompt, no user's conversation does
OF_ATTACKS = "answers to attacks are no training data; give runs of inversion tasks"


class AttacksError(ValueError):
    """A run is of a leakage task."""


def pairs_from_paths(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of files and folders; runs of leakage tasks in folders are left out, and named on stderr.

    Raises:
        ValueError: see ``pairs_from_file``; or a folder has nothing but runs of leakage tasks.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for path in paths:
        for file in result_files(path):
            try:
                rows += pairs_from_file(file)
            except AttacksError:
                if file == path:  # the user means this one
                    raise
                left_out.append(str(file))
    if left_out and not rows:
        raise ValueError(f"{', '.join(left_out)}: {OF_ATTACKS}")
    if left_out:
        print(f"warning: left out, because answers to attacks are no training data: {', '.join(left_out)}", file=sys.stderr)
    return rows


def pairs_from_file(path: Path) -> list[dict[str, Any]]:
    """The rows of one ``samples_*.jsonl`` or ``.eval`` file.

    Raises:
        AttacksError: the run is of a leakage task.
        ValueError: the file holds nothing to train on, or is not readable; the message names it.
    """
    try:
        return list(_from_inspect(path) if is_inspect_log(path) else _from_lm_eval(path))
    except AttacksError as error:
        raise AttacksError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        # A sentence of this package's own needs no name of a class before it.
        told = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} holds no answers to train on ({told})") from error


def _row(
    prompt: str | None, query_ids: list[str], answers: list[str | None], model: str, temperature: float | None, secret: Secret = "system"
) -> dict[str, Any]:
    if prompt is not None and REDACTED.fullmatch(prompt):
        raise ValueError("the run was redacted: its texts are gone; run the task again without redact=true")
    pairs = [[query, answer] for query, answer in zip(query_ids, answers) if answer]
    row = {"prompt": prompt, "answers": pairs, "model": model, "temperature": temperature}
    return row if secret == "system" or prompt is None else {**row, "secret": secret}


def _from_lm_eval(path: Path) -> Iterator[dict[str, Any]]:
    task = kind_of_samples(path)
    if task.startswith(LEAKAGE_TASKS):
        raise AttacksError(OF_ATTACKS)
    # Not ``splitlines``: answers may hold other line separators, which JSON leaves as they are.
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line]
    if task not in TASKS:
        yield _any_lm_eval_task(path, task, samples)
        return
    query_ids = [query.id for query in load_query_set(TASKS[task].query_set).queries]
    run = results_file(path)
    stripped = run is not None and _host_strips_thinking(read_facts(run))
    for sample in samples:
        settings = [tuple(argument.values()) for argument in sample["arguments"].values()]
        answers = _whole_answers([request for request, *_ in settings], [found[0] for found in sample["resps"]], stripped)
        prompt = sample["doc"]["text"]
        # The null conversation rides behind the first document's own requests, with as many queries.
        own = len(answers) if prompt_in_request(prompt, settings[-1][0]) else len(answers) // 2
        temperature = settings[0][1].get("temperature")
        yield _row(prompt, query_ids, answers[:own], path.parent.name, temperature, TASKS[task].secret)
        if own < len(answers):
            yield _row(None, query_ids, answers[own:], path.parent.name, temperature)


def _host_strips_thinking(facts: dict[str, Any]) -> bool:
    """Whether the harness cut reasoning off before it saved the answers of a run."""
    return "think_end_token" in str(facts["config"].get("model_args"))


def _whole_answers(requests: Sequence[Any], answers: Sequence[str], stripped: bool) -> list[str | None]:
    """Answers behind the think tag that their requests end in; saved runs of this package's tasks hold it already, older ones do not.

    Args:
        stripped: see ``_host_strips_thinking``; then they stay as they are.
    """
    if stripped:
        return list(answers)
    return [
        answer if not answer or answer.startswith("<think>") else with_opened_thinking(str(request), answer)
        for request, answer in zip(requests, answers)
    ]  # fmt: skip


def _any_lm_eval_task(path: Path, task: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    run = results_file(path)
    if run is None:
        raise ValueError(f"results_{path.stem.rpartition('_')[2]}.json is missing beside it; it says what the system prompt was")
    answers = [sample["resps"][0][0] for sample in samples]
    facts = read_facts(run)
    if not all(isinstance(answer, str) for answer in answers):
        raise ValueError("the task compares likelihoods, the model wrote nothing")
    settings = list(samples[0]["arguments"].values())[0] if samples else {}
    temperature = next((value.get("temperature") for value in settings.values() if isinstance(value, dict)), None)
    requests = [next(iter(next(iter(sample["arguments"].values())).values())) for sample in samples]
    whole = _whole_answers(requests, answers, _host_strips_thinking(facts))
    prompt = facts.get("system_instruction") or None
    return _row(prompt, [f"{task}/{sample['doc_id']}" for sample in samples], whole, path.parent.name, temperature)


def _from_inspect(path: Path) -> Iterator[dict[str, Any]]:
    from inspect_ai.log import read_eval_log

    from lm_eval_inversion.adapters.inspect.store import Answers

    log = read_eval_log(str(path))
    task = kind_of_log(log)
    temperature = log.plan.config.temperature
    if task.startswith(LEAKAGE_TASKS):
        raise AttacksError(OF_ATTACKS)
    if task not in TASKS:
        yield from _any_inspect_task(log, task, temperature)
        return
    null_known = False
    for sample in log.samples or []:
        found = sample.store_as(Answers)
        query_ids = [query.id for query in load_query_set(sample.metadata["query_set"]).queries]
        yield _row(sample.metadata["prompt"]["text"], query_ids, list(found.answers), log.eval.model, temperature, TASKS[task].secret)
        if found.null_answers and not null_known:
            null_known = True
            yield _row(None, query_ids, list(found.null_answers), log.eval.model, temperature)


def _any_inspect_task(log: Any, task: str, temperature: float | None) -> Iterator[dict[str, Any]]:
    answers: dict[str | None, list[tuple[str, str | None]]] = {}
    for sample in log.samples or []:
        prompt = "\n\n".join(message.text for message in sample.messages if message.role == "system").strip() or None
        answers.setdefault(prompt, []).append((f"{task}/{sample.id}/{sample.epoch}", sample.output.completion))
    if not any(answer for found in answers.values() for _, answer in found):
        raise ValueError("no sample has an answer")
    for prompt, found in answers.items():
        yield _row(prompt, [query for query, _ in found], [answer for _, answer in found], log.eval.model, temperature)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.convert", description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, help="files or folders that the hosts wrote")
    parser.add_argument("--output", required=True, type=Path, help="JSONL file, written anew")
    options = parser.parse_args(arguments)
    if options.output.is_dir():
        parser.error(f"--output {options.output} is a folder; give a file")
    try:
        rows = pairs_from_paths(options.results)
    except ValueError as error:
        parser.error(str(error))
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        parser.error(f"--output {options.output} cannot be written ({error}); give another file")
    print(f"{options.output}: {len(rows)} rows, {sum(len(row['answers']) for row in rows)} answers")


if __name__ == "__main__":
    main()
