"""Plans against counts made in another way."""

import argparse
import json
import math
import sys
from functools import partial

import pytest
from conftest import TEMPLATE, TEMPLATE_DROPS_SYSTEM, make_tokenizer

from lm_eval_inversion.leakage import make_leakage_protocol
from lm_eval_inversion.plan import _parameters as plan_parameters
from lm_eval_inversion.plan import add_arguments, expand_tasks, make_plan, plan_table, run
from lm_eval_inversion.prices import Prices, read_prices
from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.tasks import protocol_makers
from lm_eval_inversion.token_counts import CharacterCounter

RECOVERY = ["prompt_inversion", "prompt_inversion_ordinary"]
LEAKAGE = ["prompt_leakage_attacks", "prompt_leakage_multiturn", "prompt_leakage_canary"]
PRICES = {"currency": "EUR", "input_per_million_tokens": 2.0, "output_per_million_tokens": 8.0, "cached_input_per_million_tokens": 0.5}


def options(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


@pytest.fixture
def own_prompts(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("You are a baker.\n\nYou are a baker who never talks about prices.\n")
    return path


@pytest.fixture(params=[TEMPLATE, TEMPLATE_DROPS_SYSTEM], ids=["system", "folded into the user's turn"])
def tokenizer_folder(request, tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(request.param)
    # Writes a start token before bare texts, as many do; templates write their own.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def requests_by_hand(task, prompts, num_queries=None):
    """(system prompt, turns) of everything that is sent, null requests with None."""
    if task.startswith("prompt_inversion"):
        protocol = make_protocol(task, prompts=str(prompts), num_queries=num_queries)
        turns = [[{"role": "user", "content": query.text}] for query in protocol.queries.queries]
        return [(prompt.text, one) for prompt in protocol.prompts for one in turns] + [(None, one) for one in turns]
    protocol = make_leakage_protocol(task, prompts=str(prompts), tier="smoke")
    own = [
        (f"{prompt.text}\n\n{one.permission}" if one.permission else prompt.text, list(one.turns))
        for prompt in protocol.prompts
        for one in protocol.requests()
    ]
    return own + [(None, list(one.turns)) for one in protocol.shared_requests()]


def test_numbers_of_requests_are_those_of_the_readme():
    plan = make_plan(["prompt_leakage_attacks", "prompt_leakage_multiturn"], parameters={"tier": "core"})
    assert {task: counts.requests for task, counts in plan.tasks.items()} == {
        "prompt_leakage_attacks": 1000, "prompt_leakage_multiturn": 728,
    }  # fmt: skip
    smoke = make_plan(["prompt_leakage_attacks"], parameters={"tier": "smoke"}).tasks["prompt_leakage_attacks"]
    assert (smoke.requests, smoke.null_requests) == (48, 14)
    assert smoke.output_tokens_limit == 48 * 256
    inversion = make_plan(["prompt_inversion_ordinary"], parameters={"split": "dev"}).tasks["prompt_inversion_ordinary"]
    assert (inversion.requests, inversion.null_requests, inversion.output_tokens_limit) == (51 * 16, 16, 51 * 16 * 64)
    # 16 outputs, of each at most two blocks of 32 tokens, under each of 50 prompts and five times of the null.
    assert (inversion.inverter_outputs, inversion.inverter_tokens) == (55 * 16, 55 * 16 * 2 * 32)
    lists = make_plan(["prompt_inversion"], parameters={"split": "dev"}).tasks["prompt_inversion"]
    # 64 outputs fill all 64 blocks.
    assert (lists.requests, lists.inverter_outputs, lists.inverter_tokens) == (51 * 4, 55 * 64, 55 * 64 * 32)


@pytest.mark.parametrize(("task", "num_queries"), [("prompt_inversion_ordinary", 3), ("prompt_leakage_multiturn", None)])
def test_prompt_tokens_are_those_of_the_models_own_template(tokenizer_folder, own_prompts, task, num_queries):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    folded = "!= 'system'" in tokenizer.chat_template
    rendered = []
    for system_prompt, turns in requests_by_hand(task, own_prompts, num_queries):
        messages = [dict(turn) for turn in turns]
        if system_prompt is not None and folded:
            messages[0]["content"] = f"{system_prompt}\n\n{messages[0]['content']}"
        elif system_prompt is not None:
            messages = [{"role": "system", "content": system_prompt}, *messages]
        rendered.append(list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"]))
    parameters = {"prompts": str(own_prompts), "tier": "smoke"} if num_queries is None else {
        "prompts": str(own_prompts), "num_queries": num_queries,
    }  # fmt: skip
    counts = make_plan([task], parameters=parameters, tokenizer=str(tokenizer_folder)).tasks[task]
    assert counts.requests == len(rendered)
    assert counts.prompt_tokens == sum(map(len, rendered))
    assert counts.longest_prompt_tokens == max(map(len, rendered))
    # Every token of a request that no earlier request began with is a new node of the tree of prefixes.
    prefixes = {tuple(ids[: end + 1]) for ids in rendered for end in range(len(ids))}
    assert counts.repeated_prompt_tokens == sum(map(len, rendered)) - len(prefixes)


def test_what_changes_no_request_is_no_obstacle(own_prompts, tiny_inverter_folder):
    given = {"prompts": str(own_prompts), "inverter": str(tiny_inverter_folder)}
    plain, redacted = (make_plan(["prompt_inversion"], parameters={**given, **more}) for more in ({}, {"redact": True}))
    assert plain.tasks == redacted.tasks


def test_the_estimate_is_a_quarter_of_the_characters_and_says_so(own_prompts):
    plan = make_plan(["prompt_inversion_ordinary"], parameters={"prompts": str(own_prompts), "num_queries": 2})
    lengths = [
        len(system_prompt or "") + sum(len(turn["content"]) for turn in turns)
        for system_prompt, turns in requests_by_hand("prompt_inversion_ordinary", own_prompts, 2)
    ]
    assert plan.tasks["prompt_inversion_ordinary"].prompt_tokens == sum(math.ceil(length / 4) for length in lengths)
    assert "characters of all messages / 4" in plan_table(plan)
    assert CharacterCounter().tokens("") == 0


def test_a_defence_is_counted_as_it_is_sent(own_prompts):
    parameters = {"prompts": str(own_prompts), "num_queries": 2}
    plain, sandwich = (
        make_plan(["prompt_inversion_ordinary"], parameters={**parameters, **defence}).tasks["prompt_inversion_ordinary"]
        for defence in ({}, {"defence": "sandwich"})
    )
    assert sandwich.requests == plain.requests
    # The system prompt stands in the user's message once more, under each of two queries.
    assert sandwich.prompt_tokens - plain.prompt_tokens >= 2 * sum(len(text) // 4 for text in own_prompts.read_text().split("\n\n"))


def test_users_requests_have_no_system_prompt_and_are_no_null_requests(own_prompts):
    counts = make_plan(["prompt_inversion_user"], parameters={"prompts": str(own_prompts), "num_queries": 3}).tasks["prompt_inversion_user"]
    assert (counts.requests, counts.null_requests) == (2 * 3 + 3, 3)


def test_exposure_generates_nothing_and_reads_every_candidate(tmp_path):
    from lm_eval_inversion.exposure import make_exposure_protocol
    from lm_eval_inversion.queries import conversation

    make_tokenizer().save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    protocol = make_exposure_protocol(tier="smoke")
    expected = 0
    for prompt in protocol.prompts:
        for probe in protocol.probes(prompt):
            start = tokenizer.apply_chat_template(conversation(prompt.text, probe.turns), tokenize=False, add_generation_prompt=True)
            expected += sum(len(tokenizer(start + probe.beginning + one)["input_ids"]) for one in probe.continuations)
    counts = make_plan(["prompt_leakage_exposure"], parameters={"tier": "smoke"}, tokenizer=str(tmp_path)).tasks["prompt_leakage_exposure"]
    assert counts.prompt_tokens == expected
    assert (counts.requests, counts.null_requests, counts.output_tokens_limit) == (2 * 2 * 102, 0, 0)


def test_groups_are_what_lm_eval_reads():
    yaml = pytest.importorskip("yaml")
    from pathlib import Path

    import lm_eval_inversion

    folder = Path(lm_eval_inversion.__file__).parent / "adapters" / "lm_eval" / "tasks"
    for group in ("prompt_recovery", "prompt_leakage"):
        assert expand_tasks([group]) == yaml.safe_load((folder / f"{group}.yaml").read_text())["task"]
    names = {path.stem for path in folder.glob("*.yaml")}
    assert set(protocol_makers()) == names - {"prompt_recovery", "prompt_leakage"}, "every task can be planned"


# Lists of tasks -> those that are run, or None where lm_eval refuses the list.
LISTS = [
    (["prompt_inversion", "prompt_inversion"], ["prompt_inversion"]),
    (["prompt_recovery", "prompt_leakage", "prompt_recovery"], [*RECOVERY, *LEAKAGE]),
    (["prompt_leakage_exposure,prompt_recovery"], ["prompt_leakage_exposure", *RECOVERY]),
    (["prompt_inversion_*", "prompt_inversion"], [f"prompt_inversion{end}" for end in ("_ordinary", "_paper", "_user", "")]),
    (["prompt_inversion", "prompt_recovery"], None),
    (["prompt_recovery", "prompt_inversion_ordinary"], None),
    (["prompt_inv*,prompt_leakage*"], None),
    (["prompt_leakage*"], None),
]


@pytest.mark.parametrize(("names", "tasks"), LISTS)
def test_a_list_of_tasks_is_refused_where_lm_eval_refuses_it(monkeypatch, names, tasks):
    import lm_eval.tasks
    from lm_eval.config.evaluate_config import EvaluatorConfig

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", partial(lm_eval.tasks.TaskManager, include_defaults=False))
    config = EvaluatorConfig(tasks=names)  # as its command line has them
    manager = config.process_tasks({})
    if tasks is None:
        with pytest.raises(ValueError, match="Duplicate task"):
            manager.load(config.tasks)
        with pytest.raises(ValueError, match="comes from both '.*' and '.*', and lm_eval refuses .*; leave one of the two out"):
            expand_tasks(names)
    else:
        assert expand_tasks(names) == list(manager.load(config.tasks)["tasks"]) == tasks


def test_minutes_and_costs(tmp_path, capsys, own_prompts):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(PRICES))
    words = ["prompt_inversion", "prompt_leakage_attacks", "--metadata", f"prompts={own_prompts}", "tier=smoke", "--prices", path]
    words += ["--tokens-per-second", 100, "--prefill-tokens-per-second", 1000, "--max-tokens", 10]
    assert run(options(*words, "--format", "json")) == 0
    found = json.loads(capsys.readouterr().out)
    for row in [*found["tasks"], found["sum"]]:
        assert row["output_tokens_limit"] == 10 * row["requests"]
        assert row["minutes_limit"] == pytest.approx((row["prompt_tokens"] / 1000 + row["output_tokens_limit"] / 100) / 60)
        new = row["prompt_tokens"] - row["repeated_prompt_tokens"]
        assert row["cost_limit"] == pytest.approx((row["prompt_tokens"] * 2 + row["output_tokens_limit"] * 8) / 1e6)
        assert row["cost_limit_with_cache"] == pytest.approx(
            (new * 2 + row["repeated_prompt_tokens"] * 0.5 + row["output_tokens_limit"] * 8) / 1e6
        )
        assert row["minutes_typical"] is row["cost_typical"] is row["output_tokens_typical"] is None
    for name in ("requests", "null_requests", "prompt_tokens", "cost_limit", "minutes_limit", "inverter_tokens"):
        assert found["sum"][name] == pytest.approx(sum(row[name] for row in found["tasks"])), name
    assert found["sum"]["longest_prompt_tokens"] == max(row["longest_prompt_tokens"] for row in found["tasks"])
    assert run(options(*words)) == 0
    text = capsys.readouterr().out
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [line[0] for line in table] == ["task", *(["-" * 24]), "prompt_inversion", "prompt_leakage_attacks", "sum"]
    for line, row in zip(table[2:], [*found["tasks"], found["sum"]]):
        shown = dict(zip(table[0], line))
        assert shown["requests"] == f"{row['requests']:,}"
        assert shown["prompt tokens"] == f"{row['prompt_tokens']:,}"
        assert shown["EUR, at most"] == f"{row['cost_limit']:.2f}"
        assert shown["minutes, at most"] == f"{row['minutes_limit']:.1f}"


def test_typical_answers_come_from_a_saved_run(tmp_path, own_prompts):
    from lm_eval_inversion.prompts import load_prompts

    rows = []
    for prompt, answers in zip(load_prompts(own_prompts), (["x" * 40, "y" * 4000], ["", "z" * 80])):
        doc = {**prompt.to_dict(), "attributes": "[]"}
        rows.append({"doc": doc, "resps": [[answer] for answer in answers], "filtered_resps": ["guess", "guess"], "coverage": 1.0})
    (tmp_path / "samples_prompt_inversion_ordinary_now.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = make_plan(
        ["prompt_inversion_ordinary", "prompt_leakage_attacks"], parameters={"prompts": str(own_prompts), "num_queries": 2},
        typical_from=tmp_path, prices=Prices("USD", 1.0, 1.0),
    )  # fmt: skip
    known, unknown = (plan.tasks[task] for task in ("prompt_inversion_ordinary", "prompt_leakage_attacks"))
    # 10, cut at 64, 0 and 20 tokens: 23.5 each, for 2 prompts and the null with 2 queries each.
    assert known.output_tokens_typical == round(6 * 23.5)
    assert unknown.output_tokens_typical is None
    figures = plan.figures(known)
    assert figures["cost_typical"] == pytest.approx((known.prompt_tokens + 141) / 1e6)
    assert figures["cost_typical_with_cache"] is None
    assert plan.to_dict()["sum"]["output_tokens_typical"] is None
    assert str(tmp_path) in plan_table(plan)
    with pytest.raises(ValueError, match="no answers of prompt_inversion .found: prompt_inversion_ordinary."):
        make_plan(["prompt_inversion"], typical_from=tmp_path)


def test_typical_answers_come_from_a_task_that_the_user_named(tmp_path, own_prompts):
    from lm_eval_inversion.prompts import load_prompts

    rows = [{"doc": {**prompt.to_dict(), "attributes": "[]"}, "resps": [["x" * 40]] * 2, "filtered_resps": ["guess"] * 2} for prompt in
            load_prompts(own_prompts)]  # fmt: skip
    (tmp_path / "samples_mine_2026.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"model": "hf", "model_args": "pretrained=some/model"}
    configs = {"mine": {"metadata": {"base_task": "prompt_inversion_ordinary"}}}
    (tmp_path / "results_2026.json").write_text(json.dumps({"config": settings, "configs": configs}))
    given = {"parameters": {"prompts": str(own_prompts), "num_queries": 2}, "typical_from": tmp_path}
    assert make_plan(["prompt_inversion_ordinary"], **given).tasks["prompt_inversion_ordinary"].output_tokens_typical == 6 * 10


def test_redacted_answers_are_as_long_as_they_were(tmp_path, own_prompts):
    from lm_eval_inversion.prompts import load_prompts
    from lm_eval_inversion.redaction import redact_prompt, redact_text

    salt, plans = b"salt", []
    make_tokenizer().save_pretrained(tmp_path / "model")
    answers = ["x" * 40, "y" * 4000]
    for name in ("plain", "redacted"):
        rows = []
        for prompt in load_prompts(own_prompts):
            shown = prompt if name == "plain" else redact_prompt(prompt, salt)
            said = answers if name == "plain" else [redact_text(answer, salt) for answer in answers]
            rows.append({"doc": {**shown.to_dict(), "attributes": "[]"}, "resps": [[one] for one in said], "filtered_resps": ["guess"] * 2})
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples_prompt_inversion_ordinary_now.jsonl").write_text("\n".join(map(json.dumps, rows)))
        given = {"parameters": {"prompts": str(own_prompts), "num_queries": 2}, "typical_from": tmp_path / name}
        plans.append(make_plan(["prompt_inversion_ordinary"], **given))
    plain, redacted = (plan.tasks["prompt_inversion_ordinary"].output_tokens_typical for plan in plans)
    assert plain == redacted == 6 * (10 + 64) / 2
    # With a tokenizer too, a marker is not read as if the model had said it.
    exact = make_plan(["prompt_inversion_ordinary"], **given, tokenizer=str(tmp_path / "model"))
    assert exact.tasks["prompt_inversion_ordinary"].output_tokens_typical == redacted
    assert "of redacted answers, characters / 4" in plan_table(exact)


def test_the_plan_says_how_many_system_prompts_it_found(own_prompts):
    plan = make_plan(["prompt_inversion_ordinary", "prompt_leakage_attacks"], parameters={"prompts": str(own_prompts)})
    assert [counts.system_prompts for counts in plan.tasks.values()] == [2, 2]
    assert plan.to_dict()["tasks"][0]["system_prompts"] == 2
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in plan_table(plan).splitlines() if line.startswith("|")]
    assert dict(zip(lines[0], lines[2]))["system prompts"] == "2"
    canary = make_plan(["prompt_leakage_canary"], parameters={"tier": "smoke"}).tasks["prompt_leakage_canary"]
    assert canary.system_prompts == 4  # two carriers, each with and without the line that asks for silence


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", '{"currency": "USD",\n "input_per_million_tokens": }', "p.json line 2: not JSON"),
        ("p.yaml", "currency: [\n", "p.yaml line 2: not YAML"),
        ("p.yaml", "currency: USD\ninput_per_million_tokens: 1\n", "field 'output_per_million_tokens' is missing"),
        (
            "p.yaml",
            "currency: USD\ninput_per_million_tokens: -1\noutput_per_million_tokens: 1\n",
            "line 2: field 'input_per_million_tokens'",
        ),
        ("p.yaml", "currency: USD\ninput_per_million_tokens: 1\noutput_per_million_tokens: .nan\n", "line 3: field 'output_per_million"),
        ("p.json", '{"currency": "USD",\n"input_per_million_tokens": true,\n"output_per_million_tokens": 1}', "line 2: field 'input_per"),
        ("p.yml", "currency: 3\ninput_per_million_tokens: 1\noutput_per_million_tokens: 1\n", "line 1: field 'currency' is 3"),
        ("p.yaml", "currency: USD\ninput: 1\n", "line 2: field 'input' is unknown; known: currency, input_per_million_tokens"),
        ("p.yaml", "- 1\n", "list instead of an object"),
        ("p.toml", "", "prices are read from .json, .yaml and .yml"),
        ("p.yaml", "currency: 2024-13-45\n", r"p\.yaml: a value cannot be read \(.*\); write a name and plain numbers"),
        ("p.yaml", "currency: " + "[" * 5000, r"p\.yaml: a value cannot be read"),
        ("p.json", '{"currency": ' + "[" * 100_000, r"p\.json: a value cannot be read"),
        ("p.json", '{"input_per_million_tokens": ' + "9" * 5000 + "}", r"p\.json: a value cannot be read"),
        ("p.yaml", "input_per_million_tokens: 1\ncurrency: \u20ac\n", r"p\.yaml line 2: the file is not UTF-8 \(byte 0x80\); save it"),
        ("p.yaml", "input_per_million_tokens: 1\rcurrency: \u20ac\r", r"p\.yaml line 2: the file is not UTF-8"),
    ],
)
def test_bad_price_files_name_line_and_field(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="cp1252")  # of which all but the last two are UTF-8 too
    with pytest.raises(ValueError, match=message):
        read_prices(tmp_path / name)


def test_a_price_may_be_nothing(tmp_path):
    (tmp_path / "p.yaml").write_text("currency: USD\ninput_per_million_tokens: 0\noutput_per_million_tokens: 0.5\n")
    assert read_prices(tmp_path / "p.yaml").cost(10_000, 0, 2_000_000) == 1.0


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["prompt_inverson"], ValueError, "task 'prompt_inverson' is unknown to plan; known: prompt_inversion, "),
        (["own/mine.yaml"], ValueError, "of a task of your own give the one that its file includes, with the file's metadata"),
        (["prompt_inversion", "--metadata", "tier=smoke"], ValueError, "--metadata tier=smoke: none of prompt_inversion has this"),
        (["prompt_inversion", "--metadata", "split"], ValueError, "'split' is not name=value"),
        (["prompt_inversion", "--metadata", "{'split': 'dev'}"], ValueError, "is no JSON object .*; put names and texts into"),
        (["prompt_inversion", "--metadata", "num_queries=99"], ValueError, "num_queries=99"),
        (["prompt_inversion", "--metadata", "prompts=none.csv"], FileNotFoundError, "none.csv"),
        (["prompt_inversion", "--metadata", "inverter=nothing"], ValueError, "inverter='nothing' is unknown"),
        (["prompt_inversion", "--tokenizer", "no/such/folder"], FileNotFoundError, "'no/such/folder' is no folder"),
        (["prompt_inversion", "--model-args", "dtype=float32"], ValueError, "--model-args 'dtype=float32' names no pretrained=FOLDER"),
        (["prompt_inversion", "--model-args", "model"], ValueError, "--model-args 'model' is not name=value"),
        (["prompt_inversion", "--model-args", "{'pretrained': 'x'}"], ValueError, "--model-args .* is no JSON object"),
        (["prompt_inversion", "--model-args", '{"dtype": "x"}', "pretrained=x"], ValueError, "--model-args .*; put pretrained=x into it"),
        (["prompt_inversion", "--prices", "none.yaml"], FileNotFoundError, "price file none.yaml does not exist"),
        (["prompt_inversion", "--typical-from", "none"], ValueError, "none does not exist"),
    ],
)
def test_user_errors_name_the_input(words, error, message):
    with pytest.raises(error, match=message):
        run(options(*words))


def test_a_folder_without_a_chat_template(tmp_path):
    make_tokenizer(None).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="has no chat template"):
        make_plan(["prompt_inversion"], tokenizer=str(tmp_path / "base"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="a folder without a usable tokenizer"):
        make_plan(["prompt_inversion"], tokenizer=str(tmp_path / "empty"))


@pytest.mark.parametrize("words", [["--tokens-per-second", "0"], ["--tokens-per-second", "fast"], ["--max-tokens", "0"]])
def test_speeds_are_above_zero(words, capsys):
    with pytest.raises(SystemExit):
        options("prompt_inversion", *words)
    assert words[0] in capsys.readouterr().err


def test_options_of_lm_eval_are_understood(tmp_path, own_prompts, capsys):
    make_tokenizer().save_pretrained(tmp_path / "model")
    words = ["prompt_inversion_ordinary", "--metadata", f"prompts={own_prompts}", "num_queries=2", "--format", "json"]
    assert run(options(*words, "--tokenizer", tmp_path / "model")) == 0
    first = json.loads(capsys.readouterr().out)
    named = f"pretrained={tmp_path / 'model'}"
    spelt = [f"{named},dtype=float32"], ["dtype=float32", named], [json.dumps({"pretrained": str(tmp_path / "model"), "dtype": "float32"})]
    for arguments in (*spelt, [named, "--model-args", "dtype=float32"]):
        assert run(options(*words, "--model-args", *arguments)) == 0
        assert json.loads(capsys.readouterr().out) == first
    assert first["tasks"][0]["requests"] == 6


def test_an_inverter_that_must_be_fetched_has_no_known_layout():
    counts = make_plan(["prompt_inversion"], parameters={"split": "dev", "inverter": "hub:org/name@main"}).tasks["prompt_inversion"]
    assert counts.inverter_outputs == 55 * 64
    assert counts.inverter_tokens is None
    assert make_plan(["prompt_inversion"], parameters={"inverter": "constant"}).tasks["prompt_inversion"].inverter_tokens == 0


@pytest.mark.parametrize("spelt", [["split=dev,num_queries=2"], ["split=dev", "num_queries=2"], ['{"split": "dev", "num_queries": 2}']])
def test_parameters_are_spelt_as_lm_eval_reads_them(spelt, capsys):
    from lm_eval._cli.utils import key_val_to_dict, try_parse_json

    theirs = {}
    for text in spelt:
        parsed = try_parse_json(text)
        theirs |= parsed if isinstance(parsed, dict) else key_val_to_dict(text)
    assert plan_parameters(spelt, "--metadata") == theirs == {"split": "dev", "num_queries": 2}


@pytest.mark.parametrize("words", [['{"split": "dev"}', "redact=true"], ["redact=true", '{"split": "dev"}']])
def test_what_lm_eval_drops_beside_a_json_object_is_refused(words, capsys):
    """Whoever gives redact=true there would have a run in plain text, and a plan that says nothing of it."""
    from lm_eval._cli.utils import MergeDictAction

    with pytest.raises(ValueError, match="lm_eval reads a JSON object alone, and drops what follows it; put redact=true into it"):
        run(options("prompt_inversion", "--metadata", *words))
    theirs = argparse.ArgumentParser()
    theirs.add_argument("--metadata", nargs="*", action=MergeDictAction)
    if words[0].startswith("{"):
        assert theirs.parse_args(["--metadata", *words]).metadata == {"split": "dev"}
    assert set(theirs.parse_args(["--metadata", words[0], "--metadata", words[1]]).metadata) == {"split", "redact"}
    # An option of its own is merged, as lm_eval does.
    first, second = ("--metadata", words[0]), ("--metadata", words[1])
    assert run(options("prompt_inversion", *first, *second)) == 0
    together = capsys.readouterr().out
    assert run(options("prompt_inversion", "--metadata", "split=dev", "redact=true")) == 0
    assert capsys.readouterr().out == together


@pytest.mark.parametrize(
    ("pair", "value"),
    [("defence=none", "none"), ("num_queries=None", None), ("split='dev'", "dev"), ("curve=True", True), ("decoy_seed=1_0", 10.0)],
)
def test_values_are_what_lm_evals_command_line_makes_of_them(pair, value):
    ((_, read),) = plan_parameters([pair], "--metadata").items()
    assert (read, type(read)) == (value, type(value))


def test_without_lm_evals_reader_a_json_object_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval._cli.utils", None)
    assert plan_parameters(['{"split": "dev"}'], "--metadata") == {"split": "dev"}
    with pytest.raises(ValueError, match="'split=dev': this lm_eval hides how it reads name=value; give .\"name\": \"value\"."):
        plan_parameters(["split=dev"], "--metadata")
