"""How to run it again: the same words on the page and in exports, parsable by the hosts, without anything secret or local."""

import json
import shlex
from dataclasses import replace

import pytest
from page_results import inversion_results, leakage_results

from lm_eval_inversion.report.card import card_block
from lm_eval_inversion.report.comparability import comparability
from lm_eval_inversion.report.compare import compare
from lm_eval_inversion.report.reading import Results, Row, read_results
from lm_eval_inversion.report.rerun import (
    NO_COMMAND,
    SIGNATURE_KEYS,
    RunSettings,
    install_command,
    public_signature,
    report_command,
    rerun_command,
    run_settings,
    signature_line,
)
from lm_eval_inversion.scoring.metrics import CURVE_PREFIX
from lm_eval_inversion.tasks import BASE_TASK, protocol_makers

UNKNOWN = RunSettings()


def words_of(results, settings=UNKNOWN, model_id=None):
    return shlex.split(rerun_command(results, settings, model_id))


def after(words, option):
    """All words after every mention of an option, up to the next option."""
    found = []
    for place, word in enumerate(words):
        if word == option:
            rest = words[place + 1 :]
            end = next((index for index, other in enumerate(rest) if other.startswith("-")), len(rest))
            found += rest[:end]
    return found


@pytest.fixture(scope="module")
def inversion():
    """Without bits from fewer outputs, as most runs are."""
    found = inversion_results(3)
    return replace(found, rows=[replace(row, metrics=_without_curve(row.metrics)) for row in found.rows])


def _without_curve(metrics):
    return {name: value for name, value in metrics.items() if not name.startswith(CURVE_PREFIX)}


@pytest.fixture(scope="module")
def leakage():
    return leakage_results(2)


def test_results_without_a_file_have_a_command_with_the_models_name(inversion, leakage):
    for results in (inversion, replace(inversion, source=None), leakage, replace(leakage, source=None)):
        assert run_settings(results) == UNKNOWN
    words = words_of(replace(inversion, source=None))
    assert words[:4] == ["lm_eval", "run", "--model", "hf"]
    assert after(words, "--model_args") == ["pretrained=org/model 7b"]
    assert after(words, "--tasks") == ["prompt_inversion_ordinary"]
    named = replace(leakage, model="openai/gpt-example", source=None)
    assert words_of(named)[:5] == ["inspect", "eval", "lm_eval_inversion/prompt_leakage_attacks", "--model", "openai/gpt-example"]
    assert after(words_of(named), "-M") == []


@pytest.mark.parametrize(
    ("model", "model_id", "back_end", "arguments"),
    [
        ("openai-chat-completions gpt-x", None, "openai-chat-completions", "model=gpt-x"),
        ("vllm org/name", None, "vllm", "pretrained=org/name"),
        ("hf /srv/weights/name", None, "hf", "pretrained=FOLDER"),
        ("hf /srv/weights/name", "lab/name", "hf", "pretrained=lab/name"),
        ("", None, "hf", "pretrained=MODEL"),
        ("", "lab/name", "hf", "pretrained=lab/name"),
        ("hf x'; rm -rf ~ #", None, "hf", "pretrained=x'; rm -rf ~ #"),
        (f"hf {'x' * 5000}\x00\ud800", None, "hf", f"pretrained={'x' * 5000}\x00\ud800"),
    ],
)
def test_models_of_lm_eval(model, model_id, back_end, arguments):
    words = words_of(Results("prompt_inversion", "lm_eval", [], model), model_id=model_id)
    assert after(words, "--model") == [back_end]
    assert after(words, "--model_args") == [arguments]


@pytest.mark.parametrize(
    ("model", "model_id", "named", "arguments"),
    [
        ("hf/local /srv/weights/name", None, "hf/local", ["model_path=FOLDER"]),
        ("hf//srv/weights/name", None, "hf/FOLDER", []),
        ("openrouter/org/name", None, "openrouter/org/name", []),
        ("", None, "MODEL", []),
        ("", "lab/name", "lab/name", []),
    ],
)
def test_models_of_inspect(model, model_id, named, arguments):
    words = words_of(Results("prompt_leakage_attacks", "inspect", [], model), model_id=model_id)
    assert after(words, "--model") == [named]
    assert after(words, "-M") == arguments


def test_only_parameters_that_were_not_left_at_their_defaults_are_named(inversion, leakage):
    assert "--metadata" not in words_of(inversion)  # test split, all 16 queries, default inverter, seed 0
    changed = {"prompts": "v1/dev", "num_queries": 4, "curve": True, "decoy_seed": 7, "inverter": "bag", "defence": "filter"}
    words = words_of(replace(inversion, signature={**inversion.signature, **changed}))
    assert sorted(after(words, "--metadata")) == [
        "curve=true", "decoy_seed=7", "defence=filter", "inverter=bag", "num_queries=4", "split=dev",
    ]  # fmt: skip
    assert after(words_of(leakage), "-T") == ["tier=smoke"]
    canary = {"prompts": "canaries-v1", "canaries_hash": "cd92", "canary_seed": 3, "tier": "smoke", "dtype": "float32"}
    words = words_of(Results("prompt_leakage_canary", "lm_eval", [], "hf org/name", canary))
    assert sorted(after(words, "--metadata")) == ["canary_seed=3", "tier=smoke"]


def test_a_redacted_run_is_redacted_again(inversion, leakage):
    for results, option in ((inversion, "--metadata"), (leakage, "-T")):
        for value, named in ((True, True), ("true", True), (False, False), ("false", False)):
            words = words_of(replace(results, signature={**results.signature, "redact": value}))
            assert ("redact=true" in after(words, option)) is named


def test_own_prompts_are_named_by_their_file(inversion):
    for source, named in (("my folder/own.txt/test", "my folder/own.txt"), ("/home/somebody/own.txt/test", "own.txt")):
        words = words_of(replace(inversion, signature={**inversion.signature, "prompts": source}))
        assert after(words, "--metadata") == [f"prompts={named}"]


@pytest.mark.parametrize(
    ("signed", "public", "parameters"),
    [
        ("/home/somebody/own.jsonl/train", "own.jsonl", ["prompts=own.jsonl"]),
        ("/home/somebody/own.jsonl/test", "own.jsonl", ["prompts=own.jsonl"]),
        ("/home/somebody/Own.JSONL/dev+train", "Own.JSONL", ["prompts=Own.JSONL"]),
        ("/home/somebody/test/own.csv/validation/2", "own.csv", ["prompts=own.csv"]),  # a split is what a row says it is
        ("/home/somebody/own.csv/more.txt/train", "more.txt", ["prompts=more.txt"]),
        ("/home/somebody/own.txt", "own.txt", ["prompts=own.txt"]),
        ("some/folder/own.jsonl/train", "own.jsonl", ["prompts=own.jsonl"]),
        (r"C:\Users\somebody\own.jsonl/train", "own.jsonl", ["prompts=own.jsonl"]),
        ("C:/Users/somebody/own.jsonl/train", "own.jsonl", ["prompts=own.jsonl"]),
        (r"\\server\somebody\own.csv/a/b", "own.csv", ["prompts=own.csv"]),
        ("v1/test", "v1/test", []),
        ("v1/dev", "v1/dev", ["split=dev"]),
        ("v1/dev+test", "v1/dev+test", ["split=dev+test"]),
        ("user-v1/test", "user-v1/test", ["prompts=user-v1"]),
        ("hub:lab/sets.csv@0123:train:text/test", "hub:lab/sets.csv@0123:train:text/test", ["prompts=hub:lab/sets.csv@0123:train:text"]),
    ],
)
def test_prompts_of_any_split_keep_their_name(signed, public, parameters, inversion, leakage):
    """The signature names the source and, behind a slash, the splits of its rows."""
    for results, option, usual in ((inversion, "--metadata", []), (leakage, "-T", ["tier=smoke"])):
        named = replace(results, signature={**results.signature, "prompts": signed})
        assert public_signature(named)["prompts"] == public
        assert f"| prompts {public} " in signature_line(named, UNKNOWN)
        assert sorted(after(words_of(named), option)) == [*parameters, *usual]
        assert f"prompts {public} " in card_block(named)
        assert "somebody" not in card_block(named)


def test_only_prompts_have_a_split_behind_their_name(inversion):
    """A checkpoint in a folder called "test" is no split of something else."""
    named = replace(inversion, signature={**inversion.signature, "inverter": "/home/somebody/inverters/test"})
    assert public_signature(named)["inverter"] == "test"
    assert after(words_of(named), "--metadata") == ["inverter=test"]


def test_settings_of_the_runs_own_files_come_before_its_name(inversion):
    settings = RunSettings("vllm", {"pretrained": "org/other", "dtype": "bfloat16"}, given={"temperature": 0.2}, limit=3.0, seeds="1,2,3,4")
    words = words_of(inversion, settings)
    assert after(words, "--model") == ["vllm"]
    assert after(words, "--model_args") == ["pretrained=org/other,dtype=bfloat16"]
    assert (after(words, "--gen_kwargs"), after(words, "--limit")) == (["temperature=0.2"], ["3"])
    assert after(words, "--seed") == ["1,2,3,4"]


@pytest.mark.parametrize(
    ("limit", "epochs", "told"),
    [(None, 1, []), (3, None, ["--limit", "3"]), ((10, 20), 3, ["--epochs", "3", "--limit", "11-20"])],
)
def test_epochs_and_ranges_of_inspect_are_kept(limit, epochs, told, leakage, tmp_path):
    from inspect_ai._util.samples import parse_samples_limit
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, write_eval_log

    spec = EvalSpec(
        created="2026-01-02T03:04:05+00:00", task="lm_eval_inversion/prompt_leakage_attacks", dataset=EvalDataset(), model="mockllm/model",
        config=EvalConfig(limit=limit, epochs=epochs),
    )  # fmt: skip
    path = tmp_path / "run.eval"
    write_eval_log(EvalLog(eval=spec, status="success"), str(path))
    logged = replace(leakage, source=path)
    words = words_of(logged, run_settings(logged))
    found = [word for option in ("--epochs", "--limit") for word in ([option, *after(words, option)] if option in words else [])]
    assert found == told
    # Inspect reads the option as the log has it.
    assert limit is None or parse_samples_limit(told[-1]) == limit


def logged(results, path, *, given=None, used=None, arguments=None, config=None, **spec):
    """The results with a log of Inspect as their file.

    Args:
        given: settings that the model was made with.
        used: those that the run had, of the task, the command line and the model.
        arguments: of the model.
        config: of the run.
        spec: more of the log's head.
    """
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalSpec, write_eval_log
    from inspect_ai.model import GenerateConfig

    head = EvalSpec(**{
        "created": "2026-01-02T03:04:05+00:00", "task": "lm_eval_inversion/prompt_leakage_attacks", "dataset": EvalDataset(),
        "model": "mockllm/model", "config": EvalConfig(**(config or {})), "model_args": arguments or {},
        "model_generate_config": GenerateConfig(**(given or {})), **spec,
    })  # fmt: skip
    plan = EvalPlan(config=GenerateConfig(**{"temperature": 0.7, "max_tokens": 256, "seed": 1234, **(used or {})}))
    write_eval_log(EvalLog(eval=head, status="success", plan=plan), str(path))
    return replace(results, source=path)


@pytest.mark.parametrize(
    ("chosen", "option", "told", "parsed"),
    [
        ("coach-01", "--sample-id", "coach-01", "coach-01"),
        (7, "--sample-id", "7", "7"),
        (["coach-01", "it's $HOME", 7], "--sample-id", "coach-01,it's $HOME,7", "coach-01,it's $HOME,7"),
        (["a,b", "/home/somebody/own"], "--sample-id", "a?b,FOLDER", "a?b,FOLDER"),
        (None, "--sample-id", None, None),
        (42, "--sample-shuffle", "42", 42),
        (1, "--sample-shuffle", "01", 1),  # a plain 1 is yes
        (True, "--sample-shuffle", "true", -1),  # Inspect's word for yes
        (False, "--sample-shuffle", None, 0),
    ],
)
def test_which_system_prompts_inspect_ran_and_in_which_order_is_kept(chosen, option, told, parsed, leakage, tmp_path):
    from inspect_ai._cli.eval import eval_command

    name = option.removeprefix("--").replace("-", "_")
    results = logged(leakage, tmp_path / "run.eval", config={name: chosen})
    words = words_of(results, run_settings(results))
    assert after(words, option) == ([] if told is None else [told])
    assert eval_command.make_context("eval", words[2:]).params[name] == parsed


def test_an_address_of_the_model_is_told_as_one(leakage, tmp_path):
    results = logged(leakage, tmp_path / "run.eval", model_base_url="http://10.0.0.1:8000/v1")
    told = rerun_command(results, run_settings(results))
    assert after(shlex.split(told), "--model-base-url") == ["URL"]
    assert "10.0.0.1" not in told
    usual = logged(leakage, tmp_path / "usual.eval")
    assert "--model-base-url" not in words_of(usual, run_settings(usual))


@pytest.mark.parametrize("task", protocol_makers())
def test_a_renamed_task_is_told_by_its_own_name(task, tmp_path):
    """As inspect_ai.task_with leaves it, with and without a task of the user's own around it."""
    from lm_eval_inversion.adapters.inspect import tasks

    given, of_task = ({"inverter": "constant"}, "inverter=constant") if "inversion" in task else ({"tier": "smoke"}, "tier=smoke")
    metadata = getattr(tasks, task)(**given).metadata
    for number, head in enumerate((
        {"task_registry_name": f"lm_eval_inversion/{task}", "metadata": {**metadata, "description": "mine"}},
        {"task_registry_name": "my_named", "metadata": metadata},
        {"metadata": {**metadata, "description": "mine"}},
        {"metadata": {name: value for name, value in metadata.items() if name != BASE_TASK}},  # of earlier versions
    )):  # fmt: skip
        source = logged(Results(task, "inspect", []), tmp_path / f"{number}.eval", task="my_named", **head).source
        (results,) = read_results(source)
        assert results.task == "my_named"
        words = words_of(results, run_settings(results))
        assert words[:3] == ["inspect", "eval", f"lm_eval_inversion/{task}"]
        assert after(words, "-T") == [of_task]


@pytest.mark.parametrize("registered", ["my_named", "other_package/prompt_inversion", "lm_eval_inversion/my_named", None])
def test_a_task_of_the_users_own_has_a_comment_for_a_command(registered, leakage, tmp_path):
    metadata = {**leakage.signature, "description": "mine"}
    source = logged(leakage, tmp_path / "run.eval", task="my_named", task_registry_name=registered, metadata=metadata).source
    (results,) = read_results(source)
    results = replace(results, rows=leakage.rows)
    assert rerun_command(results, run_settings(results)) == NO_COMMAND
    assert shlex.split(NO_COMMAND, comments=True) == []
    assert f"\n{NO_COMMAND}\n" in card_block(results)


@pytest.mark.parametrize("host", ["lm_eval", "inspect"])
def test_bits_from_fewer_outputs_are_asked_for_again(host, inversion):
    """Told by the rows, where the signature has it not."""
    option = {"lm_eval": "--metadata", "inspect": "-T"}[host]
    run = replace(inversion, host=host, source=None)
    row = run.rows[0]
    curved = replace(run, rows=[*run.rows, Row(row.prompt, "", {**row.metrics, f"{CURVE_PREFIX}4": 1.0})])
    assert (after(words_of(run), option), after(words_of(curved), option)) == ([], ["curve=true"])
    assert after(words_of(replace(curved, task="prompt_leakage_attacks")), option) == []


@pytest.mark.parametrize("curve", [True, False])
def test_bits_from_fewer_outputs_that_no_row_has_are_asked_for_again(curve, inversion, tmp_path):
    """Inverters without likelihoods have none; what the scorer was told stands in the log."""
    scorers = [{"name": "inversion", "options": {"inverter": "constant", "curve": curve}}]
    results = logged(replace(inversion, host="inspect"), tmp_path / "run.eval", task="prompt_inversion_ordinary", scorers=scorers)
    assert after(words_of(results, run_settings(results)), "-T") == (["curve=true"] if curve else [])


SET = {
    "reasoning_effort": "high", "reasoning_tokens": 2048, "frequency_penalty": 0.5, "presence_penalty": 0.25, "logprobs": True,
    "top_logprobs": 3, "parallel_tool_calls": False, "internal_tools": False, "fail_on_refusal": True, "cache_prompt": False,
    "verbosity": "low", "effort": "high", "system_message": "You are Mira.", "max_connections": 4, "num_choices": 1, "batch": 7,
}  # fmt: skip


@pytest.mark.parametrize("where", ["given", "used"])
def test_settings_of_generation_are_kept_as_inspect_spells_them(where, leakage, tmp_path):
    """Also those that a model which is already made was evaluated with, and of all that are set those that Inspect's command line reads."""
    from inspect_ai._cli.eval import eval_command

    results = logged(leakage, tmp_path / "run.eval", **{where: SET})
    words = words_of(results, run_settings(results))
    assert "Mira" not in " ".join(words)
    assert not {"--temperature", "--max-tokens"} & set(words)  # the task's own
    parsed = eval_command.make_context("eval", words[2:]).params
    assert {name: parsed[name] for name in SET} == {**SET, "system_message": "TEXT", "cache_prompt": "false"}
    assert parsed["seed"] == 1234
    quiet = logged(leakage, tmp_path / "quiet.eval", used={"logprobs": False, "temperature": 0.2}, arguments={"revision": None})
    assert after(words_of(quiet, run_settings(quiet)), "--temperature") == ["0.2"]
    assert not [word for word in words_of(quiet, run_settings(quiet)) if word == "--logprobs" or "revision" in word]


@pytest.mark.parametrize(
    ("name", "given", "used", "told"),
    [
        ("temperature", 0.0, 0.7, []),  # the task's own goes over the model's
        ("temperature", 0.0, 0.0, ["0.0"]),  # given on the command line, both have it
        ("temperature", None, 0.0, ["0.0"]),  # of a user's own task
        ("max_tokens", 7, 256, []),
        ("max_tokens", None, 7, ["7"]),
        ("seed", 5, 1234, ["1234"]),
        ("top_p", 0.5, None, ["0.5"]),  # of which the task has none
        ("top_p", 0.5, 0.9, ["0.9"]),
    ],
)
def test_settings_of_the_models_own_are_told_where_they_held(name, given, used, told, leakage, tmp_path):
    results = logged(leakage, tmp_path / "run.eval", given={name: given}, used={name: used})
    assert after(words_of(results, run_settings(results)), f"--{name.replace('_', '-')}") == told


LISTS = {
    "stop_seqs": ["END", "\n\n", "</s>"], "logit_bias": {42: 10, 43: -1.5},
    "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    "response_schema": {"name": "answer", "json_schema": {"type": "object", "properties": {"said": {"type": "string"}}}},
    "modalities": ["image"], "fallback_models": ["one", "two"],
}  # fmt: skip


def test_settings_that_hold_several_values_are_kept_and_compared(leakage, tmp_path):
    from inspect_ai._cli.eval import eval_command
    from inspect_ai._util.generate_config_args import config_from_locals
    from inspect_ai.model import GenerateConfig

    results = logged(leakage, tmp_path / "run.eval", used=LISTS)
    parsed = eval_command.make_context("eval", words_of(results, run_settings(results))[2:]).params
    read = GenerateConfig(**config_from_locals(parsed)).model_dump(exclude_none=True)
    assert {name: read[name] for name in LISTS} == GenerateConfig(**LISTS).model_dump(exclude_none=True)
    plain = logged(leakage, tmp_path / "plain.eval")
    (sampled,) = [told for told in compare([results], [plain]).tasks[0].warnings if told.startswith("sampling differs")]
    for told in ('stop_seqs ["END", "\\n\\n", "</s>"]', 'logit_bias {"42": 10.0, "43": -1.5}', '"enable_thinking": false'):
        assert told in sampled
    # Nothing secret and no place, however deep.
    secret = {"extra_body": {"api_key": "k", "lora": "/srv/lora"}, "extra_headers": {"X-A": "k"}}
    hidden = logged(leakage, tmp_path / "hidden.eval", used=secret)
    words = words_of(hidden, run_settings(hidden))
    assert after(words, "--extra-body") == ['{"lora": "FOLDER"}']
    assert "--extra-headers" not in words


@pytest.mark.parametrize(
    ("name", "value"),
    [("stop_seqs", ["a,b"]), ("stop_seqs", ["a", ""]), ("stop_seqs", ["a", "/x/"]), ("modalities", [{"type": "image"}])],
)
def test_what_no_option_of_inspect_can_hold_is_told_behind_the_command(name, value, leakage, tmp_path):
    results = logged(leakage, tmp_path / "run.eval", used={name: value, "cache": {"expiry": "1D"}})
    told = rerun_command(results, run_settings(results))
    assert told.endswith(f"  # and {name}, which no option can hold: give a --generate-config")
    assert not [word for word in shlex.split(told, comments=True) if word in ("--cache", f"--{name.replace('_', '-')}")]


def test_settings_of_generation_from_python_are_kept_by_lm_eval(inversion, tmp_path):
    for number, given in enumerate(("temperature=0.2,do_sample=True", {"temperature": 0.2, "do_sample": True})):
        source = tmp_path / f"samples_{inversion.task}_{number}.jsonl"
        source.touch()
        run = {"config": {"model": "hf", "gen_kwargs": given}, "configs": {inversion.task: {}}}
        source.with_name(f"results_{number}.json").write_text(json.dumps(run))
        results = replace(inversion, source=source)
        assert after(words_of(results, run_settings(results)), "--gen_kwargs")[0].lower() == "temperature=0.2,do_sample=true"


def lm_eval_run(results, folder, config, **others):
    """The results with the files of a run of lm_eval, whose results file has this configuration."""
    source = folder / f"samples_{results.task}_1.jsonl"
    source.touch()
    run = {"config": {"model": "hf", **config}, "configs": {results.task: {}}, **others}
    source.with_name("results_1.json").write_text(json.dumps(run))
    found = replace(results, source=source)
    return words_of(found, run_settings(found))


@pytest.mark.parametrize(
    ("told", "used", "option"),
    [
        (None, {}, []),
        (None, {"temperature": 0.0, "do_sample": False}, ["temperature=0.0"]),
        ("top_k=5", {"top_k": 5, "max_gen_toks": 16}, ["top_k=5,max_gen_toks=16"]),
        ({"temperature": 0}, {"temperature": 0.0, "do_sample": False, "top_p": 0.9}, ["temperature=0,top_p=0.9"]),
        ("do_sample=False", {"temperature": 0.0, "do_sample": False}, ["do_sample=false"]),
        ("max_new_tokens=3", {"max_gen_toks": 3}, ["max_new_tokens=3"]),
        ("top_p=0.9", {"top_p": 0.9, "until": ["\n\n"]}, ['{"top_p": 0.9, "until": ["\\n\\n"]}']),
    ],
)
def test_settings_of_a_task_file_of_the_users_own_are_kept(told, used, option, inversion, tmp_path):
    own = {"until": [], "temperature": 0.7, "max_gen_toks": 64, "do_sample": True}
    mine = replace(inversion, task="mine", signature={**inversion.signature, BASE_TASK: inversion.kind})
    words = lm_eval_run(mine, tmp_path, {"gen_kwargs": told}, configs={"mine": {"generation_kwargs": {**own, **used}}})
    assert after(words, "--gen_kwargs") == option


def test_arguments_that_hold_others_are_told_as_lm_eval_reads_them(inversion, tmp_path):
    from lm_eval._cli.utils import try_parse_json

    arguments = {"pretrained": "org/name", "dtype": "float32", "trust": True, "chat_template_args": {"add_note": False}}
    words = lm_eval_run(inversion, tmp_path, {"model_args": arguments, "gen_kwargs": {"until": ["\n\n"], "temperature": 0.2}})
    assert try_parse_json(words[words.index("--model_args") + 1]) == arguments
    assert try_parse_json(words[words.index("--gen_kwargs") + 1]) == {"until": ["\n\n"], "temperature": 0.2}


def test_seeds_that_were_left_out_stay_so(inversion, tmp_path):
    seeds = dict(zip(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), (7, None, 7, None)))
    assert after(lm_eval_run(inversion, tmp_path, seeds), "--seed") == ["7,None,7,None"]
    assert "--seed" not in lm_eval_run(inversion, tmp_path, dict.fromkeys(seeds))


@pytest.mark.parametrize(
    ("back_end", "arguments", "generation", "sent"),
    [
        ("local-chat-completions", {"model": "m"}, {}, "1234"),
        ("local-chat-completions", {"model": "m", "seed": 77}, {}, "77"),
        ("openai-chat-completions", "model=m,seed=77", {"seed": 5}, "5"),  # the request's own goes over the back end's
        ("vllm", {"pretrained": "org/name", "seed": None}, {}, "1234"),
        ("hf", {"pretrained": "org/name"}, {}, ""),
    ],
)
def test_the_seed_that_a_back_end_sends_is_signed_and_not_the_one_of_the_option(back_end, arguments, generation, sent, inversion, tmp_path):
    option = dict(zip(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), (0, 1234, 1234, 1234)))
    config = {"model": back_end, "model_args": arguments, "gen_kwargs": generation, **option}
    words = lm_eval_run(inversion, tmp_path, config, configs={inversion.task: {"generation_kwargs": generation}})
    results = replace(inversion, source=tmp_path / f"samples_{inversion.task}_1.jsonl")
    assert f"| seed {sent or '0,1234,1234,1234'} |" in signature_line(results, run_settings(results))
    assert after(words, "--seed") == ([] if sent else ["0,1234,1234,1234"])


def test_another_seed_is_told_where_two_runs_are_compared(inversion, leakage, tmp_path):
    def run(name, config, **metadata):
        (tmp_path / name).mkdir()
        lm_eval_run(inversion, tmp_path / name, {"random_seed": 0, "numpy_seed": 1234, **config})
        source = tmp_path / name / f"samples_{inversion.task}_1.jsonl"
        return replace(inversion, source=source, signature={**inversion.signature, **metadata})

    server = {"model": "local-chat-completions", "model_args": "model=m"}
    usual = run("usual", server)
    other = run("other", {**server, "model_args": "model=m,seed=77"}, seed=77)
    (task,) = compare([usual], [other]).tasks
    assert task.other_differences == ("seed: 1234 in A, 77 in B",)
    assert not compare([usual], [run("option", {**server, "random_seed": 5})]).tasks[0].other_differences  # which reaches no server
    (task,) = compare([run("one", {"model_args": "pretrained=x"})], [run("two", {"model_args": "pretrained=x", "random_seed": 5})]).tasks
    assert task.other_differences == ("seed: 0,1234,None,None in A, 5,1234,None,None in B",)
    # Each with its usual one: nobody chose another.
    (task,) = compare([run("loaded", {"model_args": "pretrained=x"})], [usual]).tasks
    assert not any("seed" in difference for difference in task.other_differences)


def test_prompts_that_were_picked_by_number_are_no_whole_run(inversion, tmp_path):
    """lm_eval does not write down which."""
    counts = {"n-samples": {inversion.task: {"original": 150, "effective": 2}}}
    assert after(lm_eval_run(inversion, tmp_path, {"limit": None}, **counts), "--samples") == ["FILE"]
    assert "--samples" not in lm_eval_run(inversion, tmp_path, {"limit": 2}, **counts)
    counts["n-samples"][inversion.task]["effective"] = 150
    assert "--samples" not in lm_eval_run(inversion, tmp_path, {"limit": None}, **counts)


def test_what_runs_do_not_share_is_told_without_places_and_keys(leakage, tmp_path):
    here = {"model_path": "/srv/a", "dtype": "int4", "api_key": "a"}
    there = {"model_path": "/srv/b", "enable_thinking": False, "api_key": "b"}
    one = logged(leakage, tmp_path / "a.eval", arguments=here, used={"max_connections": 4})
    other = logged(leakage, tmp_path / "b.eval", arguments=there, used={"reasoning_effort": "high", "system_message": "You are Mira."})
    (task,) = compare([one], [other]).tasks
    assert [told for told in task.other_differences if told.startswith("model argument")] == [
        "model argument dtype: int4 in A, not given in B", "model argument enable_thinking: not given in A, false in B",
    ]  # fmt: skip
    (sampled,) = [told for told in task.warnings if told.startswith("sampling differs")]
    assert sampled.startswith(
        "sampling differs (temperature 0.7, max_tokens 256 in A, temperature 0.7, max_tokens 256, system_message TEXT of 13 characters, "
        "reasoning_effort high in B)"
    )
    told = comparability([one, other])
    assert "prompt_leakage_attacks: the runs differ in arguments of the model (dtype, enable_thinking)" in told
    assert any("reasoning_effort high" in line for line in told)
    assert comparability([one, one]) == []
    # Where a file does not say, nothing is known.
    assert not [line for line in comparability([one, leakage]) if "arguments" in line]


def test_nothing_secret_and_nothing_local_is_told(inversion):
    arguments = {
        "pretrained": "/home/somebody/weights", "api_key": "s3cr3t", "hf_token": "s3cr3t", "base_url": "http://10.0.0.1",
        "more": {"password": "s3cr3t", "a": 1},
    }  # fmt: skip
    known = {**inversion.signature, **arguments, "inverter": "/home/somebody/inverter", "config_source": "/home/somebody/task.yaml"}
    mine = replace(inversion, model="hf /home/somebody/weights", signature=known)
    settings = RunSettings("hf", arguments, given={"auth_header": "s3cr3t", "top_k": 5})
    told = [
        install_command(mine), rerun_command(mine, settings), report_command(mine), signature_line(mine, settings),
        json.dumps(public_signature(mine)), card_block(mine),
    ]  # fmt: skip
    for text in told:
        assert not [secret for secret in ("somebody", "s3cr3t", "10.0.0.1") if secret in text], text
    assert after(words_of(mine, settings), "--model_args") == ['{"pretrained": "FOLDER", "base_url": "URL", "more": {"a": 1}}']
    assert after(words_of(mine, settings), "--gen_kwargs") == ["top_k=5"]
    assert "inverter=inverter" in words_of(mine, settings)


@pytest.mark.parametrize("name", ["think_end_token", "think_start_token", "add_bos_token", "add_eos_token", "eos_token", "PAD_TOKEN"])
def test_tokens_of_a_tokenizer_are_no_secrets(name, inversion):
    settings = RunSettings("hf", {"pretrained": "org/m", name: "</think>"})
    assert after(words_of(inversion, settings), "--model_args") == [f"pretrained=org/m,{name}=</think>"]


@pytest.mark.parametrize(
    "name",
    [
        "api_key", "API_KEY", "token", "hf_token", "auth_token", "use_auth_token", "access_token", "bearer_token", "hfToken", "send_token",
        "aws_session_token", "client_secret", "password", "passwd", "credentials", "authorization", "default_headers",
    ],
)  # fmt: skip
def test_what_opens_a_server_is_a_secret(name, inversion):
    settings = RunSettings("hf", {"pretrained": "org/m", name: "s3cr3t"})
    assert after(words_of(inversion, settings), "--model_args") == ["pretrained=org/m"]


def test_versions_to_install(inversion):
    assert shlex.split(install_command(inversion)) == [
        "pip", "install", "lm-eval-inversion==0.1.0", "lm_eval==0.4.13", "torch==2.13.0", "transformers==5.24.0",
    ]  # fmt: skip
    assert install_command(replace(inversion, signature={})) == "pip install lm-eval-inversion"


def test_the_report_reads_what_the_command_writes(inversion, leakage):
    for results, option in ((inversion, "--output_path"), (leakage, "--log-dir")):
        (folder,) = after(words_of(results), option)
        assert shlex.split(report_command(results)) == ["lm-eval-inversion", "report", folder, "-o", "report.html"]


@pytest.mark.parametrize("task", protocol_makers())
def test_all_that_a_run_must_share_is_told(task):
    protocol = protocol_makers()[task](task)
    of_an_inverter = [None] if "inversion" in task else []
    unknown = [key for key in protocol.signature("lm_eval", "system", *of_an_inverter) if key not in SIGNATURE_KEYS]
    assert [key for key in unknown if not key.endswith("_hash")] == []


def test_signature_line_names_hashes_and_numbers(inversion):
    signed = replace(inversion, signature={**inversion.signature, "inverter_dtype": "int8"})
    parts = signature_line(signed, RunSettings(seeds="1,2")).split(" | ")
    for part in (
        "lm-eval-inversion 0.1.0", "prompt_inversion_ordinary 1.0", "inverter default ba9876543210", "prompts v1/test 0123456789ab",
        "inverter dtype int8", "num queries 16", "system role system", "seed 1,2", "decoy seed 0", "host lm_eval 0.4.13",
    ):  # fmt: skip
        assert part in parts, part


def test_no_place_and_no_address_is_told():
    arguments = {
        "pretrained": "org/m", "download_dir": "/home/alice/models", "lora_local_path": "~/lora", "endpoint": "https://gpu.acme.internal",
        "hf_overrides": {"draft": "/srv/draft", "api_key": "k", "depth": 2}, "files": ["C:\\models\\x", "plain"], "dtype": "bfloat16",
        "fraction": ".5", "trust": True, "revision": "refs/pr/3", "subfolder": "a/b/c", "stop": "\\n",
    }  # fmt: skip
    words = words_of(Results("prompt_inversion", "lm_eval", [], "vllm org/m"), RunSettings("vllm", arguments))
    (told,) = after(words, "--model_args")
    public = {
        **arguments, "download_dir": "FOLDER", "lora_local_path": "FOLDER", "endpoint": "URL", "files": ["FOLDER", "plain"],
        "hf_overrides": {"draft": "FOLDER", "depth": 2},
    }  # fmt: skip
    assert json.loads(told) == public
    flat = {name: value for name, value in arguments.items() if name not in ("hf_overrides", "files")}
    (told,) = after(words_of(Results("prompt_inversion", "lm_eval", [], "vllm org/m"), RunSettings("vllm", flat)), "--model_args")
    assert told == (
        "pretrained=org/m,download_dir=FOLDER,lora_local_path=FOLDER,endpoint=URL,dtype=bfloat16,fraction=.5,trust=true,"
        "revision=refs/pr/3,subfolder=a/b/c,stop=\\n"
    )
