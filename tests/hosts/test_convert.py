"""Runs of the hosts become training pairs."""

import json
import subprocess
import sys

import pytest

from lm_eval_inversion.training import convert
from lm_eval_inversion.training.pairs import load_pairs

from .conftest import run_inspect

PROMPTS = ["You are a baker.\n\nNever say \"rye\".", "Be a sailor.", "Act as a judge."]


@pytest.fixture
def own_prompts(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in PROMPTS))
    return {"prompts": str(path), "num_queries": 2}


def check(rows, model):
    assert [row["prompt"] for row in rows if row["prompt"]] == PROMPTS
    assert sum(row["prompt"] is None for row in rows) == 1
    for row in rows:
        assert [query for query, _ in row["answers"]] == ["hello", "weekend"]
        assert all(answer for _, answer in row["answers"])
        assert row["model"].endswith(model)


def test_lm_eval_samples(chat_model, own_prompts, tmp_path):
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={chat_model},dtype=float32",
        "--tasks", "prompt_inversion_ordinary", "--apply_chat_template", "--device", "cpu", "--batch_size", "8", "--predict_only",
        "--log_samples", "--output_path", str(tmp_path / "results"), "--gen_kwargs", "temperature=0,max_gen_toks=12",
        "--metadata", f"prompts={own_prompts['prompts']}", "num_queries=2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    output = tmp_path / "pairs.jsonl"
    convert.main([str(tmp_path / "results"), "--output", str(output)])
    check([json.loads(line) for line in output.read_text().splitlines()], chat_model.name)
    assert {pair.prompt for pair in load_pairs([output])} == {None, *PROMPTS}


def test_inspect_logs(chat_model, own_prompts, tmp_path):
    log = run_inspect(chat_model, tmp_path / "logs", task_args=own_prompts, limit=None, max_tokens=12, score=False)
    output = tmp_path / "pairs.jsonl"
    convert.main([log.location.removeprefix("file://"), "--output", str(output)])
    check([json.loads(line) for line in output.read_text().splitlines()], "hf/local")


@pytest.mark.parametrize(("name", "text"), [("samples_hellaswag_1.jsonl", '{"doc": {}}\n'), ("samples_prompt_inversion_1.jsonl", "[]\n")])
def test_other_files_are_refused(name, text, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path), "--output", str(tmp_path / "pairs.jsonl")])
    assert f"{name} holds no answers of an inversion task" in capsys.readouterr().err
    assert not (tmp_path / "pairs.jsonl").exists()
