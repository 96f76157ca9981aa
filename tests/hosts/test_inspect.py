"""The Inspect adapter on the real host."""

import io
import itertools
import math
import shutil
import subprocess
import sys
import threading
import time
from copy import copy
from inspect import getclosurevars, signature
from pathlib import Path

import pytest
from conftest import TEMPLATE, TEMPLATE_DROPS_SYSTEM, write_chat_model

from lm_eval_inversion import load_prompts
from lm_eval_inversion.adapters.inspect.refusals import ScorerError, in_one_sentence
from lm_eval_inversion.prompts import prompts_hash
from lm_eval_inversion.protocol import TASK_VERSION
from lm_eval_inversion.redaction import KEY_VARIABLE
from lm_eval_inversion.report.reading import read_results
from lm_eval_inversion.scoring.metrics import METRICS, USUAL_METRICS

from .conftest import failing_model, mock_model, run_inspect

ROOT = Path(__file__).parents[2]
LEAKAGE_KINDS = ("attacks", "multiturn", "canary", "exposure")


def values(log):
    return {score.name: score.metrics["mean"].value for score in log.results.scores}


def test_a_run_logs_truth_reconstruction_and_signature(chat_model, arguments, tmp_path):
    log = run_inspect(chat_model, tmp_path, task_args=arguments, max_tokens=12)
    assert log.status == "success", log.error
    assert set(values(log)) == set(USUAL_METRICS)
    prompts = {prompt.id: prompt for prompt in load_prompts("v1")}
    for sample in log.samples:
        score = sample.scores["inversion"]
        assert sample.target == prompts[sample.id].text
        assert prompts[sample.id].text in score.explanation
        assert isinstance(score.answer, str)
        assert score.metadata["inverter_hash"]
        assert score.metadata["system_role"] == "system"
    for key in ("package_version", "prompts_hash", "queries_hash", "task_version", "host", "decoy_seed"):
        assert log.eval.metadata[key] is not None, key
    assert log.eval.task_version == str(TASK_VERSION)
    # The null conversation ran once: queries of 3 samples, and of the null run.
    calls = sum(event.event == "model" for sample in log.samples for event in sample.events)
    assert calls == 2 * 3 + 2


def test_a_saved_log_is_scored_again_with_another_inverter(chat_model, arguments, tmp_path):
    log = run_inspect(chat_model, tmp_path, task_args=arguments, max_tokens=12)
    again = tmp_path / "again.eval"
    command = [
        sys.executable, "-m", "inspect_ai", "score", log.location, "--model", "none/none", "--scorer", "lm_eval_inversion/inversion",
        "-S", "inverter=constant", "--action", "overwrite", "--output-file", str(again), "--display", "none",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    from inspect_ai.log import read_eval_log

    scored = read_eval_log(str(again))
    assert {sample.scores["inversion"].answer for sample in scored.samples} == {"You are a helpful assistant."}
    assert all(math.isnan(sample.scores["inversion"].value["bits"]) for sample in scored.samples)


def test_scoring_later_equals_scoring_at_once(chat_model, arguments, tmp_path):
    from inspect_ai import score

    from lm_eval_inversion.adapters.inspect.scorers import inversion

    log = run_inspect(chat_model, tmp_path / "now", task_args=arguments, max_tokens=12)
    unscored = run_inspect(chat_model, tmp_path / "later", task_args=arguments, max_tokens=12, score=False)
    later = score(unscored, inversion(inverter=arguments["inverter"]), action="overwrite", display="none")
    assert values(later) == pytest.approx(values(log), abs=1e-9)


@pytest.fixture(scope="module")
def unusual(tiny_inverter_folder, tmp_path_factory):
    """A log with answers and no scores, of a run whose parameters are none of them the usual ones; and those."""
    from inspect_ai import eval as inspect_eval

    arguments = {
        "inverter": str(tiny_inverter_folder), "inverter_device": "cpu", "inverter_dtype": "bfloat16", "decoy_seed": 5, "curve": True,
    }  # fmt: skip
    log = inspect_eval(
        "lm_eval_inversion/prompt_inversion_ordinary", model=mock_model(lambda messages: f"I bake {len(messages[0].text)} loaves."),
        limit=2, log_dir=str(tmp_path_factory.mktemp("unusual")), display="none", task_args={**arguments, "num_queries": 2}, score=False,
    )[0]  # fmt: skip
    assert log.status == "success", log.error
    return log, arguments


def signed(log):
    """What the scores of a log say of how they were made; the same for all of its samples."""
    names = ("inverter", "inverter_dtype", "decoy_seed")
    (found,) = {
        (*(sample.scores["inversion"].metadata[name] for name in names), *sample.scores["inversion"].value) for sample in log.samples
    }
    return dict(zip(names, found)), found[len(names) :]


def test_a_log_is_scored_as_it_was_made_but_for_what_is_given(unusual):
    from inspect_ai import score

    from lm_eval_inversion.adapters.inspect.scorers import inversion

    log, arguments = unusual
    made_with = {name: arguments[name] for name in ("inverter", "inverter_dtype", "decoy_seed")}
    at_once = score(log, inversion(**arguments), display="none")
    as_made = score(log, inversion(), display="none")
    assert signed(as_made) == signed(at_once) == (made_with, tuple(METRICS))
    assert values(as_made) == pytest.approx(values(at_once), nan_ok=True)
    assert not math.isnan(values(as_made)["bits_at_1"])
    # A curve that was not asked for now is empty where there is none.
    other = score(log, inversion(inverter="constant"), display="none")
    assert signed(other) == ({**made_with, "inverter": "constant"}, tuple(METRICS))
    assert all(math.isnan(sample.scores["inversion"].value["bits_at_1"]) for sample in other.samples)
    anew = score(log, inversion(inverter_dtype="float32", decoy_seed=0, curve=False), display="none")
    assert signed(anew) == ({**made_with, "inverter_dtype": "float32", "decoy_seed": 0}, USUAL_METRICS)


def test_an_older_log_is_scored_by_what_is_usual(unusual):
    from inspect_ai import score

    from lm_eval_inversion.adapters.inspect.scorers import inversion
    from lm_eval_inversion.adapters.inspect.settings import SETTINGS

    log, older = unusual[0], unusual[0].model_copy(deep=True)
    for sample in older.samples:
        del sample.metadata[SETTINGS]
    usual = {"inverter_dtype": "auto", "decoy_seed": 0}
    assert signed(score(older, inversion(inverter="constant"), display="none")) == ({"inverter": "constant", **usual}, USUAL_METRICS)
    # Begun with an older version, and ended by eval-retry with this one: nothing says what all of its scores should be.
    mixed = log.model_copy(deep=True)
    del mixed.samples[1].metadata[SETTINGS]
    with pytest.raises(ScorerError, match=r"different inverter_device, inverter_dtype, decoy_seed, curve; .*-S inverter_device=auto"):
        score(mixed, inversion(inverter="constant"), display="none")
    given = {"inverter": "constant", "inverter_device": "auto", "inverter_dtype": "auto", "decoy_seed": 1, "curve": False}
    assert signed(score(mixed, inversion(**given), display="none"))[0]["decoy_seed"] == 1


def test_what_the_log_names_and_is_not_here_is_told(unusual):
    from inspect_ai import score

    from lm_eval_inversion.adapters.inspect.scorers import inversion
    from lm_eval_inversion.adapters.inspect.settings import SETTINGS

    elsewhere = unusual[0].model_copy(deep=True)
    for sample in elsewhere.samples:
        sample.metadata[SETTINGS] = {**sample.metadata[SETTINGS], "inverter": "nope"}
    with pytest.raises(ScorerError, match=r"inverter='nope' is unknown.*\(the log was made with inverter=nope, inverter_device=cpu, "):
        score(elsewhere, inversion(), display="none")
    for sample in elsewhere.samples:
        sample.metadata[SETTINGS] = {**sample.metadata[SETTINGS], "inverter": "constant"}
    with pytest.raises(ScorerError, match="curve=true measures bits from fewer outputs, and inverter='constant'"):
        score(elsewhere, inversion(curve=True), display="none")


def test_a_template_without_system_role_gets_the_prompt_in_the_user_turn(tmp_path, arguments):
    model = write_chat_model(tmp_path / "model", TEMPLATE_DROPS_SYSTEM)
    log = run_inspect(model, tmp_path, task_args=arguments, limit=1, max_tokens=12)
    assert log.status == "success", log.error
    assert log.samples[0].scores["inversion"].metadata["system_role"] == "user"
    request = next(message for message in log.samples[0].messages if message.role == "user")
    assert load_prompts("v1")[0].text in request.text


@pytest.mark.parametrize("text", ["", "I'm sorry, I can't help with that."])
def test_a_model_that_says_nothing_is_unscored(arguments, tmp_path, text):
    from inspect_ai import eval as inspect_eval

    log = inspect_eval(
        "lm_eval_inversion/prompt_inversion_ordinary", model=mock_model(lambda _: text), task_args=arguments, limit=2,
        log_dir=str(tmp_path), display="none",
    )[0]  # fmt: skip
    assert log.status == "success", log.error
    for sample in log.samples:
        score = sample.scores["inversion"]
        assert score.reason == "no_response"
        assert score.answer is None
        assert score.value["coverage"] == 0
        assert math.isnan(score.value["bits"])
        assert math.isnan(score.value["token_f1"])
    bits = next(score for score in log.results.scores if score.name == "bits")
    assert (bits.scored_samples, bits.unscored_samples) == (0, 2)


def test_the_log_shows_a_request_with_its_own_answer(tmp_path):
    from inspect_ai import eval as inspect_eval

    log = inspect_eval(
        "lm_eval_inversion/prompt_leakage_attacks", model=mock_model(lambda messages: f"You said: {messages[-1].text}"), limit=1,
        task_args={"tier": "smoke"}, log_dir=str(tmp_path), display="none",
    )[0]  # fmt: skip
    (sample,) = log.samples
    *asked, answer = sample.messages
    first = sample.metadata["conversations"][0]
    assert [message.text for message in asked] == [first["system_prompt"], first["turns"][0]["content"]]
    assert answer.text == sample.output.completion == sample.store["Answers:answers"][0] == f"You said: {asked[-1].text}"


def test_a_model_without_chat_template_is_refused(tmp_path, arguments):
    model = write_chat_model(tmp_path / "model", None)
    log = run_inspect(model, tmp_path, task_args=arguments, limit=1)
    assert log.status == "error"
    assert "the model has no chat template" in log.error.message


@pytest.mark.parametrize("task", ["prompt_inversion_ordinary", "prompt_leakage_attacks"])
def test_a_system_message_of_the_host_is_refused(chat_model, arguments, tmp_path, task):
    given = arguments if task == "prompt_inversion_ordinary" else {"tier": "smoke"}
    log = run_inspect(chat_model, tmp_path, task, task_args=given, limit=1, max_tokens=4, system_message="You are a pirate.")
    assert log.status == "error"
    assert "--system-message 'You are a pirate.' would stand before; remove the option" in log.error.message
    # What did not finish is not read as if it had.
    assert read_results(Path(log.location))[0].unfinished.startswith("status 'error'")


def test_a_thought_that_the_template_opened_is_not_read_as_the_answer(tmp_path, arguments):
    model = write_chat_model(tmp_path / "model", TEMPLATE.replace("assistant: {% endif", "assistant: <think>\n{% endif"))
    log = run_inspect(model, tmp_path, task_args=arguments, max_tokens=12)
    assert log.status == "success", log.error
    for sample in log.samples:
        assert all(answer.startswith("<think>") for answer in sample.store["Answers:answers"])
        assert sample.scores["inversion"].value["coverage"] == 0


def test_a_request_that_would_be_cut_is_refused(tmp_path, arguments):
    model = write_chat_model(tmp_path / "model", context=64)
    log = run_inspect(model, tmp_path, task_args=arguments, limit=1)
    assert log.status == "error"
    assert "more than the model's context of 64" in log.error.message


@pytest.mark.parametrize(
    ("task_args", "message"),
    [
        ({"num_queries": 0}, "num_queries=0"),
        ({"inverter": "nope"}, "inverter='nope' is unknown"),
        ({"prompts": "nowhere.txt"}, "neither a shipped set"),
        ({"inverter": "words", "curve": "true"}, "curve=true measures bits from fewer outputs, and inverter='words' is a baseline"),
        ({"inverter": "words", "inverter_device": "gpu"}, "inverter_device='gpu' cannot be used"),
    ],
)
def test_bad_parameters_fail_before_the_run(arguments, task_args, message):
    from lm_eval_inversion.adapters.inspect.tasks import prompt_inversion_ordinary

    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prompt_inversion_ordinary(**{**arguments, **task_args})


def test_the_scorer_has_the_values_that_were_checked(arguments):
    """As the task reads them, and as ``inspect score -S`` hands them over."""
    from inspect_ai._util.registry import registry_params

    from lm_eval_inversion.adapters.inspect.scorers import inversion
    from lm_eval_inversion.adapters.inspect.tasks import prompt_inversion_ordinary

    (scorer,) = prompt_inversion_ordinary(**arguments, curve="false", decoy_seed=3.0).scorer
    found = registry_params(scorer)
    assert (found["curve"], repr(found["decoy_seed"])) == (False, "3")
    kept = getclosurevars(inversion("constant", curve="false", decoy_seed=3.0)).nonlocals["chosen"].given
    assert kept["curve"] is False
    assert repr(kept["decoy_seed"]) == "3"
    with pytest.raises(ScorerError, match="curve='maybe' is neither true nor false"):
        inversion("constant", curve="maybe")
    with pytest.raises(ScorerError, match="decoy_seed='x' is not a whole number"):
        inversion("constant", decoy_seed="x")


@pytest.mark.parametrize(
    ("scorer", "given", "sentence"),
    [
        ("inversion", "inverter=nope", "inverter='nope' is unknown (no folder); give default"),
        ("inversion", "inverter_dtype=fp16", "inverter_dtype='fp16' is unknown; known: auto,"),
        ("inversion", "inverter_device=gpu", "inverter_device='gpu' cannot be used"),
        ("inversion", "inverter=a,b", "inverter=['a', 'b'] is a list, and inversion takes one inverter; run once for each. If a,b is the"),
        ("inversion", "invertr=central", "-S invertr=… is no parameter of inversion; did you mean inverter?"),
        ("leakage", "inverter=central", "-S inverter=… is no parameter of leakage, which takes none; leave it out"),
    ],
)
def test_the_command_line_of_scoring_says_what_is_wrong_with_a_parameter(tmp_path, scorer, given, sentence):
    """Inspect takes a ``ValueError`` of a scorer's factory for a scorer that it does not know."""
    from inspect_ai import eval as inspect_eval

    log = inspect_eval(
        "lm_eval_inversion/prompt_leakage_attacks", model=mock_model(lambda _: "Hello."), limit=1, task_args={"tier": "smoke"},
        log_dir=str(tmp_path), display="none", score=False,
    )[0]  # fmt: skip
    command = [sys.executable, "-m", "inspect_ai", "score", log.location, "--model", "none/none", "--action", "overwrite"]
    done = subprocess.run(
        [*command, "--scorer", f"lm_eval_inversion/{scorer}", "-S", given], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert sentence in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("task", "given", "sentence"),
    [
        ("prompt_inversion_ordinary", {"num_queries": 0}, "num_queries=0: query set 'ordinary16' has 16 queries; give a whole number from"),
        # Inspect prints markup, in which this folder would be the end of something that has no beginning.
        ("prompt_inversion_ordinary", {"prompts": "[/x]/mine.txt"}, "prompts='[/x]/mine.txt' is neither a shipped set ("),
        ("prompt_leakage_attacks", {"attacks": "no.yaml"}, "attacks='no.yaml' is neither a shipped set (v1, multiturn-v1) nor a file"),
        ("prompt_leakage_canary", {"tier": "medium"}, "tier='medium' is unknown; known: smoke, core, full"),
        ("prompt_leakage_exposure", {"canary_seed": "x"}, "canary_seed='x' is not a whole number"),
    ],
)
def test_a_wrong_parameter_is_shown_as_its_sentence_alone(task, given, sentence, monkeypatch):
    """By what Inspect's command line does with errors that nobody catches."""
    import rich
    from inspect_ai._util.error import exception_hook
    from rich.console import Console

    from lm_eval_inversion.adapters.inspect import tasks

    shown = io.StringIO()
    monkeypatch.setattr(sys, "excepthook", lambda *_: shown.write("Traceback"))
    monkeypatch.setattr(rich, "_console", Console(file=shown, width=1000))
    with pytest.raises(FileNotFoundError if {"prompts", "attacks"} & given.keys() else ValueError) as raised:
        getattr(tasks, task)(**given)
    assert str(raised.value).startswith(sentence)
    exception_hook()(raised.type, raised.value, raised.tb)
    assert shown.getvalue() == f"\n{raised.value}\n\n"


def test_the_command_line_shows_no_trace_of_a_wrong_parameter(tmp_path):
    command = [sys.executable, "-m", "inspect_ai", "eval", "lm_eval_inversion/prompt_leakage_attacks", "--model", "mockllm/model"]
    done = subprocess.run([*command, "-T", "tier=big"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "tier='big' is unknown; known: smoke, core, full" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_damaged_inverter_is_refused_by_its_own_class(tiny_inverter_folder, tmp_path):
    from lm_eval_inversion.adapters.inspect.scorers import inversion
    from lm_eval_inversion.adapters.inspect.tasks import prompt_inversion_ordinary
    from lm_eval_inversion.inverter import CheckpointError

    copied = shutil.copytree(tiny_inverter_folder, tmp_path / "copy")
    (copied / "weights.safetensors").write_bytes(b"")
    for make, kind in ((inversion, ScorerError), (prompt_inversion_ordinary, CheckpointError)):
        with pytest.raises(kind, match="weights.safetensors") as raised:
            make(inverter=str(copied))
        assert raised.value.message  # what Inspect shows of an error that needs no trace
    # Not of the kinds that answer a user: its trace is needed.
    with pytest.raises(UnicodeDecodeError), in_one_sentence():
        b"\xff".decode()


@pytest.mark.parametrize("given", [["a.txt", "b.txt"], ("a.txt", "b.txt")])
def test_files_are_taken_one_at_a_time(given):
    """Inspect makes a list of ``-T prompts=a.txt,b.txt``."""
    from lm_eval_inversion.adapters.inspect import tasks

    attacks = tasks.prompt_leakage_attacks
    for task, name in ((tasks.prompt_inversion, "prompts"), (attacks, "prompts"), (attacks, "attacks")):
        told = rf"^{name}=.* is a list, and {task.__name__} takes one file; .*If a.txt,b.txt is the name of one: .*\"{name}: a.txt,b.txt\""
        with pytest.raises(ValueError, match=told):
            task(**{name: given})
    with pytest.raises(ValueError, match=r"^inverter=.* is a list, and prompt_inversion takes one inverter; run once for each\. If"):
        tasks.prompt_inversion(inverter=given)


def test_a_file_with_a_comma_in_its_name_is_read_as_the_message_says(tmp_path, monkeypatch):
    """By what Inspect's command line makes of its options."""
    from inspect_ai._cli.util import parse_cli_config

    from lm_eval_inversion.adapters.inspect.tasks import prompt_inversion_ordinary

    monkeypatch.chdir(tmp_path)
    Path("a,b.jsonl").write_text('{"text": "You are a baker in Ghent."}\n')
    for name in ("a,b.jsonl", '"a,b.jsonl"', "'a,b.jsonl'"):
        with pytest.raises(ValueError, match='write "prompts: a,b.jsonl" into a YAML file and give --task-config FILE.yaml, or rename it'):
            prompt_inversion_ordinary(inverter="constant", **parse_cli_config((f"prompts={name}",), None))
    Path("parameters.yaml").write_text("prompts: a,b.jsonl\n")
    task = prompt_inversion_ordinary(inverter="constant", **parse_cli_config((), "parameters.yaml"))
    assert [sample.target for sample in task.dataset] == ["You are a baker in Ghent."]


def test_tasks_are_listed_from_files_and_package():
    done = subprocess.run(
        [sys.executable, "-m", "inspect_ai", "list", "tasks", "inspect_tasks"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    kinds = ("inversion", "inversion_paper", "inversion_ordinary", "inversion_user", *(f"leakage_{kind}" for kind in LEAKAGE_KINDS))
    for name in (f"prompt_{kind}" for kind in kinds):
        assert f"inspect_tasks/{name}.py@{name}" in done.stdout


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_micro_batches_serve_everybody_and_pass_errors_on(backend):
    import anyio

    from lm_eval_inversion.adapters.inspect.batching import MicroBatcher

    sizes = []

    def double(items):
        sizes.append(len(items))
        if 13 in items:
            raise RuntimeError("unlucky")
        return [2 * item for item in items]

    async def run(numbers):
        batcher = MicroBatcher(double, size=4, window=0.02)
        found = {}

        async def one(number):
            try:
                found[number] = await batcher.submit(number)
            except RuntimeError as error:
                found[number] = str(error)

        async with anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(one, number)
        return found

    assert anyio.run(run, list(range(10)), backend=backend) == {number: 2 * number for number in range(10)}
    assert max(sizes) == 4
    assert len(sizes) <= 4
    assert anyio.run(run, [13], backend=backend) == {13: "unlucky"}


def test_epochs_are_not_asked_under_one_seed(chat_model, arguments, tmp_path):
    log = run_inspect(chat_model, tmp_path, task_args=arguments, limit=1, epochs=2, max_tokens=4)
    assert log.status == "success", log.error
    first, second = (
        [event.config.seed for event in sample.events if event.event == "model" and event.input[0].role == "system"]
        for sample in sorted(log.samples, key=lambda sample: sample.epoch)
    )
    assert first == [1234, 1234]
    assert second == [1236, 1236]


def test_every_run_of_a_task_has_null_answers_of_its_own(tmp_path):
    from inspect_ai import eval as inspect_eval
    from inspect_ai import task_with
    from inspect_ai.model import GenerateConfig

    from lm_eval_inversion.adapters.inspect.tasks import prompt_inversion_ordinary

    numbers = itertools.count()
    model, task = mock_model(lambda _: f"Answer {next(numbers)}."), prompt_inversion_ordinary(inverter="constant", num_queries=2)

    def run(tasks, **settings):
        return inspect_eval(tasks, model=model, limit=2, log_dir=str(tmp_path), display="none", score=False, **settings)

    copies = [task_with(copy(task), config=GenerateConfig(temperature=number), name=f"at{number}") for number in (0, 1)]
    logs = [*run(task, temperature=0), *run(task, temperature=1), *run(copies)]
    null_answers = [{tuple(sample.store["Answers:null_answers"]) for sample in log.samples} for log in logs]
    assert [len(found) for found in null_answers] == [1, 1, 1, 1]
    assert len(set.union(*null_answers)) == 4


def test_two_tasks_at_once_give_the_numbers_of_one_after_another(arguments, tmp_path, monkeypatch):
    """Their batches share an inverter, and each evaluation has it to itself."""
    from inspect_ai import eval as inspect_eval

    from lm_eval_inversion.adapters.inspect import scorers, tasks

    def say(messages):
        asked = " ".join(message.text for message in messages)
        return "".join(f"{number}. I bake {asked[number * 7 : number * 7 + 20]} every day.\n" for number in range(1, 9))

    busy, evaluate = threading.Lock(), scorers.evaluate

    def alone(*given, **keywords):
        assert busy.acquire(blocking=False), "two evaluations at once"
        time.sleep(0.02)
        try:
            return evaluate(*given, **keywords)
        finally:
            busy.release()

    monkeypatch.setattr(scorers, "evaluate", alone)
    names = ("prompt_inversion_ordinary", "prompt_inversion", "prompt_inversion_user")

    def run(chosen, most):
        made = [getattr(tasks, name)(**arguments) for name in chosen]
        logs = inspect_eval(made, model=mock_model(say), limit=6, log_dir=str(tmp_path), display="none", max_tasks=most)
        assert [log.status for log in logs] == ["success"] * len(made), [log.error for log in logs]
        return {
            (log.eval.task, sample.id): (score.answer, score.value, score.metadata["inverter_hash"])
            for log in logs for sample in log.samples for score in sample.scores.values()
        }  # fmt: skip

    after_another = run(names[:1], 1) | run(names[1:2], 1) | run(names[2:], 1)
    at_once = run(names, 3)
    assert at_once.keys() == after_another.keys()
    assert len(at_once) == 18
    for key, (answer, value, inverter_hash) in after_another.items():
        assert (at_once[key][0], at_once[key][2]) == (answer, inverter_hash)
        assert at_once[key][1] == pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("limit", [{"token_limit": 4}, {"turn_limit": 2}])
def test_what_all_samples_share_counts_against_no_samples_limit(tmp_path, limit):
    from inspect_ai import eval as inspect_eval

    log = inspect_eval(
        "lm_eval_inversion/prompt_inversion_ordinary", model=mock_model(lambda _: "Hello."), limit=2, log_dir=str(tmp_path), display="none",
        task_args={"inverter": "constant", "num_queries": 2}, score=False, **limit,
    )[0]  # fmt: skip
    for sample in log.samples:
        assert sample.limit is None
        assert sample.store["Answers:answers"] == sample.store["Answers:null_answers"] == ["Hello.", "Hello."]


@pytest.mark.parametrize(
    ("task", "given", "solver"),
    [
        ("prompt_inversion_ordinary", {"inverter": "constant", "num_queries": 1}, "ask_queries"),
        ("prompt_leakage_attacks", {"tier": "smoke"}, "ask_queries"),
        ("prompt_leakage_canary", {"tier": "smoke"}, "ask_queries"),
        ("prompt_leakage_exposure", {"tier": "smoke"}, "rank_candidates"),
    ],
)
def test_another_solver_is_no_model_that_says_nothing(task, given, solver, tmp_path):
    from inspect_ai import eval as inspect_eval
    from inspect_ai.solver import generate

    log = inspect_eval(
        f"lm_eval_inversion/{task}", model=mock_model(lambda _: "Hello."), limit=1, log_dir=str(tmp_path), display="none", task_args=given,
        solver=generate(),
    )[0]  # fmt: skip
    assert log.status == "error"
    told = f"another solver ran in the place of lm_eval_inversion/{solver}, which asks what this task is about; leave --solver out"
    assert told in log.error.message


def test_another_solver_may_have_that_of_the_task_as_a_step(tmp_path):
    from inspect_ai import eval as inspect_eval
    from inspect_ai import score
    from inspect_ai.solver import chain, generate

    from lm_eval_inversion.adapters.inspect.scorers import leakage
    from lm_eval_inversion.adapters.inspect.solvers import ask_queries

    log = inspect_eval(
        "lm_eval_inversion/prompt_leakage_attacks", model=mock_model(lambda _: "Hello."), limit=1, log_dir=str(tmp_path), display="none",
        task_args={"tier": "smoke"}, solver=chain(generate(), ask_queries()),
    )[0]  # fmt: skip
    assert log.status == "success", log.error
    # Samples of older versions have no mark; and where a limit stopped one before its first answer, neither that.
    for empty in (False, True):
        for sample in log.samples:
            del sample.store["Answers:asked"]
            sample.metadata = {name: value for name, value in sample.metadata.items() if not name.endswith("_hash")}
            sample.store |= {"Answers:answers": [], "Answers:null_answers": []} if empty else {}
        coverage = score(log, leakage(), action="overwrite", display="none").samples[0].scores["leakage"].value["coverage"]
        assert coverage == (0 if empty else 1)
        log.samples[0].store["Answers:asked"] = True


def test_settings_that_the_model_brings_along_and_the_task_goes_over_are_told(tmp_path, caplog):
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import GenerateConfig

    model = mock_model(lambda _: "Hello.")
    model.config = GenerateConfig(temperature=0.0, seed=5, max_tokens=64, top_p=0.5)

    def told(**settings):
        caplog.clear()
        log = inspect_eval(
            "lm_eval_inversion/prompt_inversion_ordinary", model=model, limit=2, log_dir=str(tmp_path), display="none", score=False,
            task_args={"inverter": "constant", "num_queries": 1}, **settings,
        )[0]  # fmt: skip
        assert log.status == "success", log.error
        # Inspect writes the sample before it.
        return [record.getMessage().rpartition("\n")[2] for record in caplog.records if record.name.endswith("inspect.solvers")]

    assert told() == [
        "mockllm/model: temperature=0.0 of the model's own configuration is not used, but the task's 0.7; give --temperature 0.0, or "
        "eval(…, temperature=0.0)",
        "mockllm/model: seed=5 of the model's own configuration is not used, but the task's 1234; give --seed 5, or eval(…, seed=5)",
    ]
    assert told(temperature=0.0, seed=5) == []


def test_readable_reasoning_is_read():
    from inspect_ai.model import ContentReasoning

    from lm_eval_inversion.adapters.inspect.solvers import _reasoning

    assert _reasoning(ContentReasoning(reasoning="I am Mira.")) == "I am Mira."
    assert _reasoning(ContentReasoning(reasoning="EqRkAA==", summary="I am Mira.", redacted=True)) == "I am Mira."
    assert _reasoning(ContentReasoning(reasoning="EqRkAA==", redacted=True)) == ""


def test_a_slip_in_a_parameters_name_is_told(caplog):
    from lm_eval_inversion.adapters.inspect import tasks

    for task, slip, meant in ((tasks.prompt_inversion, "redacted", "redact"), (tasks.prompt_leakage_canary, "tiers", "tier")):
        with pytest.raises(ValueError, match=f"-T {slip}=… is no parameter of {task.__name__}; did you mean {meant}"):
            task(**{slip: "x"})


def test_parameters_that_a_task_does_not_use_are_told(caplog):
    from lm_eval_inversion.adapters.inspect import tasks

    tasks.prompt_leakage_canary(tier="smoke", canary_seed=1)
    assert caplog.text == ""
    # Of another task of the same command, of none, and such as ask for what the task does anyway.
    tasks.prompt_leakage_canary(tier="smoke", inverter="default", colour="red", redact="false", defence="none")
    for name in ("inverter", "colour", "redact", "defence"):
        assert f"prompt_leakage_canary does not use the parameter {name}" in caplog.text
    tasks.prompt_inversion(inverter="constant", inverter_device="cpu", tier="smoke")
    assert "prompt_inversion does not use the parameter tier" in caplog.text


@pytest.mark.parametrize("name", ["prompts", "split", "attacks", "defence"])
def test_an_empty_parameter_does_not_stand_for_the_default(name):
    """Inspect reads ``-T prompts=`` as None."""
    from lm_eval_inversion.adapters.inspect import tasks

    for task in (tasks.prompt_inversion, tasks.prompt_inversion_user, tasks.prompt_leakage_attacks, tasks.prompt_leakage_multiturn):
        given = {"inverter": "constant"} if "inversion" in task.__name__ else {"tier": "smoke"}
        if name in signature(task).parameters:
            with pytest.raises(ValueError, match=f"-T {name}= names no {name} for {task.__name__}; give a value, or leave the parameter"):
                task(**given, **{name: None})


@pytest.mark.parametrize("task", ["prompt_leakage_attacks", "prompt_leakage_multiturn"])
def test_attacks_are_by_default_those_of_the_task(task):
    from lm_eval_inversion.adapters.inspect import tasks
    from lm_eval_inversion.leakage import TASKS

    assert getattr(tasks, task)(tier="smoke").metadata["attacks"] == TASKS[task][0]


def test_a_scorer_of_other_tasks_names_the_right_one(tmp_path):
    from inspect_ai import eval as inspect_eval
    from inspect_ai import score

    from lm_eval_inversion.adapters.inspect.likelihoods import exposure
    from lm_eval_inversion.adapters.inspect.scorers import canaries, inversion, leakage

    scorers = {"inversion": inversion(inverter="constant"), "leakage": leakage(), "canaries": canaries(), "exposure": exposure()}
    made = {"prompt_inversion_ordinary": "inversion", "prompt_leakage_attacks": "leakage", "prompt_leakage_canary": "canaries"}
    for task, right in made.items():
        log = inspect_eval(
            f"lm_eval_inversion/{task}", model=mock_model(lambda _: "Hello."), limit=1, log_dir=str(tmp_path), display="none", score=False,
            task_args={"inverter": "constant", "num_queries": 1} if right == "inversion" else {"tier": "smoke"},
        )[0]  # fmt: skip
        for name, scorer in scorers.items():
            if name == right:
                score(log, scorer, display="none")
                continue
            told = f"lm_eval_inversion/{name} does not score logs of this task; give --scorer lm_eval_inversion/{right}"
            with pytest.raises(ValueError, match=told):
                score(log, scorer, display="none")
        log.samples[0].metadata = {}
        with pytest.raises(ValueError, match="is not of a task of this package, and lm_eval_inversion/leakage can score no others"):
            score(log, scorers["leakage"], display="none")


def test_a_retry_after_a_change_of_the_prompts_is_told(tmp_path, monkeypatch):
    from inspect_ai import eval as inspect_eval
    from inspect_ai import eval_retry
    from inspect_ai.log import read_eval_log

    prompts, failing = tmp_path / "mine.txt", [True]
    failing_model("stumbling", lambda messages: failing[0] and "sailor" in messages[0].text)

    def finished_after(second, redact=False, **keywords):
        """The log of a run whose first attempt broke off at the second prompt, and whose file then held other prompts."""
        prompts.write_text("You are a baker in Ghent.\n\nYou are a sailor in Hull.")
        failing[0] = True
        first = inspect_eval(
            "lm_eval_inversion/prompt_leakage_attacks", model="stumbling/model", log_dir=str(tmp_path / "logs"), display="none",
            task_args={"prompts": str(prompts), "tier": "smoke", "redact": redact}, max_samples=1, **keywords,
        )[0]  # fmt: skip
        assert first.status == "error"
        failing[0] = False
        prompts.write_text(second)
        log = eval_retry(first.location, log_dir=str(tmp_path / "logs"), display="none")[0]
        assert log.status == "success", log.error
        return read_results(Path(log.location))[0]

    same, other = (f"You are a {who}.\n\nYou are a sailor in Hull." for who in ("baker in Ghent", "judge in Rome"))
    told = "Samples are of other system prompts than the log is signed with"
    assert finished_after(same).doubts == ()
    assert told in finished_after(other).caution
    assert finished_after(same, limit=2).doubts == ()
    assert told in finished_after(other, limit=2).caution
    # Under a random key each, what two attempts were made with cannot be compared.
    assert finished_after(same, redact=True).doubts == finished_after(other, redact=True).doubts == ()
    monkeypatch.setenv(KEY_VARIABLE, "a key that is long enough")
    assert finished_after(same, redact=True).doubts == ()
    changed = finished_after(other, redact=True)
    assert told in changed.caution
    # A hash without a key could be guessed together with the prompts.
    assert prompts_hash(load_prompts(prompts)) not in read_eval_log(str(changed.source)).model_dump_json()


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("prompt_leakage_canary", {"redact": True}),
        ("prompt_leakage_canary", {"prompts": "mine.jsonl"}),
        ("prompt_leakage_exposure", {"defence": "sandwich"}),
        ("prompt_inversion_user", {"defence": "ngram_filter"}),
    ],
)
def test_what_would_be_lost_without_a_word_is_refused(task, given):
    from lm_eval_inversion.adapters.inspect import tasks

    (name,) = given
    with pytest.raises(ValueError, match=f"{task} has no {name}, and would run without it: leave -T {name}=… out"):
        getattr(tasks, task)(**given)
