"""Ranking by likelihood, the confidence and its fit, on made-up likelihoods: no model runs here."""

import json
import math
import random
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import TEMPLATE, make_tokenizer
from host_files import write_inversion, write_leakage
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_inversion.confidence import SHIPPED, Confidence, load_confidence, save_confidence
from lm_eval_inversion.hashing import SHORT_HASH_DIGITS
from lm_eval_inversion.inverter.base import Inverter
from lm_eval_inversion.inverter.registry import DEFAULT_SHA256
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.queries import user_turn
from lm_eval_inversion.report.numbers import shown_interval
from lm_eval_inversion.report.reading import Results, Row, read_results
from lm_eval_inversion.report.reranked import _summary, check_models, choices, confidence_line, rerank_table
from lm_eval_inversion.report.writing import open_file
from lm_eval_inversion.reranking import (
    FEATURES,
    Case,
    Reranked,
    agreements,
    asked_as,
    cases_of,
    features,
    most_agreed,
    protocol_of,
    rank,
    read_reranked,
    require_same_role,
    rerank,
    told_not_to_think,
)
from lm_eval_inversion.scoring.auroc import auroc, auroc_interval
from lm_eval_inversion.scoring.text import token_f1
from lm_eval_inversion.scoring.uncertainty import wilson
from lm_eval_inversion.target import Target, continuation
from lm_eval_inversion.training.confidence import cross_validated, describe, fit, fit_reranked, main

TRUTH = "You are a baker who loves rye."
CASE = Case("own-1", TRUTH, ("I bake.",), ("I am an assistant.",), (0,), ("I bake.",))
CANDIDATES = ["You are a pirate.", "You are a baker.", "You are a pirate."]


class Reader(Inverter):
    """Finds every prompt as unlikely as it is long, and likelier by a nat a letter with the secret's outputs."""

    name, hash = "reader", "h"

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        return ["You are an assistant." for _ in outputs]

    def nll(self, outputs, prompts):
        return [len(prompt) * (1.0 if tuple(lines) == CASE.lines else 2.0) for lines, prompt in zip(outputs, prompts)]


def follows(secret):
    """A target whose answers are likelier the more words of its secret a candidate names."""
    asked = []

    def log_likelihood(candidate):
        asked.append(candidate)
        return -40.0 + len(set((candidate or "").strip(".").split()) & set(secret.strip(".").split()))

    return log_likelihood, asked


def ranked(**changes):
    log_likelihood, _ = follows(TRUTH)
    return replace(rank(CANDIDATES, CASE, Reader(), ("You are an assistant.",), log_likelihood, 4), **changes)


def test_the_candidate_that_the_target_follows_is_chosen():
    log_likelihood, asked = follows(TRUTH)
    ranking = rank(CANDIDATES, CASE, Reader(), ("",), log_likelihood, 4)
    assert ranking.candidates[ranking.chosen] == "You are a baker."
    assert asked == ["You are a pirate.", "You are a baker.", None]  # equal candidates once, and once nobody
    assert ranking.target == (-37.0, -36.0, -37.0)
    assert ranking.target_without == -40.0
    assert ranking.inverter == pytest.approx([len(text) / 5 for text in CANDIDATES])  # "You", "are", "a", noun, "."
    assert ranking.chosen_by_inverter == 1
    log_likelihood, _ = follows("You are a pirate.")
    assert rank(CANDIDATES, CASE, Reader(), ("",), log_likelihood, 4).chosen == 0


def test_the_greedy_reconstruction_is_kept_where_nothing_is_better():
    assert rank(CANDIDATES, CASE, Reader(), ("",), lambda candidate: -1.0, 4).chosen == 0


def test_a_broken_likelihood_is_an_error():
    with pytest.raises(ValueError, match="prompt own-1: a likelihood is not a finite number"):
        rank(CANDIDATES, CASE, Reader(), ("",), lambda candidate: math.nan, 4)


def test_features_are_what_they_say():
    found = features(ranked(nulls=("You are a baker.", "No.")))
    assert tuple(sorted(found)) == FEATURES
    assert found == pytest.approx({
        "agreement": (2 * 0.8 + 1) / 3, "explained": 16 / 5, "novelty": (0 + 5 / 7) / 2, "target_gain": 1.0, "target_margin": 2 / 3 / 4,
    })  # fmt: skip


def reranked(place, lift, measured, confidence=None, **changes):
    """A line of output with a given lift of the chosen candidate, the second."""
    settings = {
        "run": "run", "task": "prompt_inversion_ordinary", "host": "lm_eval", "target_model": "some/model", "inverter": "default",
        "inverter_hash": "h", "prompt_id": f"own-{place}", "truth": f"truth {place}", "ranking": ranked(),
        "token_f1": (0.1, 0.2 + lift, 0.9), "token_f1_null": 0.2, "features": measured, "confidence": confidence, "target_tokens": 1000,
        "seconds_sampling": 2.0, "seconds_target": 0.5,
    }  # fmt: skip
    return Reranked(**{**settings, **changes})


def test_the_table_shows_gain_cost_and_confidence():
    rows = [reranked(place, place / 100, {"agreement": -place}, confidence=place / 10) for place in range(10)]
    assert choices(rows)["target's likelihood"] == pytest.approx([0.2 + place / 100 for place in range(10)])
    assert choices(rows)["best (needs the secret)"] == [0.9] * 10
    shown = rerank_table(rows)
    assert f"| greedy | 0.100 | {shown_interval('token_f1', *wilson(1.0, 10))} |  |  |" in shown  # no certainty, as in the tables
    gained = next(line for line in shown.splitlines() if line.startswith("| best"))
    assert f"| +0.800 | {shown_interval('token_f1_lift', *(2 * end - 1 for end in wilson(9.0, 10)), '+')} |" in gained
    assert re.search(r"\| target's likelihood \| 0\.245 \| 0\.22\d to 0\.26\d \| \+0\.145 \| \+0\.12\d to \+0\.16\d \|", shown)
    assert "1,000 tokens read by the target in 0.5 s; sampling took the inverter 2.0 s" in shown
    assert "\nConfidence, for a lift above the median of this run (0.045): AUROC 1.000" in shown
    uncalibrated = rerank_table([replace(row, confidence=None) for row in rows])
    assert "No confidence is fitted for this inverter. Agreement of the candidates, which is no probability" in uncalibrated
    assert "AUROC 0.000" in uncalibrated


def test_the_median_lift_is_not_above_the_median():
    rows = [reranked(place, place / 100, {}, confidence=chance) for place, chance in enumerate((0.1, 0.9, 0.8, 0.95, 1.0))]
    assert "AUROC 1.000" in confidence_line(rows)


def test_the_shipped_confidence_is_of_the_shipped_inverter_and_says_what_it_knows():
    shipped = load_confidence(SHIPPED)
    assert DEFAULT_SHA256.startswith(shipped.inverter_hash)
    assert len(shipped.inverter_hash) == SHORT_HASH_DIGITS
    assert shipped.of({"target_gain": 0.3}) > 0.5 > shipped.of({"target_gain": 0.0})
    results = Results("prompt_inversion_ordinary", "lm_eval", [])
    known, unknown = (_summary(results, [reranked(0, 0.1, {"agreement": 0.0}, confidence=value)], 9, 1, shipped) for value in (0.5, None))
    assert "fitted on 30 system prompts under smollm2; of other models" in known
    assert "fitted on" not in unknown


def test_the_runs_own_inverter_computes_as_it_did_in_the_run(monkeypatch):
    monkeypatch.setattr("lm_eval_inversion.precision.choose_device", lambda device, setting: device)  # also one that is not here
    run = Results("prompt_inversion_ordinary", "lm_eval", [], signature={"inverter": "default", "inverter_dtype": "int8"})
    assert protocol_of(run, device="cpu").inverter_dtype == "int8"
    assert protocol_of(run, "default", device="cpu").inverter_dtype == "int8"
    assert protocol_of(run, "nearest", device="cpu").inverter_dtype == "auto"
    assert protocol_of(run, device="cuda").inverter_dtype == "auto"  # int8 is for CPUs
    other = replace(run, signature={"inverter": "default", "inverter_dtype": "float32"})
    assert protocol_of(other, device="cuda").inverter_dtype == "float32"
    told = "The run's inverter computed in inverter_dtype=int8, this one in auto."
    assert told in _summary(run, [reranked(0, 0.1, {"agreement": 0.0})], 9, 1)
    assert told not in _summary(run, [reranked(0, 0.1, {"agreement": 0.0}, inverter_dtype="int8")], 9, 1)


def test_a_run_that_asked_other_queries_is_not_reranked():
    run = Results("prompt_inversion_ordinary", "lm_eval", [], signature={"inverter": "constant", "queries_hash": "0"})
    with pytest.raises(ValueError, match="the run asked other queries than this version asks"):
        protocol_of(run)


def test_several_rows_of_one_secret_are_one_value():
    rows = [reranked(place, place / 100, {"agreement": 0.0}) for place in range(10)]
    epochs = [replace(row, token_f1=(0.1, row.token_f1[1] + change, 0.9)) for row in rows for change in (-0.05, 0.05)]
    assert choices(epochs)["target's likelihood"] == pytest.approx(choices(rows)["target's likelihood"])
    line = next(line for line in rerank_table(rows).splitlines() if "target's" in line)
    assert line in rerank_table(epochs)
    assert "2,000 tokens read by the target in 1.0 s; sampling took the inverter 4.0 s" in rerank_table(epochs)


def test_a_file_that_cannot_be_written_is_told_as_by_all_verbs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="under cannot be written .*; give a file in a folder that you may write to"):
        open_file(tmp_path / "file" / "under")
    with open_file(tmp_path / "new" / "ranked.jsonl") as stream:
        stream.write("{}\n")
    assert (tmp_path / "new" / "ranked.jsonl").read_bytes() == b"{}\n"


def test_one_model_ranks_its_own_answers(tmp_path, monkeypatch, capsys):
    def run(host, model):
        return Results("prompt_inversion_ordinary", host, [], model)

    (tmp_path / "demo" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "demo" / "model")
    one = [run("lm_eval", "hf demo/model"), run("inspect", f"hf/local {folder}"), run("lm_eval", "hf")]  # the last does not say
    check_models(one, folder)
    check_models(one, "demo/model/")
    assert capsys.readouterr().err == ""
    check_models(one, "org/name")
    assert f"the runs are of {folder}, ranked by org/name: is it the model that answered?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the runs are of .*demo/model, org/other; give those of one"):
        check_models([*one, run("inspect", "hf/org/other")], folder)


def test_every_case_is_measured_against_its_own_null_answers():
    """After ``inspect eval-retry`` some rows were scored against another draw."""
    protocol = make_protocol("prompt_inversion_ordinary", inverter="constant")
    answers, first, again = (tuple(f"I {verb} bread number {place}." for place in range(16)) for verb in ("bake", "eat", "sell"))
    rows = [Row(SystemPrompt(name, f"You are baker {name}."), "", {}, (), answers, nulls) for name, nulls in (("a", ()), ("b", again))]
    cases = cases_of(Results("prompt_inversion_ordinary", "inspect", rows, null_answers=first), protocol)
    assert [case.null_lines for case in cases] == [first, again]


def test_every_null_is_inverted_once(monkeypatch):
    read = []

    class Recorder(Reader):
        def invert(self, outputs, max_new_tokens=256, batch_size=None):
            read.extend(outputs)
            return [f"You are {lines[0]}" for lines in outputs]

        def sample(self, outputs, number, temperature, seed):
            return [CANDIDATES for _ in outputs]

    again = replace(CASE, null_lines=("a baker who loves rye.", "rye"))
    protocol = SimpleNamespace(
        inverter=Recorder(), inverter_dtype="auto", secret="system", shared_conversations=lambda: [()],
        conversations=lambda secret: [(secret, ())],
    )  # fmt: skip
    monkeypatch.setattr("lm_eval_inversion.reranking.prepare", lambda *_: (protocol, [CASE, again, CASE]))
    target = SimpleNamespace(
        thinking=False, system_role="system", tokens=0, name="t", answer_tokens=lambda answers: 1, log_likelihood=lambda *_: -1.0
    )  # fmt: skip
    rows = list(rerank(Results("prompt_inversion_ordinary", "inspect", []), target))
    assert read == [CASE.null_lines, again.null_lines, ("rye",), ("a baker who loves rye.",)]
    assert rows[0].lift == rows[2].lift > rows[1].lift  # the second null comes as near as can be


def test_the_limit_counts_system_prompts_and_not_their_epochs():
    protocol = make_protocol("prompt_inversion_ordinary", inverter="constant")
    answers = tuple(f"I bake bread number {place}." for place in range(16))
    prompts = [SystemPrompt(f"own-{place}", f"You are baker {place}.") for place in range(3)]
    rows = [Row(prompt, "", {"coverage": 1.0}, (), answers) for _ in range(2) for prompt in prompts]  # epoch after epoch
    results = Results("prompt_inversion_ordinary", "inspect", rows, null_answers=answers)
    assert [case.prompt_id for case in cases_of(results, protocol)] == ["own-0", "own-1", "own-2"] * 2
    assert [case.prompt_id for case in cases_of(results, protocol, 2)] == ["own-0", "own-1"] * 2
    beside = replace(results, rows=sorted(rows, key=lambda row: row.prompt_id))
    assert [case.prompt_id for case in cases_of(beside, protocol, 2)] == ["own-0", "own-0", "own-1", "own-1"]
    found = [reranked(place, 0.1, {"agreement": 0.0}) for place in (0, 1, 0, 1)]
    text = _summary(results, found, 3, 3)
    assert "(inspect, 2 system prompts, 3 candidates each)" in text
    assert "1 system prompts without usable outputs are not in the table" in text


@pytest.mark.parametrize(
    ("model_args", "off"),
    [
        ("pretrained=x,enable_thinking=False", True),
        ({"pretrained": "x", "enable_thinking": False}, True),
        ({"pretrained": "x", "chat_template_args": {"enable_thinking": False}}, True),
        ('pretrained=x,chat_template_args={"enable_thinking":false}', True),
        ({"pretrained": "x", "enable_thinking": True}, False),
        ("pretrained=false", False),
        (None, False),
    ],
)
def test_a_run_says_whether_its_model_was_told_not_to_think(model_args, off, tmp_path):
    samples = tmp_path / "samples_prompt_inversion_2026-01-01T00-00-00.jsonl"
    results = Results("prompt_inversion", "lm_eval", [], source=samples)
    assert not told_not_to_think(results)
    (tmp_path / "results_2026-01-01T00-00-00.json").write_text(json.dumps({"config": {"model_args": model_args}}))
    assert told_not_to_think(results) is off
    assert not told_not_to_think(replace(results, source=None))


TEMPLATES = {"default": TEMPLATE, "rag": TEMPLATE.replace("assistant: ", "assistant reads: ")}


@pytest.mark.parametrize(
    ("model", "model_args", "generation", "rendered"),
    [
        ("hf", {"pretrained": "lab/name"}, {}, "assistant: "),
        ("hf", {"pretrained": "lab/name", "chat_template_args": {"chat_template": "rag"}}, {}, "assistant reads: "),
        ("vllm", {"pretrained": "lab/name", "chat_template_args": {"chat_template": "rag"}}, {}, "assistant reads: "),
        # A server is told with every request, and has a tokenizer of its own: that of the host counts tokens.
        (
            "local-chat-completions", {"model": "m", "tokenizer": "nowhere"}, {"chat_template_kwargs": {"chat_template": "rag"}},
            "assistant reads: ",
        ),
        # Which lm_eval puts into a request as it stands.
        ("local-chat-completions", {"model": "m"}, {"extra_body": {"chat_template_kwargs": {"chat_template": "rag"}}}, "assistant: "),
    ],
)  # fmt: skip
def test_the_model_is_asked_as_the_run_asked_it(model, model_args, generation, rendered, tmp_path, monkeypatch):
    config = {"gen_kwargs": generation}
    (results,) = read_results(write_inversion(tmp_path, model=model, model_args=model_args, config=config))
    target = Target("lab/name", None, make_tokenizer(TEMPLATES))
    seen = []
    protocol = SimpleNamespace(inverter=Reader(), inverter_dtype="auto")
    monkeypatch.setattr("lm_eval_inversion.reranking.prepare", lambda *_: (protocol, [CASE]))
    monkeypatch.setattr("lm_eval_inversion.reranking._likelihood", lambda case, protocol, target: seen.append(target) or (lambda _: -1.0))
    monkeypatch.setattr(Reader, "sample", lambda *_: [CANDIDATES], raising=False)
    list(rerank(results, target))
    assert seen[0]._render(user_turn("Hello!")) == f"<s>user: Hello!</s><s>{rendered}"


def test_what_a_run_told_its_chat_template_is_kept_beside_no_thinking(tmp_path):
    told = {"pretrained": "lab/name", "chat_template_args": {"note": "rye", "enable_thinking": False}, "enable_thinking": True}
    (results,) = read_results(write_inversion(tmp_path, model_args=told))
    asked = asked_as(results, Target("lab/name", None, make_tokenizer("{{ note }} {{ enable_thinking }}")))
    assert asked.template_arguments == {"note": "rye", "enable_thinking": True}
    assert [one._render(user_turn("Hello!")) for one in (asked, asked.told_not_to_think())] == ["rye True", "rye False"]
    (in_words,) = read_results(write_inversion(tmp_path / "words", model_args="pretrained=lab/name,enable_thinking=True"))
    assert asked_as(in_words, Target("lab/name", None, make_tokenizer())).template_arguments == {"enable_thinking": True}


def test_the_runs_own_tokenizer_writes_the_requests(tmp_path):
    folder = tmp_path / "tokens"
    make_tokenizer(TEMPLATES["rag"]).save_pretrained(folder)
    told = {"pretrained": "lab/name", "tokenizer": str(folder)}
    (results,) = read_results(write_inversion(tmp_path / "run", model_args=told))
    bare = Target("lab/name", None, make_tokenizer(None))
    assert asked_as(results, bare)._render(user_turn("Hello!")).endswith("assistant reads: ")
    require_same_role(results, asked_as(results, bare))
    with pytest.raises(ValueError, match="--model lab/name has no chat template"):
        require_same_role(results, bare)
    own = Target(str(folder), None, make_tokenizer())
    assert asked_as(results, own) is own  # a folder of model and tokenizer
    # Where the host writes the requests and the server only completes them.
    told = {"model": "m", "tokenizer": str(folder)}
    (completed,) = read_results(write_inversion(tmp_path / "completed", model="local-completions", model_args=told))
    assert asked_as(completed, bare)._render(user_turn("Hello!")).endswith("assistant reads: ")
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=rf"the run's tokenizer={folder} cannot be loaded .*put it back where the run found it"):
        asked_as(results, bare)


@pytest.mark.parametrize(
    ("model", "arguments", "body", "told"),
    [
        ("hf/local", {"model_path": "/m", "tokenizer_path": "/m", "chat_template": "x", "enable_thinking": False}, None,
         {"chat_template": "x", "enable_thinking": False}),
        ("vllm/lab/name", {"chat_template": "file.jinja"}, {"chat_template_kwargs": {"note": "rye"}}, {"note": "rye"}),
        ("openai/gpt-x", {}, None, {}),
        ("hf/lab/name", {"tokenizer": "lab/name"}, None, {}),  # its own, and no other place to load it from
    ],
)  # fmt: skip
def test_runs_of_inspect_say_how_they_asked(model, arguments, body, told, tmp_path):
    from inspect_ai.log import read_eval_log, write_eval_log

    path = write_leakage(tmp_path, model=model, model_args=arguments) / "run.eval"
    log = read_eval_log(str(path))
    log.plan.config.extra_body = body
    write_eval_log(log, str(path))
    (results,) = read_results(tmp_path)
    target = Target("/m", None, make_tokenizer())
    assert asked_as(results, target).template_arguments == told
    assert (asked_as(results, target) is target) is (not told)


def test_a_saved_answer_goes_on_behind_its_request():
    assert continuation("…<s>assistant: <think>\n", "<think>Hm.</think>Hi!") == "Hm.</think>Hi!"
    assert continuation("…<s>assistant: ", "<think>Hm.</think>Hi!") == "<think>Hm.</think>Hi!"
    assert continuation("…<think>\n\n</think>\n\n", "Hi!") == "Hi!"


def test_auroc_by_hand():
    assert auroc([1, 2, 3, 4], [False, False, True, True]) == 1
    assert auroc([1, 1, 1], [True, False, False]) == 0.5
    assert auroc([3, 1, 2, 0], [True, True, False, False]) == 0.75
    assert math.isnan(auroc([1], [True]))
    low, high = auroc_interval([1, 2, 3, 4, 1.5, 3.5], [False, False, True, True, True, False], list("abcdef"))
    assert 0 <= low < auroc([1, 2, 3, 4, 1.5, 3.5], [False, False, True, True, True, False]) < high <= 1
    # Too few, or all draws alike: no certainty.
    assert all(map(math.isnan, auroc_interval([1, 2, 3, 4, 5], [False, True, False, True, True], list("abcde"))))
    assert all(map(math.isnan, auroc_interval([1, 2, 3, 4, 5, 6], [False, False, False, True, True, True], list("abcdef"))))
    # Epochs of a secret are drawn together, and are no further secrets.
    scores, positive = [1, 2, 3, 4, 1.5, 3.5], [False, False, True, True, True, False]
    assert all(map(math.isnan, auroc_interval(scores, positive, list("aabbcc"))))
    assert all(map(math.isfinite, auroc_interval([0] * 6 + scores, positive * 2, list("abcdef") * 2)))


def telling(number=60, noise=0.5, seed=0):
    """Features of which one tells the lift, one says nothing and one never varies."""
    draw = random.Random(seed)
    signal = [draw.gauss(0, 1) for _ in range(number)]
    measured = [{"signal": value, "noise": draw.gauss(0, 1), "still": 3.0} for value in signal]
    return measured, [0.1 * (value + noise * draw.gauss(0, 1)) for value in signal]


def test_the_fit_finds_what_tells_and_its_chances_are_calibrated():
    measured, lifts = telling(400)
    found = fit(measured, lifts, "h")
    assert found.weights["signal"] > 1 > abs(found.weights["noise"])
    assert found.weights["still"] == pytest.approx(0)
    chances = [found.of(row) for row in measured]
    above = [lift > found.threshold for lift in lifts]
    assert sum(chances) == pytest.approx(sum(above), abs=1e-6)  # so a logistic regression is calibrated on the whole
    high = [is_above for chance, is_above in zip(chances, above) if chance > 0.8]
    assert 0.8 < sum(high) / len(high) <= 1
    with pytest.raises(ValueError, match="needs the features signal"):
        found.of({"noise": 0.0, "still": 0.0})


def test_a_fit_of_separable_classes_stays_finite():
    found = fit([{"x": float(value)} for value in range(10)], list(range(10)), "h")
    assert 0 < found.weights["x"] < 20
    assert found.of({"x": 1e9}) == pytest.approx(1)


def test_cross_validation_tells_nothing_from_noise_and_keeps_a_secret_on_one_side():
    measured, lifts = telling()
    secrets = [f"s{index}" for index in range(60)]
    above = [lift > sorted(lifts)[29] for lift in lifts]
    assert auroc(cross_validated(measured, lifts, secrets), above) > 0.8
    # Each secret twice, its lift in a feature that is a different random number for each: memory of the twin would give 1.
    draw = random.Random(1)
    names = [draw.gauss(0, 1) for _ in range(60)]
    noise = [{"x": names[index % 60]} for index in range(120)]
    random_lifts = [draw.gauss(0, 1) for _ in range(60)] * 2
    found = cross_validated(noise, random_lifts, secrets * 2)
    assert found[:60] == pytest.approx(found[60:])
    with pytest.raises(ValueError, match="too few to cross-validate"):
        cross_validated(measured[:2], lifts[:2], secrets[:2])


def test_a_median_without_two_sides_is_refused():
    with pytest.raises(ValueError, match="5 reconstructions, 0 above the median lift"):
        fit([{"x": 0.0}] * 5, [0.1] * 5, "h")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_command_fits_what_rerank_wrote(tmp_path, capsys):
    measured, lifts = telling(40, noise=0.3)
    full = [{**dict.fromkeys(FEATURES, 0.0), "agreement": row["signal"]} for row in measured]
    rows = [reranked(place, lift, own) for place, (own, lift) in enumerate(zip(full, lifts))]
    file, output = write_rows(tmp_path / "dev.jsonl", rows), tmp_path / "confidence.json"
    main([str(file), "--features", "agreement", "novelty", "-o", str(output)])
    shown = capsys.readouterr().out
    found = load_confidence(output)
    assert set(found.weights) == {"agreement", "novelty"}
    assert found.inverter_hash == "h"
    assert found.fitted["auroc"] > 0.85
    assert found.fitted["models"] == {"model": 40}
    assert found.threshold == pytest.approx(sorted(row.lift for row in rows)[19] / 2 + sorted(row.lift for row in rows)[20] / 2)
    assert shown == describe(found) + "\n"
    assert "agreement: weight +" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:5], "5 reconstructions are too few"),
        (lambda rows: [*rows[1:], {**rows[0], "inverter_hash": "other"}], "several inverters \\(h, other\\)"),
        (lambda rows: [*rows[1:], {**rows[0], "inverter_dtype": "int8"}], "several types \\(auto, int8\\)"),
        (lambda rows: [{**row, "features": {"agreement": 0.0}} for row in rows], "lack explained, novelty"),
        (lambda rows: [*rows, rows[3]], "own-3 of run is there 1 times too often"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    rows = [reranked(place, place / 100, dict.fromkeys(FEATURES, float(place))).to_dict() for place in range(30)]
    with pytest.raises(ValueError, match=message):
        fit_reranked(change(rows))


def test_files_that_are_something_else_are_refused(tmp_path):
    other = tmp_path / "other.json"
    for text in ("[]", "{}", '{"lift": "much"}', "no JSON"):
        other.write_text(text)
        with pytest.raises(ValueError, match="other.json is no"):
            load_confidence(other)
        with pytest.raises(ValueError, match="is not what lm-eval-inversion rerank"):
            read_reranked(other)
    with pytest.raises(FileNotFoundError, match="training.confidence writes one"):
        load_confidence(tmp_path / "absent.json")
    broken = Confidence("h", math.nan, {"x": 1.0}, {"x": 0.0}, {"x": 1.0}, 0.0)
    save_confidence(broken, other)
    with pytest.raises(ValueError, match="do not fit together"):
        load_confidence(other)


def test_the_text_that_shares_most_words_with_the_others_is_the_most_agreed_with():
    texts = ["You sell cars.", "You bake rye bread.", "You bake bread.", "You bake bread daily."]
    assert most_agreed(texts) == 2
    assert agreements(texts)[0] == pytest.approx(sum(token_f1(texts[0], text) for text in texts[1:]) / 3)
    assert most_agreed(["You bake bread.", "Sell cars.", "Sell cars.", "You bake bread."]) == 0  # of equals the first
    assert agreements(["Alone."]) == [1.0]


@given(st.lists(st.text("ab ", max_size=6), min_size=1, max_size=6))
def test_agreements_are_shares_that_do_not_hang_on_order(texts):
    found = agreements(texts)
    assert all(0 <= value <= 1 for value in found)
    assert agreements(texts[::-1]) == pytest.approx(found[::-1])
    assert most_agreed(texts) == min(place for place, value in enumerate(found) if value == max(found))
