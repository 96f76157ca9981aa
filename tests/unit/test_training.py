import json
import random

import pytest

from lm_eval_inversion import load_inverter, load_prompts
from lm_eval_inversion.inverter.baselines import training_prompts
from lm_eval_inversion.training import collect, pack, train
from lm_eval_inversion.training.grammar import generate_prompt, load_banks
from lm_eval_inversion.training.overlap import overlapping
from lm_eval_inversion.training.pairs import load_pairs


def test_no_training_prompt_of_the_shipped_checkpoint_overlaps_the_benchmark():
    benchmark = [prompt.text for prompt in load_prompts("v1", split=None)]
    trained_on = training_prompts()
    assert len(trained_on) > 2000
    assert overlapping(trained_on, benchmark) == set()
    # The test can fail:
    assert overlapping(["And so: " + benchmark[0]], benchmark)


def test_the_grammar_is_a_pure_function_and_varied():
    banks = load_banks()
    prompts = [generate_prompt(banks, 3, index) for index in range(300)]
    assert prompts == [generate_prompt(banks, 3, index) for index in range(300)]
    assert len(set(prompts)) >= 298
    assert len({prompt.split()[0] for prompt in prompts}) >= 20
    assert all(2 <= len(prompt.split()) <= 160 for prompt in prompts)
    assert "{" not in "".join(prompts)


def test_an_interrupted_collection_goes_on_and_writes_the_same(chat_model, tmp_path):
    settings = {"number": 6, "seed": 5, "batch_prompts": 2, "max_new_tokens": 6, "device": "cpu"}
    collect.collect(str(chat_model), tmp_path / "whole.jsonl", **settings)
    whole = (tmp_path / "whole.jsonl").read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert len(rows) == 6
    assert all(len(row["answers"]) == 8 for row in rows)
    # Killed in the middle of the third row:
    cut = whole.splitlines()
    (tmp_path / "part.jsonl").write_text("\n".join([*cut[:2], cut[2][:20]]))
    collect.collect(str(chat_model), tmp_path / "part.jsonl", **settings)
    assert (tmp_path / "part.jsonl").read_text() == whole


def test_a_damaged_pairs_file_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "x"\n{"prompt": "y"}\n')
    with pytest.raises(ValueError, match=r"pairs\.jsonl line 1 is not JSON"):
        collect.read_pairs(path)
    with pytest.raises(ValueError, match="holds no pairs"):
        load_pairs([tmp_path / "nowhere.jsonl"])


def write_pairs(path, number=150):
    rng = random.Random(0)
    rows = []
    for index in range(number):
        trade = rng.choice(["baker", "sailor", "judge", "tailor"])
        rows.append({
            "prompt": None if index % 20 == 19 else f"Be a {trade} number {index}.",
            "answers": [["hello", f"I am a {trade}."], ["weekend", "Rest."]],
        })  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_training_learns_resumes_and_packs(chat_model, tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    common = ["--base", str(chat_model), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--minutes", "0", "--batch", "8"]
    common += ["--lr", "3e-3", "--eval-every", "1000", "--no-bf16", "--device", "cpu"]
    train.main([*common, "--steps", "6"])
    train.main([*common, "--steps", "30"])  # goes on at step 6
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in log if "loss" in row]
    assert steps == list(range(1, 31))
    losses = [row["loss"] for row in log if "loss" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    found = pack.pack(tmp_path / "run", [pairs], tmp_path / "checkpoint")
    assert found["steps"] == 30
    inverter = load_inverter(tmp_path / "checkpoint")
    assert inverter.nll([["I am a baker."]], ["Be a baker number 7."])[0] < inverter.nll([["I am a baker."]], ["Xylophones!! quiz"])[0]

    # A second stage on the rounded weights, with fewer tokens: packing it costs nothing.
    second = [*common, "--steps", "12", "--round-base", "--lora-rank", "4", "--vocabulary", "256"]
    second[1], second[5] = str(tmp_path / "run"), str(tmp_path / "second")
    train.main(second)
    found = pack.pack(tmp_path / "second", [pairs], tmp_path / "second_checkpoint")
    assert found["steps"] == 42
    assert found["held_out_nats"] == pytest.approx(found["held_out_nats_before_packing"], rel=0.02)
    smaller = load_inverter(tmp_path / "second_checkpoint")
    assert smaller.model.config.vocab_size == 256
    assert smaller.tokenizer.decode(smaller.tokenizer.prompt("Be a baker, friend!")) == "Be a baker, friend!"

    # A checkpoint can be trained further, too.
    third = [*common, "--steps", "2"]
    third[1], third[5] = str(tmp_path / "second_checkpoint"), str(tmp_path / "third")
    train.main(third)
    assert json.loads((tmp_path / "third" / "settings.json").read_text())["steps_done"] == 44

    with pytest.raises(SystemExit):
        pack.main(["--run", str(tmp_path), "--pairs", str(pairs), "--output", str(tmp_path / "x")])
    assert "the training has not finished" in capsys.readouterr().err


def test_training_needs_a_budget(capsys, tmp_path):
    for extra, message in ((["--minutes", "0"], "without a budget"), (["--round-base"], "give the rank of the adapter")):
        with pytest.raises(SystemExit):
            train.main(["--base", "x", "--pairs", "y", "--output", str(tmp_path), *extra])
        assert message in capsys.readouterr().err
