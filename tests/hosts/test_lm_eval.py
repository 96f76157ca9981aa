"""The lm_eval adapter on the real host."""

import itertools
import json
import logging
import math
import subprocess
import sys

import pytest
from conftest import TEMPLATE, TEMPLATE_DROPS_SYSTEM, write_chat_model
from own_tasks import own_task_manager

from lm_eval_inversion import evaluate, load_prompts
from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.scoring.metrics import HIGHER_IS_BETTER, USUAL_METRICS

from .conftest import run_lm_eval

TASK = "prompt_inversion_ordinary"
GREEDY = {"gen_kwargs": "temperature=0,max_gen_toks=12"}


def test_rows_show_truth_and_reconstruction(chat_model, arguments):
    found = run_lm_eval(chat_model, metadata=arguments, **GREEDY)
    metrics = found["results"][TASK]
    assert found["higher_is_better"][TASK] == {name: HIGHER_IS_BETTER[name] for name in found["higher_is_better"][TASK]}
    assert {name.split(",")[0] for name in metrics if not name.endswith("stderr,none") and "," in name} == set(USUAL_METRICS)
    rows = sorted(found["samples"][TASK], key=lambda row: row["doc_id"])
    prompts = load_prompts("v1")[:3]
    assert [row["target"] for row in rows] == [prompt.text for prompt in prompts]
    protocol = make_protocol(TASK, **arguments)
    answers = [[response[0] for response in row["resps"]] for row in rows]
    null_answers = answers[0][2:]
    outputs = [protocol.outputs(prompt.text, own[:2], null_answers) for prompt, own in zip(prompts, answers)]
    again = evaluate(prompts, outputs, protocol.null_outputs(null_answers), protocol.inverter, decoys=protocol.decoys(prompts))
    for row, result in zip(rows, again.results):
        assert row["filtered_resps"][0] == result.reconstruction
        assert {metric: row[metric] for metric in result.metrics} == pytest.approx(result.metrics, abs=1e-6)
    # The null conversation rides on the first document only: one conversation per query, not per prompt.
    assert [len(row["arguments"]) for row in rows] == [4, 2, 2]
    assert prompts[0].text not in str(rows[0]["arguments"][2:])
    # Every other request carries its system prompt.
    assert all(prompt.text in request[0] for prompt, row in zip(prompts, rows) for request in row["arguments"][:2])
    signature = found["configs"][TASK]["metadata"]
    for key in ("inverter_hash", "prompts_hash", "queries_hash", "system_role", "package_version", "host", "version", "decoy_seed"):
        assert signature[key] is not None, key
    json.dumps(found["configs"], default=str)


def test_samples_predict_only_and_caches(chat_model, arguments, tmp_path, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    full = run_lm_eval(chat_model, metadata=arguments, **GREEDY)["samples"][TASK]
    by_target = {row["target"]: row for row in full}
    chosen = run_lm_eval(chat_model, metadata=arguments, limit=None, samples={TASK: [0, 2]}, **GREEDY)["samples"][TASK]
    assert len(chosen) == 2
    for row in chosen:
        assert row["token_f1"] == by_target[row["target"]]["token_f1"]
        assert row["bits"] == pytest.approx(by_target[row["target"]]["bits"], abs=1e-6)

    predicted = run_lm_eval(chat_model, metadata=arguments, predict_only=True, **GREEDY)["samples"][TASK]
    assert all("bits" not in row and row["filtered_resps"] for row in predicted)

    cache = str(tmp_path / "responses")
    cold = run_lm_eval(chat_model, metadata=arguments, use_cache=cache, **GREEDY)["results"][TASK]
    monkeypatch.setattr(HFLM, "generate_until", lambda *_, **__: pytest.fail("generated what the cache holds"))
    warm = run_lm_eval(chat_model, metadata=arguments, use_cache=cache, **GREEDY)["results"][TASK]
    assert cold["token_f1,none"] == warm["token_f1,none"]


def test_cached_requests_give_the_same_and_never_another_set(chat_model, arguments, tmp_path, monkeypatch):
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    first = run_lm_eval(chat_model, metadata=arguments, cache_requests=True, **GREEDY)
    second = run_lm_eval(chat_model, metadata=arguments, cache_requests=True, **GREEDY)
    assert first["results"][TASK] == pytest.approx(second["results"][TASK], nan_ok=True) or first["results"] == second["results"]
    assert list(tmp_path.iterdir())
    fewer = run_lm_eval(chat_model, metadata={**arguments, "num_queries": 1}, cache_requests=True, **GREEDY)
    assert [len(row["arguments"]) for row in sorted(fewer["samples"][TASK], key=lambda row: row["doc_id"])] == [2, 1, 1]


def test_a_template_without_system_role_gets_the_prompt_in_the_user_turn(tmp_path, arguments, caplog):
    model = write_chat_model(tmp_path, TEMPLATE_DROPS_SYSTEM)
    found = run_lm_eval(model, metadata=arguments, limit=1, **GREEDY)
    assert found["configs"][TASK]["metadata"]["system_role"] == "user"
    assert load_prompts("v1")[0].text in found["samples"][TASK][0]["arguments"][0][0]
    assert caplog.text.count("system_role=user") == 1


def test_a_model_that_answers_nothing_is_unscored(chat_model, arguments, monkeypatch, caplog):
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "generate_until", lambda self, requests, **_: ["" for _ in requests])
    found = run_lm_eval(chat_model, metadata=arguments, **GREEDY)
    assert found["results"][TASK]["coverage,none"] == 0
    assert "bits,none" not in found["results"][TASK]
    assert "token_f1_lift,none" not in found["results"][TASK]
    assert "3 of 3 system prompts are unscored" in caplog.text


def test_a_model_that_says_nothing_without_a_system_prompt_has_no_bits(chat_model, arguments, monkeypatch, caplog):
    from lm_eval.models.huggingface import HFLM

    def only_with_a_prompt(self, requests, **_):
        texts = [prompt.text for prompt in load_prompts("v1")]
        return ["I bake bread." if any(text in request.args[0] for text in texts) else "" for request in requests]

    monkeypatch.setattr(HFLM, "generate_until", only_with_a_prompt)
    metrics = run_lm_eval(chat_model, metadata=arguments, **GREEDY)["results"][TASK]
    assert metrics["coverage,none"] > 0
    assert metrics["null_coverage,none"] == 0
    assert "token_f1,none" in metrics
    assert not [name for name in metrics if name.startswith(("bits", "identification", "token_f1_lift"))]
    assert "null_coverage 0" in caplog.text


def test_a_thought_that_the_template_opened_is_not_read_as_the_answer(tmp_path, arguments):
    model = write_chat_model(tmp_path / "model", TEMPLATE.replace("assistant: {% endif", "assistant: <think>\n{% endif"))
    found = run_lm_eval(model, metadata=arguments, gen_kwargs="max_gen_toks=12", log_samples=True)
    samples = found["samples"]["prompt_inversion_ordinary"]
    assert all(response[0].startswith("<think>") for sample in samples for response in sample["resps"])
    assert [sample["coverage"] for sample in samples] == [0, 0, 0]


def test_own_prompts(chat_model, arguments, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Be a pirate.\n\nBe a judge.")
    found = run_lm_eval(chat_model, metadata={**arguments, "prompts": str(path)}, limit=None, **GREEDY)
    rows = found["samples"][TASK]
    assert sorted(row["target"] for row in rows) == ["Be a judge.", "Be a pirate."]
    assert "attribute_recall,none" not in found["results"][TASK]
    assert math.isfinite(found["results"][TASK]["identification_mrr,none"])


@pytest.mark.parametrize(
    ("keywords", "metadata", "message"),
    [
        ({"system_instruction": "Be nice."}, {}, "--system_instruction 'Be nice.' would replace; remove the option"),
        ({"apply_chat_template": False}, {}, "Add --apply_chat_template"),
        ({}, {"num_queries": 0}, "num_queries=0.*whole number from 1 to 16"),
        ({}, {"inverter": "nope"}, "inverter='nope' is unknown"),
        ({}, {"inverter": "hub:org/name@abc"}, "'abc' is not one"),
        ({}, {"inverter": f"hub:org/name@{'0123456789' * 4}"}, "could not be fetched from the hub"),
        ({"gen_kwargs": "max_gen_toks=4090"}, {}, "more than the model's context of 4096"),
        ({"gen_kwargs": "temperature=-2"}, {}, "temperature=-2"),
    ],
)
def test_bad_input_fails_before_anything_is_generated(chat_model, arguments, monkeypatch, keywords, metadata, message):
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "generate_until", lambda *_, **__: pytest.fail("generated"))
    with pytest.raises(ValueError, match=message):
        run_lm_eval(chat_model, metadata={**arguments, **metadata}, **keywords)


def test_a_model_without_chat_template_is_refused(tmp_path, arguments):
    model = write_chat_model(tmp_path, None)
    with pytest.raises(ValueError, match="the model's chat template cannot be used"):
        run_lm_eval(model, metadata=arguments)


@pytest.mark.parametrize("task", [TASK, "prompt_leakage_exposure"])
def test_a_remote_tokenizer_that_renders_nothing_is_refused(tiny_inverter_folder, task):
    built = own_task_manager({"inverter": str(tiny_inverter_folder), "tier": "smoke"}).load([task])["tasks"][task]
    with pytest.raises(ValueError, match="tokenizer_backend=huggingface,tokenizer=NAME, or use local-chat-completions"):
        built.build_all_requests(limit=2, apply_chat_template=True, chat_template=lambda messages: messages)


@pytest.mark.parametrize("name", ["prompt_leakage_canary", "prompt_leakage_exposure"])
def test_invented_secrets_pass_over_a_redaction_that_is_meant_for_others(name, caplog):
    with caplog.at_level(logging.WARNING, "lm_eval"):
        task = own_task_manager({"redact": True, "tier": "smoke"}).load([name])["tasks"][name]
    assert f"{name}: redact=true is passed over" in caplog.text
    assert "redact" not in task.dump_config()["metadata"]
    assert list(task.dataset["test"]["text"]) == [prompt.text for prompt in task.protocol.prompts]
    with pytest.raises(ValueError, match="redact='perhaps' is neither true nor false"):
        own_task_manager({"redact": "perhaps", "tier": "smoke"}).load([name])


@pytest.mark.parametrize("group", ["prompt_recovery", "prompt_leakage"])
def test_the_version_of_a_group_changes_with_every_version_of_its_members(group):
    found = own_task_manager({}).load([group])
    versions = dict.fromkeys(str(task.VERSION) for task in found["tasks"].values())
    assert found["groups"][group].version == "+".join(versions), "write the members' versions, each once, into the group's YAML file"


def test_the_request_cache_knows_the_order_of_the_prompts(tiny_inverter_folder, monkeypatch):
    from dataclasses import replace

    from lm_eval.api.task import ConfigurableTask

    names = []
    build = ConfigurableTask.build_all_requests
    monkeypatch.setattr(
        ConfigurableTask, "build_all_requests", lambda self, **found: (names.append(found["tokenizer_name"]), build(self, **found))
    )
    task = own_task_manager({"inverter": str(tiny_inverter_folder), "num_queries": 1}).load([TASK])["tasks"][TASK]
    for prompts in (task.protocol.prompts, task.protocol.prompts, task.protocol.prompts[::-1]):
        task.protocol = replace(task.protocol, prompts=prompts)
        task.build_all_requests(limit=1, apply_chat_template=True, chat_template=json.dumps)
    assert names[0] == names[1] != names[2]


def test_more_processes_than_prompts(tiny_inverter_folder):
    task = own_task_manager({"inverter": str(tiny_inverter_folder)}).load([TASK])["tasks"][TASK]
    with pytest.raises(ValueError, match="4 processes for 3 system prompts.*start at most 3"):
        task.build_all_requests(limit=3, rank=3, world_size=4, apply_chat_template=True, chat_template=json.dumps)


def test_ranks_split_the_documents_and_each_has_its_null_run(tiny_inverter_folder):
    task = own_task_manager({"inverter": str(tiny_inverter_folder), "num_queries": 1}).load([TASK])["tasks"][TASK]
    for rank in (0, 1):
        task.build_all_requests(limit=3, rank=rank, world_size=2, apply_chat_template=True, chat_template=json.dumps)
        own = [instance for instance in task.instances if instance.idx == 0]
        null = [instance for instance in task.instances if instance.idx == 1]
        assert [instance.doc_id for instance in own] == ([0, 2] if rank == 0 else [1])
        assert len(null) == 1


def test_the_installed_package_is_found_without_configuration():
    command = [sys.executable, "-m", "lm_eval", "validate", "--tasks", "prompt_inversion,prompt_inversion_paper,prompt_recovery"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All tasks found and valid" in done.stdout + done.stderr


def test_discovery_can_be_switched_off_and_replaced_by_a_path():
    code = (
        "import sys\nfrom lm_eval.tasks import TaskManager\n"
        "manager = TaskManager(include_defaults=False, include_path=sys.argv[1:] or None)\n"
        "print('prompt_inversion' in manager.all_tasks)"
    )
    folder = subprocess.run([sys.executable, "-m", "lm_eval_inversion.path"], capture_output=True, text=True, check=True).stdout.strip()

    def found(environment, *paths):
        import os

        done = subprocess.run(
            [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, env={**os.environ, **environment}
        )
        return done.stdout.strip()

    assert found({}) == "True"
    assert found({"LM_EVAL_INVERSION_DISCOVERY": "0"}) == "False"
    assert found({"LM_EVAL_INVERSION_DISCOVERY": "0"}, folder) == "True"


def test_reasoning_that_the_harness_cuts_off(tmp_path, chat_model, arguments):
    opened = write_chat_model(tmp_path / "model", TEMPLATE.replace("assistant: {% endif", "assistant: <think>\n{% endif"))
    with pytest.raises(ValueError, match="leave think_end_token out"):
        run_lm_eval(opened, metadata=arguments, model_args=",think_end_token=</think>", **GREEDY)
    task, metadata = "prompt_leakage_attacks", {"tier": "smoke"}
    seen = run_lm_eval(opened, task, metadata=metadata, limit=1, **GREEDY)["results"][task]
    assert "asr_reasoning,none" in seen
    # Nobody looked: no value rather than 0.
    for model_args in ("", ",think_end_token=</think>"):
        unseen = run_lm_eval(chat_model, task, metadata=metadata, limit=1, model_args=model_args, **GREEDY)["results"][task]
        assert unseen["coverage,none"] > 0
        assert "asr_reasoning,none" not in unseen


@pytest.mark.parametrize(("slip", "meant"), [("defense", "defence"), ("num_query", "num_queries"), ("redacted", "redact")])
def test_a_slip_in_a_parameters_name_is_told(chat_model, arguments, slip, meant):
    with pytest.raises(ValueError, match=f"{slip}=… is no parameter .* did you mean {meant}"):
        run_lm_eval(chat_model, metadata={**arguments, slip: "x"}, limit=1)


def test_every_name_of_the_longest_answer_counts(chat_model, arguments):
    found = run_lm_eval(chat_model, metadata=arguments, limit=1, gen_kwargs="temperature=0,max_new_tokens=3")
    assert found["configs"][TASK]["generation_kwargs"]["max_gen_toks"] == 3


@pytest.mark.parametrize(
    ("first", "second", "sent"),
    [
        ({"temperature": 0}, {"temperature": 0.7}, {"temperature": 0.7, "do_sample": True}),
        ({"do_sample": False}, {"do_sample": True}, {"temperature": 0.7, "do_sample": True}),
        ({"max_tokens": 10}, {"max_gen_toks": 9}, {"max_gen_toks": 9}),
    ],
)
def test_settings_that_are_given_in_two_steps_are_those_that_the_user_said(first, second, sent):
    task = own_task_manager({"inverter": "constant"}).load([TASK])["tasks"][TASK]
    for settings in (first, second):
        task.set_config("generation_kwargs", settings, update=True)  # what lm_eval does with --gen_kwargs
        task.build_all_requests(limit=1, apply_chat_template=True, chat_template=json.dumps)
    assert sent.items() <= task.instances[0].args[1].items()
    assert sent.items() <= task.dump_config()["generation_kwargs"].items()


@pytest.mark.parametrize(
    ("task", "name"), [*itertools.product([TASK, "prompt_leakage_attacks"], ["prompts", "split"]), ("prompt_leakage_attacks", "attacks")]
)
def test_none_does_not_stand_for_the_default(task, name):
    """lm_eval reads ``name=None`` as None."""
    parameters = {"inverter": "constant", "defence": None}
    own_task_manager(parameters).load([task])
    with pytest.raises(ValueError, match=f"--metadata {name}= names no {name} for {task}; give a value, or leave the parameter"):
        own_task_manager({**parameters, name: None}).load([task])


def test_servers_that_take_a_seed_get_one_per_repeat():
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    from lm_eval_inversion.adapters.lm_eval.base import _seed_of

    for kind in (LocalCompletionsAPI, LocalChatCompletion):
        server = object.__new__(kind)
        server._seed = 77
        assert _seed_of(server.apply_chat_template) == 77


def test_servers_that_take_no_seed_get_none(chat_model):
    from lm_eval.models.anthropic_llms import AnthropicChat
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.sglang_generate_API import SGLANGGENERATEAPI

    from lm_eval_inversion.adapters.lm_eval.base import _seed_of

    for kind in (AnthropicChat, HFLM, SGLANGGENERATEAPI):
        assert _seed_of(object.__new__(kind).apply_chat_template) is None
