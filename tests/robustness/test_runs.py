"""Whole runs through both hosts: without a network, in fresh processes, killed and started again, two at once.

One undisturbed run is the measure of all others. Answers are greedy: only then can an interrupted run be held to the same numbers, since
no host stores its random state.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from . import running
from .running import cached_answers, finished, lm_eval_arguments, no_file_beyond, numbers, run_lm_eval, samples, says, wait_for

CLOSED = Path(__file__).with_name("closed_network.py")
TASKS = "prompt_inversion_ordinary,prompt_leakage_attacks"


@pytest.fixture(scope="session")
def metadata(tiny_inverter_folder):
    return [f"inverter={tiny_inverter_folder}", "num_queries=2", "tier=smoke"]


def environment(**changes):
    """The environment of the tests, with nothing in it that would keep a library off the network by itself."""
    kept = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[1]), **changes}


def run(arguments, record, prepare=None, **changes):
    command = [sys.executable, str(CLOSED), str(record), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(**changes), timeout=running.PATIENCE, preexec_fn=prepare
    )  # fmt: skip


@pytest.fixture(scope="session")
def undisturbed(chat_model, metadata, tmp_path_factory):
    """Folder of a run of lm_eval in a fresh process whose network is closed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    arguments = lm_eval_arguments(chat_model, folder / "results", tasks=TASKS, metadata=metadata, limit=1)
    done = run(["lm_eval", *arguments], folder / "network.txt", PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def same(folder, undisturbed):
    """Samples to the byte, and numbers."""
    expected = samples(undisturbed / "results")
    assert set(expected) == set(TASKS.split(","))
    assert all(expected.values())
    assert samples(folder) == expected
    assert json.dumps(numbers(folder)) == json.dumps(numbers(undisturbed / "results"))


def test_lm_eval_does_not_reach_for_the_network(undisturbed):
    record = undisturbed / "network.txt"
    assert not record.exists(), record.read_text()


def test_an_attempt_to_reach_it_would_be_recorded(tmp_path):
    (tmp_path / "reaching.py").write_text(
        "import urllib.request\ntry:\n    urllib.request.urlopen('http://127.0.0.1:9/')\nexcept OSError:\n    print('swallowed')\n"
    )
    done = run(["reaching"], tmp_path / "network.txt", PYTHONPATH=str(tmp_path))
    assert done.stdout == "swallowed\n"
    assert "the network" not in done.stdout
    assert "reaching.py" in (tmp_path / "network.txt").read_text()


def test_inspect_does_not_reach_for_the_network(chat_model, metadata, tmp_path):
    arguments = [
        "eval",
        *[f"lm_eval_inversion/{task}" for task in TASKS.split(",")],
        "--model",
        "hf/local",
        "--limit",
        "1",
        "--max-tokens",
        "12",
    ]
    arguments += ["--display", "plain", "--log-dir", str(tmp_path / "logs"), "--max-connections", "8"]
    for value in (f"model_path={chat_model}", f"tokenizer_path={chat_model}", "device=cpu", "do_sample=false"):
        arguments += ["-M", value]
    for value in metadata:
        arguments += ["-T", value]
    done = run(["inspect_ai", *arguments], tmp_path / "network.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "network.txt").exists(), (tmp_path / "network.txt").read_text()
    from inspect_ai.log import list_eval_logs, read_eval_log

    logs = [read_eval_log(log) for log in list_eval_logs(str(tmp_path / "logs"))]
    assert sorted(log.eval.task.rpartition("/")[2] for log in logs) == sorted(TASKS.split(","))
    assert all(log.status == "success" for log in logs)


def test_another_fresh_process_gives_the_same_bytes_even_without_a_home(chat_model, metadata, undisturbed, tmp_path):
    """Another seed of Python's hashes, and a home folder that nothing can be written to."""
    (tmp_path / "home").write_text("a file, so that no folder can be made in it")
    home = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CACHE_HOME")}
    arguments = lm_eval_arguments(chat_model, tmp_path / "results", tasks=TASKS, metadata=metadata, limit=1)
    done = run(["own_tasks", *arguments], tmp_path / "network.txt", PYTHONHASHSEED="2", **home)
    assert done.returncode == 0, done.stdout + done.stderr
    same(tmp_path / "results", undisturbed)


def test_a_full_disk_is_named_and_leaves_earlier_results_intact(chat_model, metadata, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed / "results", tmp_path / "results")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = lm_eval_arguments(chat_model, folder, tasks=TASKS, metadata=metadata, limit=1)
    done = run(["own_tasks", *arguments], tmp_path / "network.txt", lambda: no_file_beyond(min(map(len, before.values())) // 2))
    assert "File too large" in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    # The numbers are not lost either: the table is printed.
    assert done.stdout.count("|prompt_") >= len(TASKS.split(","))


def test_a_killed_run_goes_on_also_twice_at_once(chat_model, metadata, undisturbed, warm, tmp_path):
    """Killed between two batches; then two runs share what its cache holds."""
    cache = tmp_path / "cache"
    arguments = lm_eval_arguments(chat_model, tmp_path / "killed", tasks=TASKS, metadata=metadata, limit=1)
    arguments += ["--use_cache", str(cache)]
    killed = warm.Process(target=run_lm_eval, args=(arguments, str(tmp_path / "killed.txt"), 3))
    killed.start()
    wait_for(lambda: says(tmp_path / "killed.txt", "standing still") and cached_answers(cache) > 0, "no answer was cached")
    killed.kill()
    killed.join()
    kept = cached_answers(cache)
    assert not samples(tmp_path / "killed")

    runs = []
    for name in ("first", "second"):
        again = [word.replace(str(tmp_path / "killed"), str(tmp_path / name)) for word in arguments]
        runs.append((name, warm.Process(target=run_lm_eval, args=(again, str(tmp_path / f"{name}.txt")))))
        runs[-1][1].start()
    for name, process in runs:
        finished(process, tmp_path / f"{name}.txt")
        same(tmp_path / name, undisturbed)
    asked = sum(len(json.loads(line)["arguments"]) for lines in samples(tmp_path / "first").values() for line in lines)
    assert 0 < kept < cached_answers(cache) <= asked


def test_the_batch_size_does_not_move_a_reconstruction(tiny_inverter):
    """In float32, prompts alone or eight together; also their likelihoods."""
    sets = [[f"I am baker number {number}.", *["Ask me about rye!"] * (number % 3)] for number in range(10)] + [[]]
    alone = tiny_inverter.invert(sets, max_new_tokens=24, batch_size=1)
    assert tiny_inverter.invert(sets, max_new_tokens=24, batch_size=8) == alone
    assert len(set(alone)) > 3
