import json
import shutil
from pathlib import Path

import pytest

from lm_eval_inversion import load_inverter
from lm_eval_inversion.training import recipe

DATA = Path(__file__).parents[2] / "benchmarks" / "data"


def test_the_recipe_names_every_file_of_pairs_that_there_is():
    known = {path.name.partition(".")[0] for path in DATA.glob("pairs_*.jsonl*")}
    assert known == set(recipe.EPOCH_SHARES)
    files = recipe.pair_files(DATA)
    assert len(files) == sum(recipe.EPOCH_SHARES.values())
    assert set(files) == set(DATA.glob("pairs_*.jsonl*"))


def test_a_missing_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--base", "x", "--pairs-folder", str(tmp_path), "--output", str(tmp_path / "run")])
    assert "pairs_a.jsonl.xz is missing; give the folder benchmarks/data" in capsys.readouterr().err


def test_own_files_and_vocabulary_reach_the_training(chat_model, tmp_path, capsys, monkeypatch):
    started, packed = [], []
    monkeypatch.setattr(recipe.train, "main", started.append)
    monkeypatch.setattr(recipe.pack, "pack", lambda run, pairs, output: packed.append(pairs) or {})
    common = ["--base", str(chat_model), "--output", str(tmp_path / "run"), "--pairs", "one.jsonl", "two.jsonl", "two.jsonl"]

    def given(option, *more):
        started.clear()
        recipe.main([*common, *more])
        return started[0][started[0].index(option) + 1]

    def vocabulary(*more):
        return given("--vocabulary", *more)

    assert given("--output-layers") == "1"
    assert given("--output-layers", "--output-layers", "0") == "0"

    assert vocabulary() == "0"  # the tokenizer has 300
    assert vocabulary("--vocabulary", "0") == "0"
    monkeypatch.setattr(recipe, "VOCABULARY", 299)
    assert vocabulary() == "299"
    monkeypatch.setattr(recipe.base_model, "prompt_ends", lambda tokenizer, base: (1, 299))  # as Qwen2's, behind all words
    assert vocabulary() == "0"
    for arguments in started:
        assert arguments[arguments.index("--pairs") + 1 :][:4] == ["one.jsonl", "two.jsonl", "two.jsonl", "--batch"]
    assert packed[0] == [Path("one.jsonl"), Path("two.jsonl")]
    with pytest.raises(SystemExit):
        recipe.main([*common, "--pairs-folder", "benchmarks/data"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_one_command_makes_a_checkpoint_and_goes_on_where_it_was(chat_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "EPOCH_SHARES", {"pairs_a": 1, "pairs_strong": 2})
    trades = ["baker", "sailor", "judge", "tailor"]
    for name in recipe.EPOCH_SHARES:
        rows = [
            {"prompt": None if number % 20 == 19 else f"Be a {trades[number % 4]} of {name}, number {number}.",
             "answers": [["hello", f"I am a {trades[number % 4]}."]]}
            for number in range(300)
        ]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--base", str(chat_model), "--pairs-folder", str(tmp_path), "--output", str(tmp_path / "run"), "--steps", "5"]
    arguments += ["--batch", "4", "--micro-batch", "4", "--vocabulary", "256", "--device", "cpu", "--no-bf16"]
    recipe.main(arguments)
    said = capsys.readouterr().out
    found = json.loads(said[said.index("\n{\n") :].partition("\n}\n")[0] + "}")
    assert found["steps"] == 5
    inverter = load_inverter(tmp_path / "run" / "checkpoint")
    assert inverter.layout.output_layers == 1  # of two
    assert inverter.model.config.vocab_size == 256
    assert found["sha256"].startswith(inverter.hash)
    assert "Ship it" in said

    shutil.rmtree(tmp_path / "run" / "adapter")  # stopped between the stages
    logs = [tmp_path / "run" / stage / "log.jsonl" for stage in ("all_weights", "adapter")]
    first = logs[0].read_text()
    recipe.main(arguments)
    assert logs[0].read_text() == first
    again = load_inverter(tmp_path / "run" / "checkpoint").hash
    before = [log.read_text() for log in logs]
    assert [sum('"loss"' in line for line in text.splitlines()) for text in before] == [4, 1]
    recipe.main(arguments)  # both stages are there
    assert [log.read_text() for log in logs] == before
    assert load_inverter(tmp_path / "run" / "checkpoint").hash == again
