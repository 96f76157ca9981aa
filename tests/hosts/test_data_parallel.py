"""Data parallel runs of lm_eval through accelerate: two processes give what one gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def saved(folder):
    (path,) = folder.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    (results,) = folder.rglob("results_*.json")
    return {row["doc"]["id"]: row for row in rows}, json.loads(results.read_text(encoding="utf-8"))["results"]


@pytest.mark.parametrize("task", ["prompt_inversion_ordinary", "prompt_leakage_canary"])
def test_two_processes_give_what_one_gives(chat_model, arguments, tmp_path, task):
    metadata = {"tier": "smoke"} if "leakage" in task else arguments
    limit = ["--limit", "3"]  # not a multiple of two: the harness pads the shorter rank
    command = [
        "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={chat_model},dtype=float32", "--tasks", task,
        "--metadata", *(f"{name}={value}" for name, value in metadata.items()), *limit, "--apply_chat_template", "--device", "cpu",
        "--batch_size", "4", "--gen_kwargs", "temperature=0,max_gen_toks=12", "--log_samples",
    ]  # fmt: skip
    launch = [
        str(Path(sys.executable).parent / "accelerate"), "launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ]  # fmt: skip
    found = {}
    for name, words in (("one", [sys.executable]), ("two", launch)):
        done = subprocess.run(
            [*words, *command, "--output_path", str(tmp_path / name)], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = saved(tmp_path / name)
    (rows, one), (others, two) = found["one"], found["two"]
    assert rows.keys() == others.keys()
    own = min(len(row["resps"]) for row in rows.values())
    # Every process asks the questions without a system prompt once, on its first document.
    assert sum(len(row["resps"]) > own for row in rows.values()) == 1
    assert sum(len(row["resps"]) > own for row in others.values()) == 2
    for key, row in rows.items():
        assert row["resps"][:own] == others[key]["resps"][:own]
        assert row["filtered_resps"][:own] == others[key]["filtered_resps"][:own]
    for metric, value in one[task].items():
        if isinstance(value, float):
            assert two[task][metric] == pytest.approx(value, abs=1e-6), metric
