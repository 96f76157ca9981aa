"""What users of lm_eval do beside the plain run: task files of their own, caches that runs share, lists of samples, templates by name."""

import json
import logging

import pytest
from conftest import TEMPLATE, TEMPLATE_DROPS_SYSTEM, write_chat_model
from own_tasks import own_task_manager

from lm_eval_inversion.path import TASKS_FOLDER
from lm_eval_inversion.prompts import load_prompts
from lm_eval_inversion.redaction import REDACTED
from lm_eval_inversion.tasks import protocol_makers

from .conftest import run_lm_eval

TASK = "prompt_inversion_ordinary"
CLASS = "lm_eval_inversion.adapters.lm_eval.task.InversionTask"
QUICK = {"inverter": "constant", "num_queries": 1}


def build(task, **keywords):
    task.build_all_requests(**{"apply_chat_template": True, "chat_template": json.dumps, **keywords})
    return task.instances


def own_task(name=TASK, **metadata):
    return own_task_manager({**QUICK, **metadata}).load([name])["tasks"][name]


# A task of the user's own, in a YAML file that includes one of this package's.


def variant(folder, lines, included=TASK, **metadata):
    from lm_eval.tasks import TaskManager

    include = f"include: {TASKS_FOLDER / included}.yaml\n" if included else ""
    (folder / "mine.yaml").write_text(f"{include}task: mine\n{lines}")
    return TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata)


@pytest.mark.parametrize("name", protocol_makers())
def test_a_task_that_includes_one_of_the_packages_is_that_one_under_its_own_name(tmp_path, name):
    task = variant(tmp_path, "metadata: {tier: smoke}\n", name).load(["mine"])["tasks"]["mine"]
    assert (task.config.task, task.protocol.task) == ("mine", name)
    assert type(task) is type(own_task_manager({}).load([name])["tasks"][name])
    assert task.dump_config()["metadata"]["base_task"] == name
    assert "base_task" not in own_task_manager({"tier": "smoke"}).load([name])["tasks"][name].dump_config()["metadata"]


def test_settings_of_a_task_file_and_of_the_command(tmp_path):
    manager = variant(tmp_path, "metadata: {split: dev, num_queries: 3}\ngeneration_kwargs: {temperature: 0}\n", num_queries=2)
    task = manager.load(["mine"])["tasks"]["mine"]
    assert {prompt.split for prompt in task.protocol.prompts} == {"dev"}
    assert len(task.protocol.queries.queries) == 2
    # Only what the file says is another: an answer still ends where it ends, not at the first blank line.
    assert task.sampling == {"until": [], "temperature": 0.0, "max_gen_toks": 64, "do_sample": False}
    assert {instance.task_name for instance in build(task, limit=1)} == {"mine"}


def test_a_run_says_which_of_its_models_names_were_folders(tmp_path, monkeypatch):
    (tmp_path / "demo" / "model").mkdir(parents=True)
    given = {"pretrained": "demo/model", "tokenizer": "org/name"}
    monkeypatch.chdir(tmp_path)
    assert own_task(**given).dump_config()["metadata"]["local_arguments"] == ["pretrained"]
    assert own_task(pretrained="org/name").dump_config()["metadata"]["local_arguments"] == []
    assert "local_arguments" not in own_task().dump_config()["metadata"]  # nobody knows


@pytest.mark.parametrize("name", [TASK, "prompt_leakage_attacks", "prompt_leakage_exposure"])
def test_answers_that_nobody_would_read_are_not_asked_for(tmp_path, name):
    with pytest.raises(ValueError, match="mine: repeats: 3 asks .* only the first answer is read; remove it from the task's YAML file"):
        variant(tmp_path, "repeats: 3\n", name).load(["mine"])
    assert variant(tmp_path, "repeats: 1\n", name).load(["mine"])["tasks"]["mine"].config.repeats == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("num_fewshot: 3\n", "num_fewshot: 3 would not do what it says, .* remove it from the task's YAML file, or from its group's. What"),
        ("output_type: multiple_choice\n", "output_type: multiple_choice would"),
        ("description: Quack.\ndoc_to_text: 'Repeat: {{text}}'\ngen_prefix: 'Sure:'\n", "description, doc_to_text, gen_prefix would"),
        (
            f"process_docs: !function {CLASS}\nfewshot_split: test\n",
            "process_docs, fewshot_split would .* want `metadata: {prompts: FILE}`",
        ),
        (f"process_results: !function {CLASS}\n", "process_results: .* would"),
        ("filter_list: [{name: mine, filter: [{function: lowercase}]}]\n", "filter_list would"),
        ("dataset_path: json\ndataset_kwargs: {data_files: mine.jsonl}\n", "dataset_path, dataset_kwargs would"),
        ("test_split: dev\n", "test_split: dev would .*; you may want `metadata: {split: dev}`. What a file can set: metadata, "),
        ("temperature: 0\n", "temperature would not .* tag, task_alias, generation_kwargs$"),
    ],
)
def test_settings_that_a_task_does_not_read_are_refused(tmp_path, lines, message):
    with pytest.raises(ValueError, match=f"^mine: {message}"):
        variant(tmp_path, lines).load(["mine"])


def test_only_what_a_task_has_is_a_mend_or_a_setting_of_its_own(tmp_path):
    with pytest.raises(ValueError, match="test_split: dev, generation_kwargs would .* group's. What .* metric_list, tag, task_alias$"):
        variant(tmp_path, "test_split: dev\ngeneration_kwargs: {temperature: 0}\n", "prompt_leakage_exposure").load(["mine"])
    group = f"group: ours\nnum_fewshot: 5\ntask: [{TASK}]\n"
    (tmp_path / "ours.yaml").write_text(group)
    with pytest.raises(ValueError, match=f"{TASK}: num_fewshot: 5 would not do what it says"):
        variant(tmp_path, "").load(["ours"])


def test_settings_that_say_what_is_so_anyway_pass(tmp_path):
    lines = (
        "task_alias: Mine\ntag: ours\noutput_type: generate_until\ntest_split: test\nnum_fewshot: 0\ndescription: ''\nprocess_docs: null\n"
        "should_decontaminate: false\nmetric_list: [{metric: bits, aggregation: median, higher_is_better: true}]\n"
    )
    config = variant(tmp_path, lines).load(["ours"])["tasks"]["mine"].config
    assert (config.task_alias, config.num_fewshot, config.metric_list[0]["aggregation"]) == ("Mine", 0, "median")
    assert variant(tmp_path, "num_fewshot: null\n").load(["mine"])["tasks"]["mine"].config.num_fewshot == 0


@pytest.mark.parametrize("name", [TASK, "prompt_leakage_attacks", "prompt_leakage_canary", "prompt_leakage_exposure"])
def test_parameters_without_names_are_refused(tmp_path, name):
    manager = variant(tmp_path, "metadata:\n  - split: dev\n", name, **QUICK)
    with pytest.raises(ValueError, match=r"mine: metadata: \[{'split': 'dev'}\] in the task's YAML file is no mapping, .*without dashes"):
        manager.load(["mine"])
    variant(tmp_path, "metadata:\n", name, tier="smoke").load(["mine"])  # nothing, and what the command gives


def test_a_task_of_ones_own_runs(tmp_path, chat_model):
    import lm_eval

    found = lm_eval.simple_evaluate(
        model="hf", model_args=f"pretrained={chat_model},dtype=float32", tasks=["mine"], device="cpu", limit=1, apply_chat_template=True,
        task_manager=variant(tmp_path, "metadata: {split: dev}\n", **QUICK), gen_kwargs="temperature=0,max_gen_toks=8", bootstrap_iters=0,
    )  # fmt: skip
    assert found["results"]["mine"]["coverage,none"] == 1
    assert found["samples"]["mine"][0]["target"] == load_prompts("v1", split="dev")[0].text
    assert found["versions"]["mine"] == own_task().VERSION


@pytest.mark.parametrize(
    ("lines", "included", "message"),
    [
        (f"class: !function {CLASS}\n", None, "mine: base_task 'mine' is no task of this package.*include"),
        ("base_task: nope\n", TASK, "mine: base_task 'nope' is no task of this package; known: prompt_inversion, "),
        ("base_task: prompt_leakage_attacks\n", TASK, "task 'prompt_leakage_attacks' is unknown"),
    ],
)
def test_a_task_file_that_does_not_say_which_task_it_is(tmp_path, lines, included, message):
    with pytest.raises(ValueError, match=message):
        variant(tmp_path, lines, included).load(["mine"])


def test_a_task_file_may_not_take_the_name_of_another_task(tmp_path):
    with pytest.raises(ValueError, match="the configuration is of prompt_inversion_ordinary, and prompt_inversion is the name of another"):
        variant(tmp_path, "task: prompt_inversion\n").load([str(tmp_path / "mine.yaml")])


@pytest.mark.parametrize("lines", ["metadata: {split: dev}\n", "generation_kwargs: {temperature: 0}\n", ""])
def test_a_task_file_may_not_take_the_name_of_the_task_that_it_includes(tmp_path, lines):
    manager = variant(tmp_path, f"task: {TASK}\n{lines}")  # which the harness takes in place of the package's
    message = f"{TASK}: .*mine.yaml takes the name of one of this package's tasks .* such as `task: {TASK}_mine`"
    for given in (TASK, str(tmp_path / "mine.yaml")):
        with pytest.raises(ValueError, match=message):
            manager.load([given])


def test_a_file_that_is_named_on_the_command_line_comes_without_its_name(tmp_path):
    from lm_eval.tasks._yaml_loader import load_yaml

    manager = variant(tmp_path, f"task: {TASK}\ngeneration_kwargs: {{temperature: 0}}\n", **QUICK)
    with pytest.raises(ValueError, match=f"{TASK}: a configuration takes the name of one of this package's tasks"):
        manager.load([load_yaml(tmp_path / "mine.yaml")])
    assert manager.load([load_yaml(TASKS_FOLDER / f"{TASK}.yaml")])["tasks"][TASK].protocol.inverter_name == "constant"


def test_copies_of_the_packages_files_and_members_of_ones_own_groups_keep_their_names(tmp_path):
    (tmp_path / "copy.yaml").write_bytes((TASKS_FOLDER / f"{TASK}.yaml").read_bytes())
    (tmp_path / "group.yaml").write_text(f"group: ours\ntask: [{{task: {TASK}, generation_kwargs: {{temperature: 0}}}}]\n")
    manager = variant(tmp_path, "", **QUICK)
    assert manager.task_index[TASK].yaml_path.name == "copy.yaml"
    assert {manager.load([name])["tasks"][TASK].sampling["temperature"] for name in (TASK, "ours")} == {0.7, 0.0}


def test_metadata_of_a_group_does_not_reach_its_members(tmp_path):
    """What the documentation warns of; where it fails, the warning is no longer needed."""
    member = f"{{task: {TASK}, metadata: {{split: dev, redact: true}}}}"
    for lines, salted in ((f"metadata: {{redact: true}}\ntask: [{TASK}]\n", False), (f"task: [{member}]\n", True)):
        (tmp_path / "ours.yaml").write_text(f"group: ours\n{lines}")
        task = variant(tmp_path, "", **QUICK).load(["ours"])["tasks"][TASK]
        assert ("redact" in task.dump_config()["metadata"]) is salted


@pytest.mark.parametrize("limit", [0, 0.0, -1])
def test_a_limit_of_nothing_is_refused(chat_model, limit):
    # The harness would build the requests of all system prompts and run none of them.
    with pytest.raises(ValueError, match=f"--limit leaves {TASK} no system prompt to ask; give a number above 0, or leave it out for all"):
        run_lm_eval(chat_model, metadata=QUICK, limit=limit)


# Requests that another run has cached.


@pytest.mark.parametrize("first", [{}, {"redact": True}])
def test_cached_requests_come_with_the_documents_of_the_run(tmp_path, monkeypatch, first):
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    for metadata in (first, {"redact": True}, {"redact": True}, {}):
        task = own_task(**metadata)
        # lm_eval hashes the documents of requests into the samples.
        instances = build(task, cache_requests=True, limit=3)
        assert len(list(tmp_path.iterdir())) == 1
        documents = list(task.eval_docs)
        assert [instance.doc for instance in instances] == [documents[instance.doc_id] for instance in instances]
        assert all(bool(REDACTED.fullmatch(instance.doc["text"])) == ("redact" in metadata) for instance in instances)


@pytest.mark.parametrize("seeds", [(77, 77), (77, 78)])
def test_cached_requests_count_on_from_the_seed_of_the_run(tmp_path, monkeypatch, seeds):
    from lm_eval.caching import cache
    from lm_eval.models.openai_completions import LocalChatCompletion

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    for seed in seeds:
        server = object.__new__(LocalChatCompletion)
        server._seed, server.tokenized_requests, server.tokenizer_backend = seed, False, None
        task = own_task_manager({**QUICK, "num_queries": 3}).load(["prompt_inversion_user"])["tasks"]["prompt_inversion_user"]
        instances = build(task, cache_requests=True, limit=1, chat_template=server.apply_chat_template)
        sent = [instance.args[1].get("seed") for instance in instances if not task._is_null(instance)]
        assert sent == [None, seed + 1, seed + 2]
    assert len(list(tmp_path.iterdir())) == len(set(seeds))


# One object that runs again.


@pytest.fixture
def run_again(chat_model, monkeypatch):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    sent = []
    monkeypatch.setattr(
        HFLM, "generate_until", lambda self, requests, **_: sent.append(requests[0].args[1]) or ["I bake bread." for _ in requests]
    )
    task = own_task(split="dev")
    model = HFLM(pretrained=str(chat_model), dtype="float32", device="cpu")

    def run(evaluate=None, **keywords):
        keywords = {"limit": 1, "apply_chat_template": True, "bootstrap_iters": 0, **keywords}
        if evaluate:
            found = lm_eval.evaluate(model, {"tasks": {TASK: task}}, **keywords)
        else:
            found = lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=own_task_manager({}), **keywords)
        return found["results"][TASK], sent[-1]

    run.task = task
    return run


def test_a_task_that_only_predicted_scores_again(run_again):
    before, _ = run_again()
    for keywords in ({}, {"log_samples": False}, {"evaluate": True}):
        assert not [name for name in run_again(predict_only=True)[0] if name.startswith("token_f1")]
        assert run_again(**keywords)[0] == pytest.approx(before, nan_ok=True)
    assert run_again.task.dump_config()["metric_list"] == own_task().dump_config()["metric_list"]


def test_a_task_keeps_no_settings_of_the_last_run(run_again):
    assert run_again(gen_kwargs="max_tokens=9,temperature=0")[1]["max_gen_toks"] == 9
    with pytest.raises(ValueError, match="temperature=-2"):  # nor those of a run that did not come about
        run_again(gen_kwargs="temperature=-2")
    assert (run_again()[1]["max_gen_toks"], run_again()[1]["temperature"]) == (64, 0.7)
    assert run_again(gen_kwargs="temperature=0.5")[1]["max_gen_toks"] == 64
    # Who sets something by hand sets it for every `evaluate`.
    run_again.task.set_config("generation_kwargs", {"max_gen_toks": 7}, update=True)
    assert [run_again(evaluate=True)[1] for _ in range(2)] == [{"until": [], "temperature": 0.7, "max_gen_toks": 7, "do_sample": True}] * 2


# Requests that were not answered.


def test_what_stands_for_no_answer_is_none(monkeypatch):
    placeholder = "[none]"
    task = own_task("prompt_leakage_attacks", tier="smoke")

    def coverage():
        for instance in build(task, limit=1):
            instance.resps = [placeholder]
        task.apply_filters()
        return task.process_results(task.instances[0].doc, [])["coverage"]

    assert coverage() == 1  # a model may say so
    monkeypatch.setenv("LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER", placeholder)
    assert coverage() == 0
    assert {instance.resps[0] for instance in task.instances} == {""}


# Chat templates by name.


@pytest.fixture
def model_of_templates(tmp_path):
    def make(templates, **keywords):
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=str(write_chat_model(tmp_path, templates)), dtype="float32", device="cpu", **keywords)

    return make


def test_it_is_told_which_of_several_templates_renders(model_of_templates, caplog):
    caplog.set_level(logging.WARNING, "lm_eval")
    templates = {"default": TEMPLATE_DROPS_SYSTEM, "rag": TEMPLATE}
    task = own_task()
    build(task, limit=1, chat_template=model_of_templates(templates).apply_chat_template)
    assert task.system_role == "user"
    assert f"{TASK}: of the tokenizer's chat templates (default, rag) 'default' renders the requests" in caplog.text
    assert "only notes the NAME of --apply_chat_template NAME down" in caplog.text
    # The advice.
    caplog.clear()
    build(task, limit=1, chat_template=model_of_templates(templates, chat_template_args={"chat_template": "rag"}).apply_chat_template)
    assert task.system_role == "system"
    assert "templates" not in caplog.text


def test_one_template_or_none_of_the_name_default(model_of_templates, caplog):
    caplog.set_level(logging.WARNING, "lm_eval")
    build(own_task(), limit=1, chat_template=model_of_templates(TEMPLATE).apply_chat_template)
    assert "templates" not in caplog.text
    lm = model_of_templates({"chat": TEMPLATE, "rag": TEMPLATE})
    lm.tokenizer.chat_template = {"chat": TEMPLATE, "rag": TEMPLATE}
    message = f"^{TASK}: the chat template 'default' is to render, which is not there; the tokenizer's are chat, rag. The harness only "
    with pytest.raises(ValueError, match=f"{message}.* does not render with it.*chat_template_args") as found:
        build(own_task(), limit=1, chat_template=lm.apply_chat_template)
    assert "give a chat model" not in str(found.value)
    lm.chat_template_args = {"chat_template": "rig"}
    with pytest.raises(ValueError, match="the chat template 'rig' is to render, which is not there; the tokenizer's are chat, rag"):
        build(own_task(), limit=1, chat_template=lm.apply_chat_template)
    lm.chat_template_args = {"chat_template": "rag"}
    build(own_task(), limit=1, chat_template=lm.apply_chat_template)


def test_a_template_that_has_a_name_and_cannot_be_used(model_of_templates):
    lm = model_of_templates({"default": "{{ raise_exception('no') }}", "rag": TEMPLATE})
    with pytest.raises(ValueError, match=r"'default' is to render, which cannot be used \(TemplateError: no\); .* default, rag\. The"):
        build(own_task(), limit=1, chat_template=lm.apply_chat_template)


# Lists of samples.


@pytest.mark.parametrize("samples", [[-1, 0], [2, 2], [150], [0.0], ["1"], [True], [], 3])
def test_samples_that_name_no_prompts_are_refused(samples):
    with pytest.raises(ValueError, match=rf"--samples for {TASK} is .*give a list of different whole numbers from 0 to 149, the places"):
        build(own_task(), samples=samples)


def test_samples_in_any_order_are_named_rightly(chat_model, monkeypatch):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(HFLM, "generate_until", lambda self, requests, **_: ["I bake bread." for _ in requests])
    found = lm_eval.simple_evaluate(
        model="hf", model_args=f"pretrained={chat_model},dtype=float32", tasks=[TASK], device="cpu", samples={TASK: [9, 2]},
        apply_chat_template=True, task_manager=own_task_manager(QUICK), bootstrap_iters=0,
    )  # fmt: skip
    prompts = load_prompts("v1")
    assert {row["doc_id"]: row["target"] for row in found["samples"][TASK]} == {number: prompts[number].text for number in (2, 9)}
