"""The paper's architecture trained on the same pairs."""

import json
import shutil
from itertools import count

import pytest
import torch
from conftest import make_tokenizer

from lm_eval_inversion import load_inverter
from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.training import train_t5
from lm_eval_inversion.training.pairs import HELD_OUT_EVERY

PROMPTS = ["You are a baker in Ghent.", "Act as a judge of dogs!", "Speak like a pirate, always.", "Help with tax forms only."]


def held_out_prompt():
    return next(text for number in count() if int(content_hash(text := f"Be pilot {number}."), 16) % HELD_OUT_EVERY == 0)


@pytest.fixture
def arguments(tmp_path):
    """A tiny run on 4 pairs, with one more held out, a null and a message of a user."""
    rows = [
        {"prompt": prompt, "answers": [["hello", f"Hello, {prompt}"], ["sea", f"{prompt[::-1]} I say."]]}
        for prompt in [*PROMPTS, held_out_prompt()]
    ]
    rows.append({"prompt": None, "answers": [["hello", "Hello there."]]})
    rows.append({"prompt": "Weigh all salt of seven seas tonight.", "secret": "user", "answers": [["hello", "Salt is white."]]})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tokenizer.json").write_text(make_tokenizer().backend_tokenizer.to_str())
    return [
        "--pairs", str(tmp_path / "pairs.jsonl"), "--tokenizer", str(tmp_path / "tokenizer.json"), "--output", str(tmp_path / "run"),
        "--layers", "1", "--width", "64", "--batch", "4", "--lr", "3e-3", "--minutes", "0", "--device", "cpu", "--no-bf16",
    ]  # fmt: skip


def log_of(folder):
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


def test_loss_falls_and_the_folder_inverts(arguments, tmp_path, capsys):
    train_t5.main([*arguments, "--steps", "40", "--max-output-tokens", "8"])
    losses = [row["loss"] for row in log_of(tmp_path) if "loss" in row]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert {"nats", "nats_no_outputs", "bits_above_swapped"} <= set(log_of(tmp_path)[-1])
    printed = capsys.readouterr().out
    assert "5 training pairs, 1 held out" in printed  # the null among them
    assert "1 training pairs are messages of users" in printed
    inverter = load_inverter(f"t5:{tmp_path / 'run' / 'final'}")
    assert isinstance(inverter.invert([["Hello, You are a baker in Ghent."], []], max_new_tokens=8)[1], str)
    known, strange = inverter.nll([["Hello."]] * 2, [PROMPTS[0], PROMPTS[0][::-1]])
    assert known < strange
    # What lies behind the tokens that are read makes no difference, as in training.
    long = "Hello, I bake bread and rye every day"
    assert inverter.nll([[long]], ["x"]) == pytest.approx(inverter.nll([[long + " at four in the morning"]], ["x"]))


def test_training_and_inversion_compute_one_likelihood(arguments, tmp_path):
    train_t5.main([*arguments, "--steps", "1"])
    inverter = load_inverter(f"t5:{tmp_path / 'run' / 'final'}")
    sets = [["Hello.", "Rye is best. Ask me!"], [], ["I wake at four."]]
    with torch.inference_mode():
        found = train_t5.prompt_nats(inverter.model, inverter.tokenizer, sets, PROMPTS[:3])
    assert found.tolist() == pytest.approx(inverter.nll(sets, PROMPTS[:3]), rel=1e-4)


def test_texts_end_and_cannot_forge_the_end(arguments, tmp_path):
    train_t5.main([*arguments, "--steps", "1"])
    tokenizer = load_inverter(f"t5:{tmp_path / 'run' / 'final'}").tokenizer
    ids = tokenizer("Rye</s> is best")["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Rye</s> is best"


def test_a_run_goes_on_where_it_stopped(arguments, tmp_path):
    def nats():
        return load_inverter(f"t5:{tmp_path / 'run' / 'final'}").nll([["Rye."]], ["Be kind."])[0]

    train_t5.main([*arguments, "--steps", "1", "--lr", "0"])
    untrained = nats()
    shutil.rmtree(tmp_path / "run")
    train_t5.main([*arguments, "--steps", "3", "--lr", "0.01"])
    trained = nats()
    assert trained != pytest.approx(untrained, rel=1e-3)
    # Without learning, what the steps before had learnt is all there is.
    train_t5.main([*arguments, "--steps", "6", "--lr", "0"])
    assert nats() == pytest.approx(trained, rel=1e-6)
    assert [row["step"] for row in log_of(tmp_path) if "loss" in row] == [1, 2, 3, 4, 5, 6]


def test_a_pretrained_t5_is_trained_on(arguments, tmp_path):
    train_t5.main([*arguments, "--steps", "1"])
    base = (tmp_path / "run").rename(tmp_path / "base") / "final"
    train_t5.main([*arguments, "--steps", "2", "--base", str(base), "--lr", "0"])
    before, after = (load_inverter(f"t5:{folder}") for folder in (base, tmp_path / "run" / "final"))
    assert after.nll([["Rye."]], ["Be kind."]) == pytest.approx(before.nll([["Rye."]], ["Be kind."]), rel=1e-5)


def test_only_system_prompts_count(arguments, tmp_path, capsys):
    """Held out, and of the dev split, are prompts of both kinds; a T5 is trained and evaluated on one."""
    path = tmp_path / "pairs.jsonl"
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if row["prompt"] != held_out_prompt()]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[-1], "prompt": held_out_prompt()}]))
    with pytest.raises(SystemExit):
        train_t5.main([*arguments, "--steps", "1"])
    assert "5 pairs to train on and 0 held out" in capsys.readouterr().err
    (tmp_path / "dev.jsonl").write_text(json.dumps({"prompt": "You sell tea.", "answers": [["hello", "Tea?"]]}) + "\n")
    train_t5.main([*arguments, "--steps", "1", "--dev-pairs", str(tmp_path / "dev.jsonl")])
    assert "dev_nats" in (last := log_of(tmp_path)[-1])
    assert "nats" not in last


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--width", "100"], "a multiple of 64"),
        (["--layers", "0"], "at least one layer"),
        (["--base", "nowhere"], "nowhere holds no config.json"),
        (["--steps", "0"], "without a budget"),
        (["--minutes", "-1"], "argument --minutes: '-1' is not a number from 0 on"),
        (["--max-output-tokens", "1"], "an output and its end"),
        (["--pairs", "nowhere.jsonl"], "nowhere.jsonl holds no pairs"),
    ],
)
def test_bad_options_are_named(arguments, more, message, capsys):
    with pytest.raises(SystemExit):
        train_t5.main([*arguments, "--steps", "1", *more])
    assert message in capsys.readouterr().err


def test_a_tokenizer_whose_special_tokens_stand_elsewhere_is_refused(arguments, tmp_path, capsys):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(PROMPTS, trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(["<|begin|>", "<|eot|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SystemExit):
        train_t5.main([*arguments, "--steps", "1"])
    assert "tokens 0 and 2 pad and end a text and must be special, but are '!' and '#'" in capsys.readouterr().err


def test_a_run_goes_on_as_it_was_started(arguments, capsys):
    train_t5.main([*arguments, "--steps", "1"])
    finished = arguments[arguments.index("--output") + 1] + "/final"
    for more, message in (
        (["--seed", "1"], "another --seed (0, not 1)"),
        (["--layers", "2"], "another --layers (1, not 2)"),
        (["--base", finished], "another --base (None, not "),
        (["--max-output-tokens", "7"], "another --max-output-tokens ("),
    ):
        with pytest.raises(SystemExit):
            train_t5.main([*arguments, "--steps", "2", *more])
        assert message in capsys.readouterr().err


def test_another_kind_of_model_is_no_base(arguments, chat_model, capsys):
    with pytest.raises(SystemExit):
        train_t5.main([*arguments, "--steps", "1", "--base", str(chat_model)])
    assert "holds a llama" in capsys.readouterr().err
