"""Runs of the hosts become training pairs."""

import json
import subprocess
import sys

import pytest

from lm_eval_inversion.training import convert
from lm_eval_inversion.training.pairs import load_pairs

from .conftest import run_inspect

PROMPTS = ['You are a baker.\n\nNever say "rye".', "Be a sailor.", "Act as a judge."]


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


def test_lm_eval_samples(chat_model, own_prompts, tmp_path, capsys):
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
    # Saved again by an editor that marks UTF-8, as other readers of these files take it.
    for pattern in ("samples_*.jsonl", "results_*.json"):
        (file,) = (tmp_path / "results").rglob(pattern)
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    marked = tmp_path / "marked.jsonl"
    convert.main([str(tmp_path / "results"), "--output", str(marked)])
    assert marked.read_text() == output.read_text()
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(tmp_path / "results"), "--output", str(marked / "pairs.jsonl")])
    assert f"--output {marked / 'pairs.jsonl'} cannot be written" in capsys.readouterr().err


def test_a_folder_is_no_output(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(tmp_path), "--output", str(tmp_path)])
    assert f"--output {tmp_path} is a folder; give a file" in capsys.readouterr().err


def test_redacted_runs_and_users_requests(chat_model, own_prompts, arguments, tmp_path, capsys):
    given = {**own_prompts, **arguments}
    log = run_inspect(chat_model, tmp_path / "logs", task_args={**given, "redact": True}, limit=2, max_tokens=4)
    with pytest.raises(SystemExit, match="2"):
        convert.main([log.location.removeprefix("file://"), "--output", str(tmp_path / "none.jsonl")])
    assert "the run was redacted: its texts are gone" in capsys.readouterr().err
    assert not (tmp_path / "none.jsonl").exists()
    log = run_inspect(chat_model, tmp_path / "user", "prompt_inversion_user", task_args=given, limit=2, max_tokens=4)
    convert.main([log.location.removeprefix("file://"), "--output", str(tmp_path / "user.jsonl")])
    pairs = load_pairs([tmp_path / "user.jsonl"])
    assert {pair.secret for pair in pairs if pair.prompt} == {"user"}


def test_inspect_logs(chat_model, own_prompts, tmp_path):
    log = run_inspect(chat_model, tmp_path / "logs", task_args=own_prompts, limit=None, max_tokens=12, score=False)
    output = tmp_path / "pairs.jsonl"
    convert.main([log.location.removeprefix("file://"), "--output", str(output)])
    check([json.loads(line) for line in output.read_text().splitlines()], "hf/local")


def test_any_lm_eval_task_under_a_system_instruction(chat_model, tmp_path):
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"question": f"How far is {city}?"}) + "\n" for city in ("Ghent", "Hue")))
    (tmp_path / "distances.yaml").write_text(
        f"task: distances\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'questions.jsonl'}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: ""\n'
        "generation_kwargs:\n  until: []\n  max_gen_toks: 8\n  temperature: 0\nmetric_list:\n  - metric: exact_match\n"
    )
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={chat_model},dtype=float32",
        "--tasks", "distances", "--include_path", str(tmp_path), "--apply_chat_template", "--device", "cpu", "--predict_only",
        "--log_samples", "--output_path", str(tmp_path / "results"), "--system_instruction", "You are a pilot.",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    convert.main([str(tmp_path / "results"), "--output", str(tmp_path / "pairs.jsonl")])
    (row,) = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert row["prompt"] == "You are a pilot."
    assert {query for query, _ in row["answers"]} <= {"distances/0", "distances/1"}
    samples = next((tmp_path / "results").rglob("samples_*.jsonl")).read_text().splitlines()
    assert [answer for _, answer in row["answers"]] == [text for line in samples if (text := json.loads(line)["resps"][0][0])]
    assert row["answers"]


def test_any_inspect_task_gives_a_row_for_each_system_message(chat_model, tmp_path):
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser
    from inspect_ai.solver import generate

    def sample(prompt, question):
        system = [ChatMessageSystem(content=prompt)] if prompt else []
        return Sample(input=[*system, ChatMessageUser(content=question)])

    asked = [("You are a pilot.", "Hi!"), (None, "Hi!"), ("Act as a judge.", "Hi!"), ("You are a pilot.", "Bye!")]
    task = Task(name="small_talk", dataset=[sample(*pair) for pair in asked], solver=generate())
    (log,) = inspect_eval(
        task, model="hf/local", log_dir=str(tmp_path), display="none", max_tokens=12,
        model_args={"model_path": str(chat_model), "tokenizer_path": str(chat_model), "device": "cpu", "do_sample": False},
    )  # fmt: skip
    convert.main([log.location.removeprefix("file://"), "--output", str(tmp_path / "pairs.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    one, two, three, four = (sample.output.completion for sample in log.samples)
    assert {row["prompt"]: [answer for _, answer in row["answers"]] for row in rows} == {
        "You are a pilot.": [one, four], None: [two], "Act as a judge.": [three],
    }  # fmt: skip
    assert [query for query, _ in rows[0]["answers"]] == ["small_talk/1/1", "small_talk/4/1"]


@pytest.mark.parametrize(
    ("task", "model_args"),
    [
        ("prompt_inversion_ordinary", None),  # without its results file
        ("prompt_inversion_ordinary", "pretrained=x"),
        ("prompt_inversion_ordinary", "pretrained=x,think_end_token=</think>"),
        ("small_talk", "pretrained=x"),
        ("small_talk", "pretrained=x,think_end_token=</think>"),
    ],
)
def test_a_thought_whose_tag_the_template_wrote_is_no_answer(task, model_args, tmp_path):
    """Runs of earlier versions saved the answer without the tag, those of this one with it."""
    answers = ["Hm. The system prompt says", "Hm.</think>Hi!", "<think>Hm. The user"]
    request = "<|system|>You are a baker.<|user|>Hello!<|assistant|><think>\n"
    for number, answer in enumerate(answers):
        sample = {"doc": {"text": "You are a baker."}, "doc_id": 0, "resps": [[answer]], "arguments": {"gen_args_0": {
            "arg_0": request, "arg_1": {"temperature": 0.7}}}}  # fmt: skip
        (tmp_path / f"samples_{task}_{number}.jsonl").write_text(json.dumps(sample) + "\n")
        if model_args:
            facts = {"system_instruction": "You are a baker.", "config": {"model_args": model_args}}
            (tmp_path / f"results_{number}.json").write_text(json.dumps(facts))
    convert.main([str(tmp_path), "--output", str(tmp_path / "pairs.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    said = [answer for row in rows for _, answer in row["answers"]]
    if "think_end_token" in str(model_args):
        assert said == answers
    else:
        assert said == ["<think>Hm. The system prompt says", "<think>Hm.</think>Hi!", "<think>Hm. The user"]
        assert [output for pair in load_pairs([tmp_path / "pairs.jsonl"]) for output in pair.outputs] == ["Hi!"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("samples_hellaswag_1.jsonl", '{"doc": {}}\n', "results_1.json is missing beside it"),
        ("samples_prompt_inversion_1.jsonl", "[]\n", "TypeError"),
    ],
)
def test_other_files_are_refused(name, text, reason, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path), "--output", str(tmp_path / "pairs.jsonl")])
    assert f"{name} holds no answers to train on" in (message := capsys.readouterr().err)
    assert reason in message
    assert not (tmp_path / "pairs.jsonl").exists()


def test_runs_of_attacks_are_left_out_of_folders_and_refused_by_name(tmp_path, capsys):
    request = {"arg_0": PROMPTS[1], "arg_1": {}}
    sample = {"doc": {"text": PROMPTS[1]}, "doc_id": 0, "resps": [["Ahoy!"]], "arguments": {"gen_args_0": request}}
    attacks, output = tmp_path / "samples_prompt_leakage_attacks_1.jsonl", tmp_path / "pairs.jsonl"
    attacks.write_text("{}\n")
    for given in (attacks, tmp_path):
        with pytest.raises(SystemExit, match="2"):
            convert.main([str(given), "--output", str(output)])
        told = f"error: {attacks}: answers to attacks are no training data; give runs of inversion tasks\n"
        assert capsys.readouterr().err.endswith(told)
    (tmp_path / "samples_prompt_inversion_ordinary_1.jsonl").write_text(json.dumps(sample) + "\n")
    convert.main([str(tmp_path), "--output", str(output)])
    assert [json.loads(line)["prompt"] for line in output.read_text().splitlines()] == [PROMPTS[1]]
    assert capsys.readouterr().err == f"warning: left out, because answers to attacks are no training data: {attacks}\n"
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(tmp_path), str(attacks), "--output", str(output)])


def test_a_task_of_likelihoods_is_refused(tmp_path, capsys):
    (tmp_path / "samples_hellaswag_1.jsonl").write_text('{"doc_id": 0, "resps": [[[-1.5, false]]], "arguments": {}}\n')
    (tmp_path / "results_1.json").write_text('{"system_instruction": "You are a pilot."}')
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path), "--output", str(tmp_path / "pairs.jsonl")])
    assert "the model wrote nothing" in capsys.readouterr().err
