"""The command line: verbs, exit codes, mistakes without a traceback, and a start that loads nothing heavy."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import yaml

import lm_eval_inversion
from lm_eval_inversion.cli import VERBS, main
from lm_eval_inversion.report import attacks_table, examples_table, metrics_table, read_results
from lm_eval_inversion.report.rerun import rerun_command, run_settings, signature_line
from lm_eval_inversion.training.convert import pairs_from_file

ROOT = Path(__file__).parents[2]
TASK = "prompt_inversion_ordinary"
REQUEST = {
    "id": "encode-1", "arm": "attack", "attack": "encode-1", "family": "encode", "last": True, "state": "answered", "leaked": True,
    "recovery": 0.7, "decoder": "base64",
}  # fmt: skip
HEAVY = ("torch", "transformers", "inspect_ai", "lm_eval", "numpy", "datasets")


def write_lm_eval(folder, values, *, task=TASK, moment="2026-01-02T03-04-05.000001", signature=None, scored=None):
    """A results folder as lm_eval leaves it behind; ``values`` are the metrics of each system prompt, ``scored`` what lm_eval counted."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        {
            "doc": {"id": f"own-{number}", "text": f"You are baker {number}.", "category": "own", "split": "test", "attributes": "[]"},
            "resps": [["Hello!"]],
            "filtered_resps": [json.dumps(REQUEST) if "prompt_leakage" in str((task, signature)) else "You are a baker."],
            **metrics,
        }
        for number, metrics in enumerate(values)
    ]
    (folder / f"samples_{task}_{moment}.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    run = {
        "configs": {task: {"metadata": {"task_version": 1.0, "prompts_hash": "p", **(signature or {})}}},
        "config": {"model": "hf", "model_args": {"pretrained": "tiny"}},
        **({} if scored is None else {"n-samples": {task: {"original": 150, "effective": scored}}}),
    }
    (folder / f"results_{moment}.json").write_text(json.dumps(run))
    return folder


def write_inspect(folder, values, task=f"lm_eval_inversion/{TASK}", name="run.eval", later=None, metadata=None):
    """A log as Inspect leaves it behind; ``later`` are the metrics of a second scoring."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log
    from inspect_ai.scorer import Score

    def scored(number):
        scores = {"inversion": Score(value=values[number], answer="You are a baker.", metadata={"inverter_hash": "i"})}
        if later:
            again = Score(value=later[number], answer="You are another baker.", metadata={"inverter_hash": "j"})
            scores |= {"inversion1": again, "of_another_package": Score(value={"accuracy": 1.0})}
        return scores

    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        EvalSample(
            id=f"own-{number}", epoch=1, input="x", target=f"You are baker {number}.",
            metadata={"prompt": {"id": f"own-{number}", "text": f"You are baker {number}."}}, scores=scored(number),
        )
        for number in range(len(values))
    ]  # fmt: skip
    spec = EvalSpec(
        created="2026-01-02T03:04:05+00:00", task=task, dataset=EvalDataset(), model="mockllm/model", config=EvalConfig(),
        metadata={"task_version": 1.0, "prompts_hash": "p"} if metadata is None else metadata,
    )  # fmt: skip
    write_eval_log(EvalLog(eval=spec, status="success", samples=samples), str(folder / name))
    return folder


def metrics(lift, number=30, coverage=1.0):
    return [{"bits": 9.0 + place, "token_f1": 0.2, "token_f1_lift": lift + place / 1000, "coverage": coverage} for place in range(number)]


@pytest.fixture
def results(tmp_path):
    return write_lm_eval(tmp_path / "results", metrics(0.02))


def exit_code(arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--help", "export"], ["--version"], ["nonsense"], *([verb, "--help"] for verb in ("report", "compare", "gate"))],
)
def test_help_and_mistakes_load_nothing_heavy(arguments):
    code = (
        "import sys\nfrom lm_eval_inversion.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "loaded []"


def test_help_names_every_verb_and_each_has_an_example(capsys):
    assert exit_code(["--help"]) == 0
    shown = capsys.readouterr().out
    assert set(VERBS) == {"report", "compare", "gate", "defences", "rerank", "redact", "plan", "export", "card"}
    for name in ("report", "compare", "gate"):
        assert f"    {name} " in shown
        assert exit_code([name, "--help"]) == 0
        assert f"example: lm-eval-inversion {name} " in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["report", "compare", "gate", "rerank", "export", "card"])
def test_examples_are_commands_that_parse(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where there are no results
    command = shlex.split(VERBS[verb].example.splitlines()[0])
    assert command[:2] == ["lm-eval-inversion", verb]
    assert run(*command[1:]) == (3 if verb == "gate" else 2)
    assert re.search(r"results\S* does not exist", capsys.readouterr().err)


def test_version_and_entry_points():
    command = [sys.executable, "-m", "lm_eval_inversion", "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1] == lm_eval_inversion.__version__
    scripts = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]\n")[2].partition("\n\n")[0]
    assert scripts == 'lm-eval-inversion = "lm_eval_inversion.cli:main"'


def test_report_prints_the_tables_of_all_runs_of_both_hosts(tmp_path, results, capsys):
    logs = write_inspect(tmp_path / "logs", metrics(0.5))
    assert run("report", results, logs, "--examples", 2) == 0
    shown = capsys.readouterr().out
    (first,), (second,) = read_results(results), read_results(logs)
    for found in (first, second):
        head = (
            f"## {TASK} ({found.host}, 30 of 30 system prompts scored)\n\n- model: {found.model}\n"
            f"- signature: {signature_line(found, run_settings(found))}\n- file: {found.source}\n"
        )
        assert f"{head}\n{metrics_table(found)}\n\n{examples_table(found, 2)}\n" in shown
    assert run("report", results, "--examples", 0) == 0
    assert "true system prompt" not in capsys.readouterr().out


def test_report_says_on_the_screen_what_is_wrong_with_a_run(tmp_path, capsys):
    folder = write_lm_eval(
        tmp_path / "run", [{"resistance": 1.0, "ability": 0.02, "coverage": 0.5}] * 3, task="prompt_leakage_attacks",
        signature={"defence": "sandwich"},
    )  # fmt: skip
    assert run("report", folder) == 0
    shown = capsys.readouterr().out
    assert " | defence sandwich | " in shown
    assert "- caution: Too little came back to judge (coverage 0.50, below 0.8): unscored is not safe. Resistance says little" in shown


def test_attacks_have_a_table_of_their_own(tmp_path, capsys):
    folder = write_lm_eval(tmp_path / "run", [{"asr_union": 1.0, "recovery_max": 0.7, "coverage": 1.0}], task="prompt_leakage_attacks")
    assert run("report", folder) == 0
    assert attacks_table(read_results(folder)[0]) in capsys.readouterr().out


def test_the_old_command_still_works(results):
    command = [sys.executable, "-m", "lm_eval_inversion.report", str(results), "--examples", "8"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    (expected,) = read_results(results)
    assert found.stdout.startswith(f"\n## {TASK} (lm_eval, 30 of 30 system prompts scored)\n\n- model: hf tiny\n")
    assert found.stdout.endswith(f"\n\n{metrics_table(expected)}\n\n{examples_table(expected, 8)}\n")
    assert found.stderr == ""


def test_report_writes_the_page(monkeypatch, tmp_path, results, capsys):
    calls = []
    page = ModuleType("lm_eval_inversion.report.page")
    page.scored_runs = list
    page.page_html = lambda found: calls.append([one.task for one in found]) or "<!doctype html>\n"
    monkeypatch.setitem(sys.modules, page.__name__, page)
    assert run("report", results, "-o", tmp_path / "new" / "report.html") == 0
    assert calls == [[TASK]]
    assert (tmp_path / "new" / "report.html").read_bytes() == b"<!doctype html>\n"
    assert "runs: 1, system prompts: 30, written to" in capsys.readouterr().out
    assert run("report", results, "-o", tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_run_without_a_score_does_not_cost_the_page_of_the_others(tmp_path, results, capsys):
    """A likelihoods task whose samples all failed has no metric at all, not even coverage."""
    empty = write_lm_eval(tmp_path / "empty", [{}], task="prompt_leakage_exposure")
    assert run("report", results, empty, "-o", tmp_path / "page.html") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("runs: 1, system prompts: 30, written to")
    assert f"warning: left off the page, because no system prompt has a score: {empty}" in shown.err
    assert "exposure" not in (tmp_path / "page.html").read_text(encoding="utf-8").partition("<main")[2].partition("<script")[0]
    assert run("report", empty, "-o", tmp_path / "none.html") == 2
    assert "no system prompt has a score; run the task again, or inspect score a log" in capsys.readouterr().err
    assert not (tmp_path / "none.html").exists()


def test_a_file_named_twice_is_read_once(results, capsys):
    assert run("report", results, next(results.glob("samples_*")), "--examples", 0) == 0
    assert capsys.readouterr().out.count("## ") == 1


def test_the_last_of_several_scores_is_read(tmp_path, capsys):
    logs = write_inspect(tmp_path / "logs", metrics(0.5), later=metrics(0.1))
    (found,) = read_results(logs)
    assert found.rows[0].metrics["token_f1_lift"] == 0.1
    assert found.rows[0].reconstruction == "You are another baker."
    assert found.signature["inverter_hash"] == "j"
    assert run("report", logs) == 0
    assert "run.eval: scored several times (inversion, inversion1); the last score, inversion1, is read." in capsys.readouterr().err
    assert read_results(write_inspect(tmp_path / "once", metrics(0.5)))[0].choice == ""


def write_others(folder):
    """What other tasks of either host leave in a folder."""
    write_inspect(folder, [{"accuracy": 1.0}], task="inspect_evals/gsm8k", name="gsm8k.eval", metadata={})
    path = folder / "samples_gsm8k_2026-01-02T03-04-05.000001.jsonl"
    path.write_text(json.dumps({"doc_id": 0, "doc": {"question": "1 + 1?"}, "resps": [["2"]], "filtered_resps": ["2"]}) + "\n")
    return folder


def test_files_of_other_tasks_are_left_out_of_folders_and_refused_by_name(tmp_path, results, capsys):
    write_others(write_inspect(results, metrics(0.5)))
    for arguments in (["report", results, results], ["gate", results, "--max-lift", 0.9]):
        assert run(*arguments) == 0
        shown = capsys.readouterr().err
        assert shown.count("gsm8k.eval") == shown.count("samples_gsm8k") == shown.count("\n") == 1
        assert "left out, because they are not of this package's tasks" in shown
    assert [found.host for found in read_results(results)] == ["inspect", "lm_eval"]
    for name, message in (
        ("gsm8k.eval", "is a log of the task inspect_evals/gsm8k, which is not one of this package's"),
        ("samples_gsm8k_2026-01-02T03-04-05.000001.jsonl", "line 1 is not a sample of an inversion or leakage task"),
    ):
        assert run("report", results / name, results) == 2
        assert message in capsys.readouterr().err
    assert run("report", write_others(tmp_path / "others")) == 2
    shown = capsys.readouterr().err
    assert "no results of this package's tasks are there, only those of others: " in shown
    assert shown.count("gsm8k") == 2


def test_model_and_signature_are_found_after_an_output_path_that_names_a_file(results, capsys):
    (run_file,) = results.glob("results_*.json")
    (expected,) = read_results(results)
    assert expected.signed
    assert expected.model == "hf tiny"
    run_file.rename(run_file.with_name(run_file.name.replace("results_", "out_")))
    (found,) = read_results(results)
    assert (found.signature, found.model) == (expected.signature, expected.model)


def test_keys_among_model_arguments_are_no_part_of_a_signature(tmp_path):
    """lm_eval writes the model's arguments beside the parameters of a task."""
    given = {"api_key": "s3cr3t", "auth_token": "s3cr3t", "tokenizer": "tiny", "max_length": 512}
    (found,) = read_results(write_lm_eval(tmp_path, [{"bits": 1.0, "coverage": 1.0}] * 2, signature=given))
    assert found.signature["tokenizer"] == "tiny"
    assert "s3cr3t" not in str(found.signature)


def test_logs_of_inspect_in_json_are_read(tmp_path, results, capsys):
    write_inspect(tmp_path / "logs", metrics(0.5), name="run.json")
    for path in (tmp_path / "logs", tmp_path / "logs" / "run.json"):
        (found,) = read_results(path)
        assert (found.host, found.task, len(found.rows)) == ("inspect", TASK, 30)
    # Other JSON is no log: in a folder it is passed over, by name it is refused with what to give instead.
    write_inspect(results, metrics(0.5), name="run.json")
    (results / "logs.json").write_text("{}")
    assert [found.host for found in read_results(results)] == ["inspect", "lm_eval"]
    assert run("report", next(results.glob("results_*.json"))) == 2
    shown = capsys.readouterr().err
    assert "holds no samples. Of a run of lm_eval give the samples_*.jsonl files that lie beside it (with --log_samples)" in shown
    assert "JSONDecodeError" not in shown


@pytest.mark.parametrize("form", ["text", "json", "html"])
def test_compare_writes_all_formats(form, tmp_path, results, capsys):
    logs = write_inspect(tmp_path / "logs", metrics(0.5))
    assert run("compare", results, logs, "--format", form) == 0
    printed = capsys.readouterr().out
    assert run("compare", results, logs, "--format", form, "-o", tmp_path / "out" / "file") == 0
    assert (tmp_path / "out" / "file").read_text(encoding="utf-8") == printed
    if form == "json":
        (task,) = json.loads(printed)["tasks"]
        assert {found["metric"]: round(found["difference"], 9) for found in task["metrics"]}["token_f1_lift"] == 0.48
        assert (task["a"]["host"], task["b"]["host"]) == ("lm_eval", "inspect")
    else:
        assert "0.480" in printed


def test_compare_of_what_cannot_be_compared(tmp_path, results, capsys):
    other = write_lm_eval(tmp_path / "other", metrics(0.1), task="prompt_inversion")
    assert run("compare", results, other) == 2
    assert "no task is in both" in capsys.readouterr().err
    assert run("compare", results, tmp_path / "nowhere") == 2
    assert capsys.readouterr().err.endswith("nowhere does not exist\n")
    assert exit_code(["compare", results]) == 2
    assert exit_code(["compare", results, results, "--format", "pdf"]) == 2
    assert exit_code(["compare", results, results, "--changed", "-1"]) == 2


@pytest.mark.parametrize(
    ("lift", "coverage", "code", "tag"),
    [(0.02, 1.0, 0, None), (0.3, 1.0, 1, "failure"), (0.085, 1.0, 2, "skipped"), (0.02, 0.5, 2, "skipped")],
)
def test_gate_exit_codes_and_junit(lift, coverage, code, tag, tmp_path, capsys):
    folder = write_lm_eval(tmp_path / "run", metrics(lift, coverage=coverage))
    assert run("gate", folder, "--max-lift", 0.1, "--junit", tmp_path / "out" / "gate.xml") == code
    assert f"(exit code {code})" in capsys.readouterr().out
    cases = list(ElementTree.parse(tmp_path / "out" / "gate.xml").iter("testcase"))
    assert [case.get("name") for case in cases] == ["max-lift", "min-coverage"]
    assert {child.tag for case in cases for child in case} - {"system-out"} == ({tag} if tag else set())


def test_samples_that_are_not_all_there_do_not_pass(tmp_path, capsys):
    cut = write_lm_eval(tmp_path / "cut", metrics(0.02, number=40), scored=150)
    assert run("gate", cut, "--max-lift", 0.1) == 2
    shown = capsys.readouterr()
    assert "but: the run did not finish (40 of 150 system prompts are in the samples file). Copy its whole samples file" in shown.out
    assert "(40 of 150 system prompts are in the samples file): numbers are of these. Copy its whole samples file" in shown.err
    assert "eval-retry" not in shown.out + shown.err
    # A run with --limit, and one whose count is of a metric that some system prompts do not have, are whole.
    for scored in (40, 39):
        assert run("gate", write_lm_eval(tmp_path / str(scored), metrics(0.02, number=40), scored=scored), "--max-lift", 0.1) == 0
    # Nor is it more than one system prompt where several filters of a task have a line each.
    twice = write_lm_eval(tmp_path / "filters", metrics(0.02, number=75), scored=150)
    (samples,) = twice.glob("samples_*")
    samples.write_text(samples.read_text() * 2)
    assert run("gate", twice, "--max-lift", 0.1) == 2


def test_a_retried_sample_keeps_the_null_answers_that_it_was_scored_against(tmp_path):
    from inspect_ai.log import read_eval_log, write_eval_log

    (path,) = write_inspect(tmp_path, metrics(0.02, number=3)).glob("*.eval")
    log = read_eval_log(str(path))
    for sample, nulls in zip(log.samples, (["First."], ["Again."], [])):
        sample.store = {"Answers:answers": ["Hello!"], "Answers:null_answers": nulls}
    write_eval_log(log, str(path))
    (results,) = read_results(path)
    assert [results.nulls_of(row) for row in results.rows] == [("First.",), ("Again.",), ("First.",)]


def test_each_process_of_lm_eval_has_null_answers_of_its_own(tmp_path):
    folder = write_lm_eval(tmp_path / "run", metrics(0.1, 5), signature={"num_queries": 1})
    (path,) = folder.glob("samples_*.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    samples[0]["resps"] += [["null of the first"]]  # which has three documents, and the second two
    samples[3]["resps"] += [["null of the second"]]
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (found,) = read_results(folder)
    assert [found.nulls_of(row) for row in found.rows] == [("null of the first",)] * 3 + [("null of the second",)] * 2
    assert {row.answers for row in found.rows} == {("Hello!",)}
    assert found.null_answers == ("null of the first",)


def test_a_byte_order_mark_before_a_results_file_changes_nothing(results):
    (path,) = results.glob("results_*.json")
    plain = read_results(results)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_results(results) == plain
    assert plain[0].signed
    assert run_settings(plain[0]).model == "hf"


def test_epochs_are_no_further_system_prompts(tmp_path, capsys):
    from inspect_ai.log import read_eval_log, write_eval_log

    path = write_inspect(tmp_path, metrics(0.5)) / "run.eval"
    log = read_eval_log(str(path))
    log.samples = [sample.model_copy(update={"epoch": epoch}) for epoch in (1, 2, 3) for sample in log.samples]
    log.status = "error"
    write_eval_log(log, str(path))
    assert run("report", path) == 0
    shown = capsys.readouterr()
    assert f"## {TASK} (inspect, 30 of 30 system prompts scored)" in shown.out
    assert "30 of an unknown number of system prompts" in shown.err
    assert run("report", path, "-o", tmp_path / "report.html") == 0
    assert "runs: 1, system prompts: 30, written to" in capsys.readouterr().out


@pytest.mark.parametrize(("task", "known"), [("prompt_leakage_exposure", {}), ("prompt_leakage_attacks", {"coverage": 0.0})])
def test_a_failed_sample_has_the_coverage_of_its_task(task, known, tmp_path):
    """An exposure run has no coverage, so that its mean would be of the failed samples alone."""
    from inspect_ai.log import EvalError, read_eval_log, write_eval_log

    scored = {"exposure_asked": 9.0} if task == "prompt_leakage_exposure" else {"asr_union": 0.0, "coverage": 1.0}
    path = write_inspect(tmp_path, [scored] * 3, f"lm_eval_inversion/{task}") / "run.eval"
    log = read_eval_log(str(path))
    log.samples[1].scores, log.samples[1].error = None, EvalError(message="out of memory", traceback="", traceback_ansi="")
    write_eval_log(log, str(path))
    (results,) = read_results(path)
    assert [row.metrics for row in results.rows] == [scored, known, scored]
    assert ("coverage" in metrics_table(results)) is bool(known)


def test_a_log_that_is_signed_with_other_prompts_than_its_own_is_told(tmp_path, capsys):
    from inspect_ai.log import read_eval_log, write_eval_log

    from lm_eval_inversion.prompts import SystemPrompt, prompts_hash

    path = write_inspect(tmp_path, metrics(0.5, 3)) / "run.eval"
    own = [SystemPrompt(f"own-{number}", f"You are baker {number}.") for number in range(3)]

    def cautions(signed, *, source="mine.txt/test", epochs=1, changed=None, **config):
        log = read_eval_log(str(path))
        log.eval.metadata |= {"prompts": source, "prompts_hash": prompts_hash(signed)}
        log.eval.dataset.sample_ids = [prompt.id for prompt in own]
        log.eval.config = log.eval.config.model_copy(update=config)
        log.samples = [sample.model_copy(deep=True, update={"epoch": epoch + 1}) for epoch in range(epochs) for sample in log.samples]
        if changed is not None:
            log.samples[changed].metadata["prompt"]["text"] = "You are another baker."
        log.samples.sort(key=lambda sample: -int(sample.id[-1]))  # whatever the order, the hash is over that of the file
        write_eval_log(log, str(tmp_path / "signed.eval"))
        assert run("report", tmp_path / "signed.eval") == 0
        return "Samples are of other system prompts than the log is signed with" in capsys.readouterr().err

    edited = [*own[:2], SystemPrompt("own-2", "You are a sailor.")]
    assert cautions(edited)
    assert cautions(own, epochs=2, changed=4)  # one epoch of the old text, one of the new
    assert not cautions(own)
    assert not cautions(own, epochs=2)
    # Of a part, of shipped sets and of markers nothing can be said.
    assert not cautions(edited, limit=3)
    assert not cautions(edited, sample_id=["own-0"])
    assert not cautions(edited, source="v1/test")
    log = read_eval_log(str(path))
    for sample in log.samples:
        sample.metadata["prompt"]["text"] = "[sha256:0123456789ab, 20 characters, 4 words]"
    write_eval_log(log, str(path))
    assert not cautions(own)


@pytest.mark.parametrize("task", [TASK, "prompt_leakage_attacks", "prompt_leakage_exposure"])
def test_a_run_without_scores_is_told_from_one_with(task, tmp_path, capsys):
    folder = write_lm_eval(tmp_path / "run", [{"bypass": 999}] * 2, task=task)
    for samples in folder.glob("samples_*"):  # no JSON stands in the responses of such a run
        samples.write_text(samples.read_text().replace(json.dumps(json.dumps(REQUEST)), '"Hello!"'))
    assert run("report", folder) == 2
    shown = capsys.readouterr().err
    assert "the run was made with --predict_only and has no scores; run it without, or give it to training.convert" in shown
    assert "is not a sample" not in shown


def test_gate_reads_both_hosts(tmp_path, results, capsys):
    logs = write_inspect(tmp_path / "logs", metrics(0.5))
    assert run("gate", results, "--max-lift", 0.1) == 0
    assert run("gate", results, logs, "--max-lift", 0.1) == 1
    shown = capsys.readouterr().out
    assert f"| breach | inspect.{TASK} |" in shown
    assert f"| pass | lm_eval.{TASK} |" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-asr", "0.05"], "no result has asr_union"),
        ([], "no limit is given"),
        (["--max-lift", "7"], "--max-lift 7: give a number from -1 to 1"),
        (["--max-lift", "0.1", "--confidence", "95"], "--confidence 95"),
    ],
)
def test_errors_of_the_gate_are_3_and_stand_in_the_junit_file(options, message, tmp_path, results, capsys):
    junit = tmp_path / "gate.xml"
    junit.write_text("from an older run that passed")
    assert run("gate", results, *options, "--junit", junit) == 3
    shown = capsys.readouterr()
    assert message in shown.out + shown.err
    assert message in ElementTree.parse(junit).find(".//error").get("message")


def error_in(junit):
    return ElementTree.parse(junit).find(".//error").get("message")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--nope"], "unrecognised arguments: --nope"),
        (["--max-lift", "much"], "invalid float value: 'much'"),
        (["--max-asr"], "--max-asr: expected one argument"),
    ],
)
@pytest.mark.parametrize("spelt", [("--junit", "{}"), ("--junit={}",)])
def test_wrong_usage_of_the_gate_leaves_no_older_junit_file(wrong, message, spelt, results, tmp_path, capsys):
    junit = tmp_path / "gate.xml"
    junit.write_text("from an older run that passed")
    named = [part.format(junit) for part in spelt]
    assert exit_code(["gate", results, *named, *wrong]) == 3
    assert message in error_in(junit)
    assert message in capsys.readouterr().err


def test_what_ends_the_gate_early_leaves_no_older_junit_file(results, tmp_path, monkeypatch, capsys):
    junit = tmp_path / "gate.xml"
    for error, code, message in ((RuntimeError("our mistake"), 3, "RuntimeError: our mistake"), (KeyboardInterrupt(), 130, "interrupted")):
        junit.write_text("from an older run that passed")

        def stop(*_, error=error):
            raise error

        monkeypatch.setattr("lm_eval_inversion.report.gate.check_results", stop)
        assert run("gate", results, "--max-lift", 0.1, "--junit", junit) == code
        assert message in error_in(junit)
        assert message in capsys.readouterr().err
    # Where no path can be read, or none can be written, the error is told as without it.
    assert exit_code(["gate", results, "--max-lift", "0.1", "--junit"]) == 3
    assert exit_code(["gate", results, "--nope", "--junit", tmp_path]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_wrong_usage_of_the_gate_is_3_and_of_others_2(results, tmp_path, capsys):
    for wrong in (["--nope"], ["--max-lift", "much"], ["--max-asr"], ["--max-l", "0.1"]):
        assert exit_code(["gate", results, *wrong]) == 3
        assert exit_code(["report", results, *wrong]) == 2
    assert exit_code(["gate"]) == 3
    assert exit_code([]) == 2
    assert exit_code(["nope"]) == 2
    assert run("gate", tmp_path / "nowhere", "--max-lift", 0.1) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_files_that_are_no_results_are_named(tmp_path, capsys):
    (tmp_path / "samples_x_1.jsonl").write_text('{"doc": 1}\n')
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "broken.eval").write_text("not a zip file")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "samples_empty_1.jsonl").write_text("")
    for path, message in ((tmp_path / "samples_x_1.jsonl", "line 1"), (tmp_path / "b", "broken.eval"), (tmp_path / "c", "samples_empty")):
        assert run("report", path) == 2
        assert run("gate", path, "--max-lift", 0.1) == 3
        shown = capsys.readouterr().err
        assert shown.count(message) == 2
        assert "Traceback" not in shown


def test_output_that_cannot_be_written(results, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run("compare", results, results, "-o", blocked / "under") == 2
    assert run("card", results, "-o", blocked / "under") == 2
    assert run("report", results, "-o", blocked / "under") == 2
    assert run("gate", results, "--max-lift", 0.1, "--junit", blocked / "under") == 3
    assert capsys.readouterr().err.count("cannot be written") == 4


def test_a_card_is_written_into_a_new_folder(results, tmp_path, capsys):
    assert run("card", results, "-o", tmp_path / "new" / "card.md") == 0
    written = (tmp_path / "new" / "card.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""
    assert run("card", results) == 0
    assert capsys.readouterr().out == written


def test_redact_takes_folders(tmp_path, monkeypatch, capsys):
    redacted = []
    module = ModuleType("lm_eval_inversion.adapters.inspect.redacting")
    module.redact_log, module.sample_buffers, module.traces = redacted.append, lambda logs: [], list
    monkeypatch.setitem(sys.modules, module.__name__, module)
    logs = [write_inspect(tmp_path / "logs" / name, metrics(0.5)) / "run.eval" for name in ("a", "b")]
    assert run("redact", tmp_path / "logs", logs[0]) == 0
    assert redacted == logs
    write_lm_eval(tmp_path / "logs" / "c", metrics(0.5))
    (tmp_path / "empty").mkdir()
    for folder, told in (("logs", "redacted afterwards, and nothing was"), ("empty", "holds neither"), ("none", "does not exist")):
        assert run("redact", tmp_path / folder) == 2
        assert told in capsys.readouterr().err
    assert redacted == logs


def test_redact_names_what_inspect_keeps_elsewhere(tmp_path, monkeypatch, capsys):
    import inspect_ai._util.appdirs

    monkeypatch.setattr(inspect_ai._util.appdirs, "inspect_data_dir", lambda name: tmp_path / "data" / name)
    log = write_inspect(tmp_path / "logs", metrics(0.5)) / "run.eval"
    assert run("redact", log) == 0
    assert capsys.readouterr().err == ""
    # Of a process that was killed, of one with --log-shared too, and of one that came to its end.
    names = ("data/samplebuffer/1a2b/run.eval.77.db", "logs/.buffer/run/segment.1.zip", "data/traces/trace-7.log.gz")
    kept = [tmp_path / name for name in names]
    for file in kept:
        file.parent.mkdir(parents=True)
        file.write_text("You are Mira.")
    assert run("redact", tmp_path / "logs") == 0
    buffers, notes = capsys.readouterr().err.splitlines()
    assert f"in {kept[0].parent}, {kept[1].parent}, in plain text (2 files)" in buffers
    assert f"in {kept[2].parent} (1 files)" in notes


def test_redact_leaves_no_readable_log_behind_one_that_it_cannot_redact(tmp_path, capsys):
    write_others(write_inspect(tmp_path / "logs" / "b", metrics(0.5), name="private.eval"))
    (tmp_path / "logs" / "b" / "samples_gsm8k_2026-01-02T03-04-05.000001.jsonl").rename(tmp_path / "logs" / "samples_gsm8k_1.jsonl")
    whole = (tmp_path / "logs" / "b" / "private.eval").read_bytes()
    for place in ("a", "c"):
        (tmp_path / "logs" / place).mkdir()
        (tmp_path / "logs" / place / "cut_off.eval").write_bytes(whole[: len(whole) // 2])
    assert run("redact", tmp_path / "logs") == 2
    shown = capsys.readouterr()
    assert shown.out == f"redacted: {tmp_path / 'logs' / 'b' / 'private.eval'}\n"
    assert "You are baker" not in read_results(tmp_path / "logs" / "b" / "private.eval")[0].rows[0].truth
    told = [line for line in shown.err.splitlines() if "warning" not in line]
    assert len(told) == 1
    assert "error: 2 of 3 logs could NOT be redacted and are still readable: " in told[0]
    for place in ("a", "c"):
        assert told[0].count(str(tmp_path / "logs" / place / "cut_off.eval")) == 1
    (left_out,) = [line for line in shown.err.splitlines() if "left out" in line]
    assert "gsm8k.eval" in left_out
    assert "samples_gsm8k" in left_out
    # By its name, a log of another task is no log that may be passed over.
    assert run("redact", tmp_path / "logs" / "b" / "gsm8k.eval") == 2
    assert "gsm8k.eval is not a log of one of this package's tasks" in capsys.readouterr().err


def test_no_control_character_of_a_results_file_reaches_the_terminal(tmp_path, capsys):
    evil = "\x1b[31mEVIL | x\u202e"
    folder = write_lm_eval(
        tmp_path / "run", [{"asr_union": 1.0, "recovery_max": 0.7, "coverage": 1.0}], task="prompt_leakage_attacks",
        signature={"package_version": evil, "host": evil},
    )  # fmt: skip
    samples, settings = next(folder.glob("samples_*")), next(folder.glob("results_*"))
    settings.write_text(settings.read_text().replace('"tiny"', json.dumps(evil)))
    request = {**REQUEST, "attack": evil, "decoder": evil}
    sample = json.loads(samples.read_text())
    samples.write_text(json.dumps({**sample, "filtered_resps": [json.dumps(request)]}))
    for words in (["report"], ["card"], ["card", "--model-index"], ["gate", "--max-asr", "1"], ["defences"]):
        assert run(words[0], folder, *words[1:]) == 0
        shown = capsys.readouterr().out
        assert "␛[31mEVIL" in shown, words
        assert not set("\x1b\u202e") & set(shown), words
    assert run("compare", folder, tmp_path / evil) == 2
    assert not set("\x1b\u202e") & set(capsys.readouterr().err)


def test_a_name_on_the_screen_cannot_make_a_heading(tmp_path, capsys):
    write_inspect(tmp_path, metrics(0.02), task="mine\n# Safe")
    assert run("report", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "## mine # Safe (inspect, 30 of 30 system prompts scored)" in shown
    assert not [line for line in shown.splitlines() if line.startswith("# ")]


def test_a_name_in_a_table_cannot_make_a_cell():
    from lm_eval_inversion.prompts import SystemPrompt
    from lm_eval_inversion.report.reading import Results, Row

    row = Row(SystemPrompt("a", "You are A."), "", {"asr_union": 1.0}, ({**REQUEST, "attack": "a | b", "decoder": "c | d"},))
    line = attacks_table(Results("prompt_leakage_attacks", "inspect", [row])).splitlines()[2]
    assert len(re.split(r"(?<!\\)\|", line)) == 7 + 2


def test_a_crash_does_not_read_as_a_breach(monkeypatch, results, capsys):
    def crash(*_):
        raise RuntimeError("our own mistake")

    monkeypatch.setattr("lm_eval_inversion.report.gate.check_results", crash)
    assert run("gate", results, "--max-lift", 0.1) == 3
    assert "RuntimeError: our own mistake" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error_message(results):
    command = f"{shlex.quote(sys.executable)} -m lm_eval_inversion report {shlex.quote(str(results))} | true"
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert found.stderr == ""


@pytest.mark.parametrize(
    ("verb", "module", "declare", "work"),
    [
        ("plan", "lm_eval_inversion.plan", "add_arguments", "run"),
        ("rerank", "lm_eval_inversion.report.reranked", "add_arguments", "run"),
        ("export", "lm_eval_inversion.report.export", "add_export_arguments", "run_export"),
        ("card", "lm_eval_inversion.report.card", "add_card_arguments", "run_card"),
    ],
)
def test_other_verbs_are_handed_on(verb, module, declare, work, monkeypatch, capsys):
    stand_in = ModuleType(module)
    setattr(stand_in, declare, lambda parser: parser.add_argument("--number", type=int))
    setattr(stand_in, work, lambda options: options.number)
    monkeypatch.setitem(sys.modules, module, stand_in)
    assert run(verb, "--number", 7) == 7
    assert exit_code([verb, "--help"]) == 0
    assert f"example: lm-eval-inversion {verb}" in capsys.readouterr().out

    def refuse(options):
        raise ValueError("speed=0: give tokens per second above 0")

    setattr(stand_in, work, refuse)
    assert run(verb) == 2
    assert capsys.readouterr().err == f"lm-eval-inversion {verb}: error: speed=0: give tokens per second above 0\n"


def test_rerank_refuses_runs_of_several_models_before_it_loads_one(results, tmp_path, capsys):
    logs = write_inspect(tmp_path / "logs", metrics(0.02))
    assert run("rerank", results, logs, "--model", tmp_path / "nowhere") == 2
    assert "the runs are of model, tiny; give those of one" in capsys.readouterr().err


def test_the_ci_example_is_a_workflow_whose_commands_work(tmp_path, monkeypatch, capsys):
    document = (ROOT / "docs" / "ci-gate.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)]
    workflow = blocks[0]
    assert {"name", "jobs"} <= set(workflow)  # YAML reads the key "on" as true
    steps = workflow["jobs"]["gate"]["steps"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    monkeypatch.chdir(tmp_path)
    write_lm_eval(tmp_path / "results" / "new", metrics(0.02))
    attacked = [{"asr_union": 0.0, "recovery_max": 0.1, "coverage": 1.0}] * 80
    write_lm_eval(tmp_path / "results" / "new", attacked, task="prompt_leakage_attacks", moment="2026-01-03T00-00-00.0")
    (gate,) = [step["run"] for step in steps if step.get("name") == "Gate"]
    assert run(*shlex.split(gate)[1:]) == 0, capsys.readouterr()
    assert len(list(ElementTree.parse("gate.xml").iter("testcase"))) == 4
    write_lm_eval(tmp_path / "results" / "old", metrics(0.03))
    commands = re.findall(r"lm-eval-inversion ((?:gate|compare) .*?)(?: \|\| code=.*)?$", document, re.MULTILINE)
    commands = [command for command in commands if not command.startswith("gate`")]
    assert len(commands) == 4
    for command in commands:
        assert run(*shlex.split(command)) == 0, (command, capsys.readouterr())


def test_results_of_earlier_versions_are_read(tmp_path):
    """One prompt had an attribute that no prompts file may have any more."""
    attributes = [{"slot": "format", "value": "(?)", "aliases": [], "false_value": "(sic)"}]
    doc = {"id": "a", "text": "Mark uncertain words with (?).", "category": "c", "split": "test", "attributes": json.dumps(attributes)}
    sample = {"doc": doc, "resps": [["Hello!"]], "filtered_resps": ["You are a guess."], "bits": 1.0}
    path = tmp_path / "samples_prompt_inversion_ordinary_2026.jsonl"
    path.write_text(json.dumps(sample) + "\n")
    (results,) = read_results(path)
    assert results.rows[0].metrics == {"bits": 1.0}


@pytest.mark.parametrize(("defended", "shown"), [(False, "encode-1: Hello!"), (True, "encode-1: (withheld by the defence)")])
def test_an_answer_that_a_defence_withheld_is_not_shown_as_what_most_came_out(defended, shown, tmp_path):
    path = write_lm_eval(tmp_path, [{"resistance": 0.0}], task="prompt_leakage_attacks")
    (samples,) = path.glob("samples_*")
    sample = json.loads(samples.read_text())
    samples.write_text(json.dumps({**sample, "filtered_resps": [json.dumps({**REQUEST, "defended": defended})]}))
    assert read_results(path)[0].rows[0].reconstruction == shown


def test_floors_that_older_versions_had_with_a_sign_are_read_without(tmp_path):
    """Their mean is about 0 by construction, beside which any score would seem to beat chance."""
    older, newer = {"bits": 9.0, "bits_null": -2.5}, {"bits": 9.0, "bits_null": -2.5, "bits_spread_null": 2.0}
    (results,) = read_results(write_lm_eval(tmp_path, [older, newer]))
    assert [row.metrics["bits_spread_null"] for row in results.rows] == [2.5, 2.0]


def test_parameters_of_other_tasks_of_a_run_are_not_part_of_a_signature(tmp_path):
    """lm_eval hands every parameter to every task."""
    given = {"num_queries": 2, "tier": "smoke", "split": "dev", "canary_seed": 3}
    inversion = write_lm_eval(tmp_path / "a", [{"bits": 1.0}], signature=given)
    canary = write_lm_eval(tmp_path / "b", [{"resistance": 1.0}], task="prompt_leakage_canary", signature=given)
    known = [set(read_results(path)[0].signature) & set(given) for path in (inversion, canary)]
    assert known == [{"num_queries", "split"}, {"tier", "canary_seed"}]


def test_tasks_of_the_users_own_are_read_as_what_they_include(tmp_path):
    """lm_eval's YAML files may include one of this package's under another name."""
    attacks = {"base_task": "prompt_leakage_attacks", "num_queries": 3}
    write_lm_eval(tmp_path, [{"resistance": 1.0}], task="mine", signature=attacks)
    write_lm_eval(tmp_path, [{"bits": 1.0}], task="yours", moment="2026-01-02T03-04-06", signature={"base_task": TASK})
    found = {results.task: results for results in read_results(tmp_path)}
    assert {name: results.kind for name, results in found.items()} == {"mine": "prompt_leakage_attacks", "yours": TASK}
    assert found["mine"].rows[0].requests
    assert "num_queries" not in found["mine"].signature
    assert "--tasks prompt_leakage_attacks" in rerun_command(found["mine"], run_settings(found["mine"]))
    assert not found["yours"].rows[0].requests
    with pytest.raises(ValueError, match="answers to attacks are no training data"):
        pairs_from_file(found["mine"].source)
