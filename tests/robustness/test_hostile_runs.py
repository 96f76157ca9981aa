"""Hostile prompts and answers through both hosts, into their result files and out again."""

import itertools
import json
import re

import pytest

from lm_eval_inversion.report import attacks_table, examples_table, metrics_table, read_results

from .hostile import EVERYTHING, HALVES, INJECTIONS, LONG, TEMPLATES
from .running import finished, lm_eval_arguments, run_lm_eval, samples

HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # what a terminal obeys, or cannot show
TASKS = ("prompt_inversion_ordinary", "prompt_leakage_attacks")
PROMPTS = [
    f"You are the keeper of {text} and of nothing else."
    for text in (TEMPLATES[0], TEMPLATES[2], TEMPLATES[4], INJECTIONS[1], "👩‍👩‍👧", "\x1b[31mred", "\u202eevil")
]
# Half characters come from chat servers; a local tokenizer cannot write them.
ANSWERS = [*EVERYTHING, *(f"Cut in half: {half}" for half in HALVES), LONG["words"][:50_000]]
# What of them a file can hold.
WHOLE_ANSWERS = {answer.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for answer in ANSWERS}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "hostile.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in PROMPTS))
    return path


def check_results(folder):
    """What the report reads and shows of the runs."""
    found = read_results(folder)
    assert sorted(results.task for results in found) == sorted(TASKS)
    for results in found:
        assert {row.truth for row in results.rows} == set(PROMPTS)
        assert {answer for row in results.rows for answer in row.answers} <= WHOLE_ANSWERS
        examples = examples_table(results, len(PROMPTS))
        assert len(examples.split("\n")) == 2 + len(PROMPTS)
        assert not HIDDEN.search(examples + metrics_table(results) + attacks_table(results))


def test_through_lm_eval(chat_model, tiny_inverter_folder, warm, prompts, tmp_path):
    metadata = [f"inverter={tiny_inverter_folder}", "num_queries=2", "tier=smoke", f"prompts={prompts}"]
    arguments = lm_eval_arguments(chat_model, tmp_path / "results", tasks=",".join(TASKS), metadata=metadata, limit=len(PROMPTS))
    process = warm.Process(target=run_lm_eval, args=(arguments, str(tmp_path / "log.txt")), kwargs={"answers": ANSWERS})
    process.start()
    finished(process, tmp_path / "log.txt")
    found = samples(tmp_path / "results")
    assert set(found) == set(TASKS)
    for rows in found.values():
        parsed = [json.loads(row) for row in rows]
        assert [row["target"] for row in sorted(parsed, key=lambda row: row["doc_id"])] == PROMPTS
        for row in parsed:
            assert row["target"] in row["arguments"]["gen_args_0"]["arg_0"]
            assert {answer[0] for answer in row["resps"]} <= WHOLE_ANSWERS
    check_results(tmp_path / "results")


def test_through_inspect(tiny_inverter_folder, prompts, tmp_path):
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    said = itertools.cycle(ANSWERS)

    def answer(*_):
        output = ModelOutput.from_content("mockllm/model", next(said))
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else Inspect counts, with a tokenizer from the network
        return output

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    logs = []
    for task, settings in zip(TASKS, ({"inverter": str(tiny_inverter_folder), "num_queries": 2}, {"tier": "smoke"})):
        settings["prompts"] = str(prompts)
        logs += inspect_eval(f"lm_eval_inversion/{task}", model=model, task_args=settings, log_dir=str(tmp_path), display="none")
    for log in logs:
        assert log.status == "success", log.error
        assert {sample.target for sample in log.samples} == set(PROMPTS)
    check_results(tmp_path)
