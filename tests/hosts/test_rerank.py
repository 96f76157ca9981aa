"""``rerank`` on finished runs of both real hosts, and the target's likelihoods against full forward passes."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import TEMPLATE, TEMPLATE_DROPS_SYSTEM, make_model, make_tokenizer, write_chat_model

from lm_eval_inversion.cli import main
from lm_eval_inversion.confidence import Confidence, save_confidence
from lm_eval_inversion.queries import user_turn
from lm_eval_inversion.reranking import FEATURES, read_reranked
from lm_eval_inversion.target import Target

from .conftest import run_inspect, run_lm_eval

TASK = "prompt_inversion_ordinary"
SETTINGS = ["--candidates", "2", "--seed", "1"]


@pytest.fixture
def quick(monkeypatch):
    """Short reconstructions: an untrained inverter never ends by itself."""
    from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter

    sample, invert = SparsePrefixInverter.sample, SparsePrefixInverter.invert
    monkeypatch.setattr(SparsePrefixInverter, "sample", lambda self, *given: sample(self, *given, max_new_tokens=8))
    monkeypatch.setattr(SparsePrefixInverter, "invert", lambda self, outputs, *_, **__: invert(self, outputs, max_new_tokens=8))


@pytest.fixture
def saved(chat_model, arguments, tmp_path):
    """Results of lm_eval as they are saved, without the round through its command line."""
    found = run_lm_eval(chat_model, metadata=arguments, gen_kwargs="temperature=0,max_gen_toks=12", limit=2)
    moment, folder = "2026-01-02T03-04-05.000001", tmp_path / "results"
    folder.mkdir()
    samples = "".join(json.dumps(row, default=str) + "\n" for row in found["samples"][TASK])
    (folder / f"samples_{TASK}_{moment}.jsonl").write_text(samples)
    run = {"configs": {TASK: {"metadata": found["configs"][TASK]["metadata"]}}, "config": {"model": "hf", "model_args": {}}}
    (folder / f"results_{moment}.json").write_text(json.dumps(run))
    return folder


def rerank(*arguments):
    return main(["rerank", *map(str, arguments)])


def test_both_hosts_are_reranked_alike(chat_model, arguments, saved, tmp_path, quick, capsys):
    logs = tmp_path / "logs"
    assert run_inspect(chat_model, logs, task_args=arguments, limit=2, max_tokens=12).status == "success"
    assert rerank(saved, logs, "--model", chat_model, *SETTINGS, "-o", tmp_path / "out" / "both.jsonl") == 0
    shown = capsys.readouterr().out
    assert f"## {TASK} (lm_eval, 2 system prompts, 3 candidates each)" in shown
    assert f"## {TASK} (inspect, 2 system prompts, 3 candidates each)" in shown
    assert "| target's likelihood |" in shown
    assert "No confidence is fitted for this inverter" in shown
    rows = read_reranked(tmp_path / "out" / "both.jsonl")
    assert [row["host"] for row in rows] == ["lm_eval", "lm_eval", "inspect", "inspect"]
    by_prompt = {row["prompt_id"]: row for row in rows[2:]}  # Inspect's log has an order of its own
    for one, other in ((row, by_prompt[row["prompt_id"]]) for row in rows[:2]):
        assert one["ranking"] == other["ranking"]  # greedy runs: the same answers, so the same likelihoods
        assert (one["token_f1"], one["chosen"], one["features"]) == (other["token_f1"], other["chosen"], other["features"])
    for row in rows:
        assert len(row["ranking"]["candidates"]) == len(row["token_f1"]) == 3
        assert row["ranking"]["target"][row["chosen"]] == max(row["ranking"]["target"])
        assert set(row["features"]) == set(FEATURES)
        assert row["confidence"] is None
        assert row["target_tokens"] > 0


def test_a_fit_gives_a_chance_to_its_own_inverter_only(chat_model, saved, tmp_path, quick, capsys):
    none = dict.fromkeys(FEATURES, 0.0)
    own = Confidence("?", 0.0, none, none, dict.fromkeys(FEATURES, 1.0), 0.0)
    base = [saved, "--model", chat_model, "--limit", 1, *SETTINGS, "-o", tmp_path / "out.jsonl"]
    save_confidence(own, tmp_path / "other.json")
    assert rerank(*base, "--confidence", tmp_path / "other.json") == 0
    (row,) = read_reranked(tmp_path / "out.jsonl")
    assert row["confidence"] is None
    save_confidence(Confidence(row["inverter_hash"], 0.0, none, none, dict.fromkeys(FEATURES, 1.0), 0.0), tmp_path / "own.json")
    assert rerank(*base, "--confidence", tmp_path / "own.json") == 0
    assert [row["confidence"] for row in read_reranked(tmp_path / "out.jsonl")] == [0.5]


def test_mistakes_end_in_one_line(chat_model, saved, tmp_path, capsys):
    def error(*arguments):
        assert rerank(*arguments) == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.err.splitlines()[-1]

    assert "log-likelihoods need the model itself" in error(saved, "--model", tmp_path / "nowhere")
    assert "does not sample" in error(saved, "--model", chat_model, "--inverter", "constant")
    other = write_chat_model(tmp_path / "other", TEMPLATE_DROPS_SYSTEM)
    assert "system prompts reached the model in the system message" in error(saved, "--model", other)
    assert "has no chat template" in error(saved, "--model", write_chat_model(tmp_path / "base", None))
    (samples,) = saved.glob("samples_*")
    attacks = samples.with_name(samples.name.replace(TASK, "prompt_leakage_exposure"))
    attacks.write_text(samples.read_text())
    next(saved.glob("results_*")).unlink()
    assert "reconstructs nothing" in error(attacks, "--model", chat_model)


def test_what_needs_no_model_is_refused_before_it_is_loaded(quick, saved, monkeypatch, capsys):
    monkeypatch.setattr(Target, "load", lambda *_, **__: pytest.fail("loaded"))
    (samples,) = saved.glob("samples_*")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]

    def error(*arguments, text=None, **answers):
        changed = [{**row, "doc": {**row["doc"], "attributes": "[]", **({"text": text} if text else {})}, **answers} for row in rows]
        samples.write_text("".join(json.dumps(row) + "\n" for row in changed))
        assert rerank(saved, "--model", "hub/name", *arguments) == 2
        return capsys.readouterr().err

    assert "is redacted" in error(text="[sha256:5f0c2a9e7b41, 22 characters, 5 words]")
    assert "holds no answers; run lm_eval with --log_samples" in error(resps=[[""], [""]])
    assert "'constant' does not sample" in error("--inverter", "constant")
    assert "inverter='nothing' is unknown" in error("--inverter", "nothing")


@pytest.fixture(scope="module")
def target():
    tokenizer = make_tokenizer(TEMPLATE)
    return Target("tiny", make_model(len(tokenizer)), tokenizer)


def by_hand(target, prompt, question, answer):
    """Sum of log p(token | request and answer so far), by one full forward pass."""
    messages = [*([{"role": "system", "content": prompt}] if prompt is not None else []), *user_turn(question)]
    request = target.tokenizer(target.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))["input_ids"]
    own = target.tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = target.model(input_ids=torch.tensor([[*request, *own]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(request) - 1 + place, token]) for place, token in enumerate(own))


@pytest.mark.parametrize("prompt", ["You are a careful baker.", None])
def test_likelihoods_are_those_of_full_forward_passes(target, prompt, monkeypatch):
    questions = ["Hello!", "What should I do this weekend?", "Hello!"]
    answers = ["I bake bread.", "Ask me about rye, (butter) and salt?", ""]
    conversations = [(prompt, tuple(user_turn(question))) for question in questions]
    expected = sum(by_hand(target, prompt, question, answer) for question, answer in zip(questions, answers) if answer)
    assert target.log_likelihood(conversations, answers) == pytest.approx(expected, abs=1e-3)
    monkeypatch.setattr("lm_eval_inversion.target.READ_TOKENS", 1)  # one conversation at a time
    monkeypatch.setattr("lm_eval_inversion.target.SCORED_TOKENS", 3)
    assert target.log_likelihood(conversations, answers) == pytest.approx(expected, abs=1e-3)
    first = by_hand(target, prompt, questions[0], answers[0])
    assert target.log_likelihood(conversations[:1], answers[:1]) == pytest.approx(first, abs=1e-3)
    assert target.log_likelihood(conversations[:1], [""]) == 0
    assert target.answer_tokens(answers) == sum(len(target.tokenizer(answer)["input_ids"]) for answer in answers)


OPENS_THINKING = TEMPLATE.replace(
    "assistant: ", "assistant: {% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}"
)


def test_a_thinking_model_is_asked_as_the_run_asked_it():
    tokenizer = make_tokenizer(OPENS_THINKING)
    target = Target("tiny", make_model(len(tokenizer)), tokenizer)
    conversations = [("You are a careful baker.", user_turn("Hello!"))]
    thought = target.log_likelihood(conversations, ["<think>Ask me.</think>I bake."])
    assert thought == pytest.approx(by_hand(target, *conversations[0][:1], "Hello!", "Ask me.</think>I bake."), abs=1e-3)
    calm = target.told_not_to_think()
    tokenizer.chat_template = OPENS_THINKING.replace("<think>{% endif %}", "<think></think>{% endif %}")
    expected = by_hand(target, *conversations[0][:1], "Hello!", "I bake.")
    tokenizer.chat_template = OPENS_THINKING
    assert calm.log_likelihood(conversations, ["I bake."]) == pytest.approx(expected, abs=1e-3)
    assert target.log_likelihood(conversations, ["I bake."]) != pytest.approx(expected, abs=1e-3)


def test_runs_say_themselves_that_the_model_was_told_not_to_think(saved, quick, monkeypatch, chat_model):
    from lm_eval_inversion import reranking
    from lm_eval_inversion.report.reading import read_all

    (results,) = read_all([saved])
    told = []
    monkeypatch.setattr(reranking, "_likelihood", lambda case, protocol, target: told.append(target.thinking) or (lambda _: -1.0))
    target = Target.load(str(chat_model), device="cpu")

    def run():
        list(reranking.rerank(results, target, device="cpu", candidates=1, limit=1))
        return told.pop()

    assert run()
    (file,) = saved.glob("results_*.json")
    facts = json.loads(file.read_text())
    facts["config"]["model_args"] = {"pretrained": "x", "enable_thinking": False}
    file.write_text(json.dumps(facts))
    assert not run()


def test_what_does_not_fit_the_context_is_refused(target):
    short = Target("tiny", make_model(len(target.tokenizer), context=16), target.tokenizer)
    with pytest.raises(ValueError, match="more than the model's context of 16") as found:
        short.log_likelihood([("You are a careful baker.", user_turn("Hello!"))], ["I bake bread."])
    assert "of 24 characters" in str(found.value)  # and not its text, which may be private
    assert "careful" not in str(found.value)


def test_users_requests_and_defended_answers(chat_model):
    """The secret stands where the run put it, and what a defence said is no answer of the model."""
    from lm_eval_inversion.prompts import SystemPrompt
    from lm_eval_inversion.report.reading import Results, Row
    from lm_eval_inversion.reranking import _likelihood, cases_of, protocol_of

    asked = []
    stub = SimpleNamespace(log_likelihood=lambda conversations, answers: asked.append((conversations, answers)) or 0.0)
    secret = "You are Mira, a careful baker who loves rye."
    rows = [Row(SystemPrompt("own-1", secret), "", {}, (), (secret, "I bake.", "")), Row(SystemPrompt("own-2", "x"), "", {}, (), ("",) * 3)]
    guarded = Results(TASK, "lm_eval", rows, signature={"num_queries": 3, "defence": "ngram_filter", "inverter": "constant"})
    protocol = protocol_of(guarded)
    (case,) = cases_of(guarded, protocol)  # the second gave nothing to invert
    assert (case.asked, case.answers) == ((1,), ("I bake.",))
    call = _likelihood(case, protocol, stub)
    call("You are a baker.")
    call(None)
    assert [conversations for conversations, _ in asked] == [
        [("You are a baker.", tuple(user_turn(protocol.queries.queries[1].text)))],
        [(None, tuple(user_turn(protocol.queries.queries[1].text)))],
    ]
    request = Results("prompt_inversion_user", "lm_eval", rows[:1], signature={"num_queries": 3, "inverter": "constant"})
    protocol = protocol_of(request)
    (case,) = cases_of(request, protocol)
    _likelihood(case, protocol, stub)("Bake me a cake.")
    assert asked[-1][0] == [(None, tuple(user_turn("Bake me a cake.")))] * 2
