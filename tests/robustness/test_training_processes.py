"""Training in two processes, as on a machine with two GPUs: started by accelerate, killed, and started again."""

import json
import os
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
import torch

from lm_eval_inversion.inverter.tokens import BlockTokenizer
from lm_eval_inversion.training import base_model, pack, running, train
from lm_eval_inversion.training.pairs import examples, held_out_pairs, load_pairs

from .running import wait_for

STEPS, BATCH, RATE = 3, 4, 1e-3
# On CPUs accelerate starts several processes through MPI only. Told of GPUs it takes torch.distributed; ``--device cpu`` does the rest.
LAUNCH = [
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m",
    "lm_eval_inversion.training.train",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    trades = ("baker", "sailor", "judge", "tailor", "nurse")
    rows = [
        {
            "prompt": f"Be a {trades[index % 5]} number {index}." + " Be brief." * (index % 7) ** 2,
            "answers": [["hello", f"I am number {index}."], ["weekend", "Rest."]],
        }
        for index in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(model, pairs, output, steps):
    return [
        "--base", str(model), "--pairs", str(pairs), "--output", str(output), "--minutes", "0", "--steps", str(steps),
        "--batch", str(BATCH), "--lr", str(RATE), "--eval-every", "1000", "--no-bf16", "--device", "cpu",
    ]  # fmt: skip


def start(words, printed):
    """The launcher of two processes; what they print goes into a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with printed.open("wb") as stream:
        return subprocess.Popen([sys.executable, *LAUNCH, *words], stdout=stream, stderr=stream, env=environment)


def kill(launcher):
    """The launcher and its processes, which stand in process groups of their own, at once."""
    for process in [launcher, *psutil.Process(launcher.pid).children(recursive=True)] if launcher.poll() is None else []:
        with suppress(psutil.NoSuchProcess):  # short-lived ones, and those that end with their parent
            process.kill()
            process.wait()


def ends_well(words, printed):
    process = start(words, printed)
    try:
        assert process.wait(300) == 0, printed.read_text(errors="replace")[-4000:]
    finally:
        kill(process)


def rows(run):
    text = (run / "log.jsonl").read_text() if (run / "log.jsonl").exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def steps(run):
    return [row["step"] for row in rows(run) if "loss" in row]


def trained_by_hand(model, pairs, run, ranks):
    """The weights after ``STEPS`` steps in this process, on some ranks' shares together: no token weighs more than another."""
    torch.manual_seed(0)
    model, text, layout, _ = base_model.load_base(str(model), 32)
    layout = base_model.with_user_start(layout, text)
    tokenizer = BlockTokenizer(run / "tokenizer.json", layout)
    loss = train.PromptLoss(model, layout)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    training, _ = held_out_pairs(load_pairs([pairs]))
    streams = [examples(training, 0, rank, 2, layout.max_outputs) for rank in ranks]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = running.learning_rate(step / STEPS, 0.04, RATE)
        optimizer.zero_grad()
        chosen = [next(stream) for stream in streams for _ in range(BATCH)]
        prompts = [tokenizer.prompt(example.prompt, layout.max_prompt_tokens) for example in chosen]
        nats = loss([tokenizer.blocks(example.outputs) for example in chosen], prompts).sum()
        (nats / sum(len(prompt) - 1 for prompt in prompts)).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_two_processes_train_one_model_and_go_on_after_a_kill(chat_model, pairs, tmp_path):
    run = tmp_path / "run"
    ends_well(arguments(chat_model, pairs, run, STEPS), tmp_path / "first.txt")
    assert steps(run) == list(range(1, STEPS + 1))  # written by one of the two
    training, _ = held_out_pairs(load_pairs([pairs]))
    # After a step of ``BATCH`` each, the first process stands at the last example but one of the order they share.
    assert [row["epoch"] for row in rows(run) if "loss" in row] == [(2 * BATCH * step - 2) / len(training) for step in range(1, STEPS + 1)]

    # What both learnt is what the two shares teach together, and not what the first one's alone does.
    final = base_model.load_base(str(run), 32)[0]
    found = torch.cat([value.detach().flatten() for value in final.parameters()])
    before = torch.cat([value.detach().flatten() for value in base_model.load_base(str(chat_model), 32)[0].parameters()])
    moved = (found - before).norm()
    assert moved > 0
    assert (trained_by_hand(chat_model, pairs, run, (0, 1)) - found).norm() < 0.02 * moved
    assert (trained_by_hand(chat_model, pairs, run, (0, 0)) - found).norm() > 0.2 * moved
    facts = pack.pack(run, [pairs], tmp_path / "checkpoint")
    assert facts["steps"] == STEPS

    # Started for longer, killed with its children in the middle, and started once more.
    process = start(arguments(chat_model, pairs, run, 100_000), tmp_path / "killed.txt")
    try:
        wait_for(lambda: STEPS + 2 in steps(run) or process.poll() is not None, "the second run made no step")
        assert process.poll() is None, (tmp_path / "killed.txt").read_text(errors="replace")[-4000:]
    finally:
        kill(process)
    before_last = len(steps(run))
    assert steps(run)[STEPS] == STEPS + 1  # it went on, and did not start anew
    # Now by time: both processes must stop at the same step, although their clocks started apart.
    words = arguments(chat_model, pairs, run, 0)
    spent = json.loads((run / "log.jsonl").read_text().splitlines()[STEPS - 1])["seconds"]  # of the first run, which counts
    words[words.index("--minutes") + 1] = str((spent + 2) / 60)
    ends_well(words, tmp_path / "last.txt")
    assert steps(run)[before_last] == STEPS + 1
    assert json.loads((run / "settings.json").read_text())["steps_done"] == steps(run)[-1]
