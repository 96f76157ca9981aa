"""Training tools and Inspect: killed, out of disk, or failing in the middle, and started again."""

import json
import random

import pytest

from .running import finished, run_collect, run_train, says, wait_for, with_full_disk


def collecting(model, output):
    return {
        "model": str(model),
        "output": str(output),
        "prompts": 8,
        "seed": 5,
        "batch-prompts": 2,
        "device": "cpu",
        "message-tokens": 6,
        "list-tokens": 6,
    }


@pytest.fixture(scope="module")
def collected(chat_model, warm, tmp_path_factory):
    """What an undisturbed collection writes."""
    folder = tmp_path_factory.mktemp("collected")
    process = warm.Process(target=run_collect, args=(collecting(chat_model, folder / "pairs.jsonl"), str(folder / "log.txt")))
    process.start()
    finished(process, folder / "log.txt")
    content = (folder / "pairs.jsonl").read_bytes()
    assert content.count(b"\n") == 9  # eight system prompts and none
    return content


def test_a_killed_collection_goes_on_to_the_same_bytes(chat_model, warm, collected, tmp_path):
    output = tmp_path / "pairs.jsonl"
    settings = collecting(chat_model, output)
    killed = warm.Process(target=run_collect, args=(settings, str(tmp_path / "killed.txt"), 5))
    killed.start()
    wait_for(lambda: says(tmp_path / "killed.txt", "standing still"), "the collection never came to its fifth batch")
    killed.kill()
    killed.join()
    kept = output.read_bytes()
    assert 0 < len(kept) < len(collected)
    assert collected.startswith(kept)
    output.write_bytes(kept + collected[len(kept) : len(kept) + 30])  # and half a row, as a kill may leave it
    again = warm.Process(target=run_collect, args=(settings, str(tmp_path / "again.txt")))
    again.start()
    finished(again, tmp_path / "again.txt")
    assert output.read_bytes() == collected


def test_a_collection_without_space_says_so_and_loses_nothing(chat_model, warm, collected, tmp_path):
    output = tmp_path / "pairs.jsonl"
    settings = collecting(chat_model, output)
    full = warm.Process(target=with_full_disk, args=("run_collect", len(collected) * 2 // 3, settings, str(tmp_path / "full.txt")))
    full.start()
    full.join(120)
    printed = (tmp_path / "full.txt").read_text()
    assert full.exitcode == 2, printed
    assert "Traceback" not in printed
    assert "error:" in printed
    assert "pairs.jsonl" in printed
    assert b"\n" in output.read_bytes()
    assert collected.startswith(output.read_bytes())
    again = warm.Process(target=run_collect, args=(settings, str(tmp_path / "again.txt")))
    again.start()
    finished(again, tmp_path / "again.txt")
    assert output.read_bytes() == collected


def write_pairs(path, number=120):
    rng = random.Random(0)
    trades = ["baker", "sailor", "judge", "tailor"]
    rows = [
        {"prompt": f"Be a {rng.choice(trades)} number {index}.", "answers": [["hello", f"I am number {index}."]]} for index in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def training(model, pairs, output):
    return [
        "--base", str(model), "--pairs", str(pairs), "--output", str(output), "--minutes", "0", "--steps", "6", "--batch", "4", "--lr",
        "3e-3", "--eval-every", "1000", "--no-bf16", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(chat_model, warm, tmp_path_factory):
    """Pairs, and the folder of an undisturbed training on them."""
    folder = tmp_path_factory.mktemp("trained")
    pairs = write_pairs(folder / "pairs.jsonl")
    process = warm.Process(target=run_train, args=(training(chat_model, pairs, folder / "run"), str(folder / "log.txt")))
    process.start()
    finished(process, folder / "log.txt")
    return pairs, folder / "run"


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run):
    """Step -> loss, the last row of each step."""
    return {row["step"]: row["loss"] for row in log_of(run) if "loss" in row}


@pytest.mark.parametrize("stop", [{"stop_at_step": 4}, {"stop_at_save": 4}], ids=["between steps", "while saving"])
def test_a_killed_training_goes_on_to_the_same_model(chat_model, warm, trained, tmp_path, stop):
    pairs, whole = trained
    arguments = training(chat_model, pairs, tmp_path / "run")
    killed = warm.Process(target=run_train, args=(arguments, str(tmp_path / "killed.txt")), kwargs=stop)
    killed.start()
    wait_for(lambda: says(tmp_path / "killed.txt", "standing still"), "the training never came to that point")
    killed.kill()
    killed.join()
    before = [row["step"] for row in log_of(tmp_path / "run")]
    assert before
    assert not (tmp_path / "run" / "final").exists()
    again = warm.Process(target=run_train, args=(arguments, str(tmp_path / "again.txt")))
    again.start()
    finished(again, tmp_path / "again.txt")
    after = [row["step"] for row in log_of(tmp_path / "run") if "loss" in row][len(before) :]
    assert after[0] > 1  # it went on, and did not start anew
    assert losses(tmp_path / "run") == losses(whole)
    assert set(losses(whole)) == set(range(1, 7))
    name = "model.safetensors"
    assert (tmp_path / "run" / "final" / name).read_bytes() == (whole / "final" / name).read_bytes()
    nats = [[row["nats"] for row in log_of(run) if "nats" in row] for run in (tmp_path / "run", whole)]
    assert nats[0] == nats[1]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tiny_inverter_folder, warm, tmp_path):
    import shutil

    from lm_eval_inversion.inverter import check_inverter
    from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE

    folder = shutil.copytree(tiny_inverter_folder, tmp_path / "inverter")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    process = warm.Process(target=with_full_disk, args=("rewrite_checkpoint", 5000, str(folder), str(tmp_path / "log.txt")))
    process.start()
    process.join(120)
    assert process.exitcode != 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    check_inverter(str(folder))
    assert DESCRIPTION_FILE in before
