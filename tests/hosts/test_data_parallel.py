"""Data parallel runs of lm_eval: two processes give what one gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The harness starts several processes where it sees several GPUs; here it is told of two, and both processes compute on the CPU.
TWO_PROCESSES = "import runpy, torch; torch.cuda.device_count = lambda: 2; runpy.run_module('own_tasks', run_name='__main__')"


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
        "run", "--model", "hf", "--model_args", f"pretrained={chat_model},dtype=float32", "--tasks", task,
        "--metadata", *(f"{name}={value}" for name, value in metadata.items()), *limit, "--apply_chat_template", "--device", "cpu",
        "--batch_size", "4", "--gen_kwargs", "temperature=0,max_gen_toks=12", "--log_samples",
    ]  # fmt: skip
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    tests = str(Path(__file__).parents[1])
    found = {}
    for name, words in (("one", [sys.executable, "-m", "own_tasks"]), ("two", launch)):
        done = subprocess.run(
            [*words, *command, "--output_path", str(tmp_path / name)], capture_output=True, text=True, check=False, timeout=300,
            env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": tests},
        )  # fmt: skip
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
        # Standard errors of metrics that not every document has are the harness's own bootstrap then.
        if isinstance(value, float) and "stderr" not in metric:
            assert two[task][metric] == pytest.approx(value, abs=1e-6), metric
