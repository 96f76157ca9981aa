import logging
import math
from dataclasses import replace

import pytest

from lm_eval_inversion import evaluate, load_inverter, load_prompts
from lm_eval_inversion.evaluation import Evaluation, NullCondition, PromptResult, decoys_for
from lm_eval_inversion.inverter import Inverter, shared
from lm_eval_inversion.inverter.baselines import CONSTANT_PREDICTION
from lm_eval_inversion.outputs import OutputCounts, Outputs, parse_outputs
from lm_eval_inversion.prompts import Attribute, SystemPrompt
from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.scoring import score_reconstruction
from lm_eval_inversion.scoring.embedding import cosine
from lm_eval_inversion.scoring.metrics import USUAL_METRICS, is_scored
from lm_eval_inversion.scoring.text import token_f1

QUERIES = load_query_set("ordinary16").first(4)
PROMPTS = load_prompts("v1", split="dev")[:6]
NULL = parse_outputs(["Hello there.", "I can help.", "It depends.", "Fine."], QUERIES)
# All of them, and all but each quarter.
NULL_PARTS = [
    ("Hello there.", "I can help.", "It depends.", "Fine."), ("I can help.", "It depends.", "Fine."),
    ("Hello there.", "It depends.", "Fine."), ("Hello there.", "I can help.", "Fine."), ("Hello there.", "I can help.", "It depends."),
]  # fmt: skip
BLANKS = ("Otto the clerk sells bread and cheese.", "You are Mira.", "", "The baker, Mira.", "Be kind.")
LINES = ("I am Mira.", "I bake.", "Rye.", "Come in!")


def outputs_of(prompt):
    words = prompt.text.split()
    return parse_outputs([" ".join(words[start::4]) or "Well." for start in range(4)], QUERIES)


class PerfectInverter(Inverter):
    """Knows the truth of every set of outputs; its likelihood falls with the number of words that the outputs lack."""

    name, hash = "perfect", "0"

    def __init__(self, prompts):
        self.by_outputs = {frozenset(outputs_of(prompt).lines): prompt.text for prompt in prompts}

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        return [self.by_outputs.get(frozenset(lines), "nothing known") for lines in outputs]

    def nll(self, outputs, prompts):
        return [float(len(set(prompt.split()) - set(" ".join(lines).split()))) for lines, prompt in zip(outputs, prompts)]


def test_a_perfect_inverter_scores_full_marks_and_its_controls_stay_at_chance():
    prompts = load_prompts("v1", split="dev")
    evaluation = evaluate(prompts, [outputs_of(prompt) for prompt in prompts], NULL, PerfectInverter(prompts))
    summary = evaluation.summary()
    assert set(summary) == set(USUAL_METRICS)
    assert summary["exact_match"].mean == summary["identification_top1"].mean == summary["token_f1"].mean == 1
    assert summary["attribute_recall"].mean == 1
    assert summary["attribute_false_claims"].mean == 0
    assert summary["bits"].low > 10
    assert summary["bits_swap"].high < summary["bits"].low
    assert summary["token_f1_swap"].high < 0.5
    assert summary["bits_null"].low <= 0 <= summary["bits_null"].high
    assert summary["bits_spread_null"].mean < summary["bits"].mean / 4
    assert summary["identification_top1_null"].low <= 1 / 16 <= summary["identification_top1_null"].high


def test_every_number_is_what_it_says():
    """Each against the same by hand: a character of any text costs so many nats after these outputs, and so many after those."""

    class Known(Inverter):
        name, hash = "known", "0"
        texts = dict(zip(NULL_PARTS, BLANKS)) | {LINES: "You are Mira, the baker of cheese."}
        costs = {NULL.lines: 11.0, NULL.lines[0::2]: 7.0, NULL.lines[1::2]: 3.0, LINES: 2.0, LINES[:1]: 6.0, LINES[0::2]: 5.0}

        def invert(self, outputs, max_new_tokens=256, batch_size=None):
            return [self.texts[tuple(lines)] for lines in outputs]

        def nll(self, outputs, prompts):
            return [self.costs[tuple(lines)] * len(prompt) for lines, prompt in zip(outputs, prompts)]

    attributes = (Attribute("name", "Mira", (), "Otto"), Attribute("role", "baker", (), "clerk"), Attribute("fact", "bread", (), "cheese"))
    # The five texts of the null name bread; Mira; nothing; a baker and Mira; nothing: four of the fifteen.
    of_attributes = {"attribute_recall": 2 / 3, "attribute_false_claims": 1 / 3, "attribute_recall_null": 4 / 15, "utility": 0.5}
    # The longer a text the more bits: for the true prompt never the most, nor the fewest where a coin turns the sign of the control.
    cases = (
        ("You are Mira, the baker of bread.", ["Be brief.", "You are Otto, the clerk of all the cheese."], 9, 1 / 2, of_attributes),
        ("Bake.", ["You are Mira.", "Be kind.", "Be"], 2, 1 / 3, {}),
    )
    prompts = [SystemPrompt(truth, truth, attributes=attributes if more else ()) for truth, *_, more in cases]
    outputs = [Outputs(LINES, OutputCounts(answers=4, requested=5, lines=4))] * 2
    found = evaluate(prompts, outputs, NULL, Known(), decoys=[decoys for _, decoys, *_ in cases], curve=True)
    written = Known.texts[LINES]
    assert found.null_reconstructions == BLANKS
    for (truth, decoys, words, mrr, more), result in zip(cases, found.results):
        bits = len(truth) / math.log(2)
        assert result.reconstruction == written
        control = result.metrics.pop("bits_null")
        assert abs(control) == pytest.approx((7 - 3) * bits)
        floor = sum(token_f1(truth, blank) for blank in BLANKS) / 5
        assert result.metrics == pytest.approx(
            score_reconstruction(truth, written)
            | more
            | {
                "token_f1_null": floor,
                "token_f1_lift": token_f1(truth, written) - floor,
                "token_f1_swap": sum(token_f1(decoy, written) for decoy in decoys) / len(decoys),
                "token_f1_constant": token_f1(truth, CONSTANT_PREDICTION),
                "cosine_null": sum(cosine(truth, blank) for blank in BLANKS) / 5,
                "bits": (11 - 2) * bits,
                "bits_per_token": (11 - 2) * bits / words,
                "bits_swap": (11 - 2) * sum(map(len, decoys)) / len(decoys) / math.log(2),
                "bits_spread_null": abs(control),
                "bits_at_1": (11 - 6) * bits,
                "bits_at_2": (11 - 5) * bits,
                "bits_at_4": (11 - 2) * bits,
                "identification_top1": 0.0,
                "identification_mrr": mrr,
                "identification_top1_null": 0.0,
                "coverage": 0.8,
                "null_coverage": 1.0,
                "defence_acted": 0.0,
            }
        )


def test_no_interval_of_a_summary_leaves_the_range_of_its_metric():
    results = [PromptResult("", "", {"token_f1": value}, NULL) for value in (0.0, 0.01, 0.02, 0.03, 1.0, 1.0)]
    found = Evaluation(results, (), 1.0).summary()["token_f1"]
    assert 0 <= found.low < found.mean < found.high == 1


def test_the_inverter_is_asked_for_everything_once():
    class Noted(PerfectInverter):
        def __init__(self, prompts):
            super().__init__(prompts)
            self.inverted, self.likelihoods = [], []

        def invert(self, outputs, max_new_tokens=256, batch_size=None):
            self.inverted.append((len(outputs), max_new_tokens, batch_size, list(outputs) == NULL_PARTS))
            return super().invert(outputs, max_new_tokens, batch_size)

        def nll(self, outputs, prompts):
            self.likelihoods += [(tuple(lines), prompt) for lines, prompt in zip(outputs, prompts)]
            return super().nll(outputs, prompts)

    inverter = Noted(PROMPTS)
    outputs = [outputs_of(prompt) for prompt in PROMPTS]
    outputs[1] = parse_outputs([""] * 4, QUERIES)
    found = evaluate(PROMPTS, outputs, NULL, inverter, max_new_tokens=7, batch_size=2, curve=True).results
    assert [result.reconstruction for result in found] == [None if place == 1 else prompt.text for place, prompt in enumerate(PROMPTS)]
    assert inverter.inverted == [(5, 7, None, True), (2, 7, 2, False), (2, 7, 2, False), (1, 7, 2, False)]
    # Inspect's further batches find the null known, but not a shorter reconstruction of it.
    for length in (7, 5):
        evaluate(PROMPTS, outputs, NULL, inverter, max_new_tokens=length, batch_size=6)
    assert inverter.inverted[4:] == [(5, 7, 6, False), (5, 5, None, True), (5, 5, 6, False)]
    of_null = [(lines, prompt) for lines, prompt in inverter.likelihoods if set(lines) <= set(NULL.lines)]
    assert len(of_null) == len(set(of_null)) == 3 * len({prompt for _, prompt in of_null})


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ((), [()]),
        (("a",), [("a",)]),
        (("a", "b"), [("a", "b"), ("b",), ("a",)]),
        (("a", "a", "b"), [("a", "a", "b"), ("a", "b"), ("a", "a")]),
        (tuple("abcdefghi"), [tuple(kept) for kept in ("abcdefghi", "bcdfgh", "acdeghi", "abdefhi", "abcefgi")]),
    ],
)
def test_the_floor_of_texts_is_written_for_all_null_outputs_and_for_all_but_each_quarter(lines, parts):
    assert list(NullCondition(PerfectInverter([]), lines).parts) == parts


def test_what_is_counted_of_answers_where_there_are_few_or_none():
    baker = SystemPrompt("a", "You are Mira, the baker.", attributes=(Attribute("name", "Mira", (), "Otto"),))
    some = Outputs(("I am Mira.",), OutputCounts(answers=4, requested=5, lines=1, defended=1))
    silent = Outputs((), OutputCounts(answers=4, requested=5, empty=4, defended=3))
    absent = Outputs((), OutputCounts(requested=5))
    found = [result.metrics for result in evaluate([baker] * 3, [some, silent, absent], NULL, PerfectInverter([])).results]
    assert (found[0]["coverage"], found[0]["defence_acted"], found[0]["utility"]) == (0.2, 0.25, 1.0)
    # Silence is no work done, but where nothing arrived nobody knows.
    assert found[1] == {"coverage": 0.0, "null_coverage": 1.0, "defence_acted": 0.75, "utility": 0.0}
    assert found[2] == {"coverage": 0.0, "null_coverage": 1.0}


class OddHalfFits(PerfectInverter):
    """The odd half of the null outputs makes every prompt 20 nats likelier."""

    def nll(self, outputs, prompts):
        return [80.0 if list(lines) == list(NULL.lines[1::2]) else 100.0 for lines in outputs]


def test_the_seed_chooses_decoys_and_the_sign_of_the_control():
    outputs = [outputs_of(prompt) for prompt in PROMPTS]
    runs = [evaluate(PROMPTS, outputs, NULL, OddHalfFits(PROMPTS), seed=seed).results for seed in (0, 1)]
    swaps, controls = ([[result.metrics[name] for result in run] for run in runs] for name in ("token_f1_swap", "bits_null"))
    assert all(one != other for one, other in zip(*swaps))
    assert {one == other for one, other in zip(*controls)} == {True, False}


class NoisyInverter(Inverter):
    """Likelihoods token by token, one a word: each is 5 or 6 nats, by the number of outputs and its place."""

    name, hash = "noisy", "0"

    def invert(self, outputs, max_new_tokens=256, batch_size=None):
        return ["nothing known"] * len(outputs)

    def token_nll(self, outputs, prompts):
        return [[5.0 + (len(lines) + place) % 2 for place, _ in enumerate(prompt.split())] for lines, prompt in zip(outputs, prompts)]


@pytest.mark.parametrize("number", [1, 2, 15, 16, 17])
def test_decoys_are_ones_own_prompts_as_long_as_there_are_enough(number):
    texts = [f"You bake bread number {place}." for place in range(number)]
    found = decoys_for(texts)
    for text, decoys in zip(texts, found):
        assert len(set(decoys)) == len(decoys) == 15
        assert text not in decoys
        assert sum(decoy in texts for decoy in decoys) == min(15, number - 1)
    assert found == decoys_for(texts)
    assert found != decoys_for(texts, seed=1)


def test_a_few_shipped_prompts_are_no_decoys_twice():
    texts = [prompt.text for prompt in PROMPTS]
    for text, decoys in zip(texts, decoys_for(texts)):
        assert len({text, *decoys}) == 16


def test_what_is_missing_of_requests_is_filled_up_with_requests():
    protocol = make_protocol("prompt_inversion_user")
    requests = {prompt.text for prompt in load_prompts("user-v1", split=None)}
    few = replace(protocol, prompts=tuple(SystemPrompt(f"own-{n}", f"What is {n} + {n}?") for n in range(3)))
    for decoys in few.decoys(few.prompts):
        assert sum(decoy in requests for decoy in decoys) == 13


def test_the_kinds_of_secrets_share_one_loaded_inverter(monkeypatch, tiny_inverter):
    loads = []
    monkeypatch.setattr(shared, "load_inverter", lambda *_, **__: loads.append(1) or tiny_inverter)
    one = shared.shared_inverter("a folder", "cpu", "auto", "system")
    assert shared.shared_inverter("a folder", "cpu") is one
    user = shared.shared_inverter("a folder", "cpu", "auto", "user")
    assert user is shared.shared_inverter("a folder", "cpu", secret="user")
    assert user.secret == "user"
    assert user.model is one.model
    assert len(loads) == 1


def test_values_do_not_depend_on_what_else_is_evaluated(tiny_inverter):
    outputs = [outputs_of(prompt) for prompt in PROMPTS]
    decoys = [[other.text for other in load_prompts("v1")[:15]]] * len(PROMPTS)
    together = evaluate(PROMPTS, outputs, NULL, tiny_inverter, decoys=decoys, max_new_tokens=8, batch_size=3)
    for index, prompt in enumerate(PROMPTS):
        alone = evaluate([prompt], [outputs[index]], NULL, tiny_inverter, decoys=decoys[:1], max_new_tokens=8)
        assert alone.results[0].reconstruction == together.results[index].reconstruction
        assert alone.results[0].metrics == pytest.approx(together.results[index].metrics, abs=1e-9)


def test_no_outputs_means_unscored_and_never_safe(tiny_inverter):
    nothing = parse_outputs([""] * 4, QUERIES)
    refusals = parse_outputs(["I'm sorry, I can't do that."] * 4, QUERIES)
    evaluation = evaluate(PROMPTS[:3], [nothing, refusals, outputs_of(PROMPTS[2])], NULL, tiny_inverter, max_new_tokens=4)
    for result in evaluation.results[:2]:
        assert result.reconstruction is None
        assert result.metrics["coverage"] == 0.0
        assert not is_scored(result.metrics)
    summary = evaluation.summary()
    assert summary["token_f1"].number == 1
    assert summary["coverage"].number == 3


class EasilyPleased(PerfectInverter):
    """Any output at all makes every prompt 20 nats likelier than none does."""

    def nll(self, outputs, prompts):
        return [100.0 - 20.0 * bool(lines) for lines in outputs]


@pytest.mark.parametrize("answers", [[""] * 4, ["I'm sorry, I can't help with that."] * 4])
def test_without_null_outputs_nothing_is_measured_against_them(answers, caplog):
    inverter = EasilyPleased(PROMPTS)
    outputs = [outputs_of(prompt) for prompt in PROMPTS]
    full = evaluate(PROMPTS, outputs, NULL, inverter, curve=True).results[0].metrics
    assert full["bits"] == 0
    assert full["null_coverage"] == 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "lm_eval_inversion"):
        evaluation = evaluate(PROMPTS, outputs, parse_outputs(answers, QUERIES), inverter, curve=True)
    assert evaluation.null_coverage == 0
    assert evaluation.null_reconstructions == ()
    assert "null_coverage 0" in caplog.text
    for result in evaluation.results:
        assert result.metrics["null_coverage"] == 0
        assert result.metrics["token_f1"] == 1
        assert is_scored(result.metrics)
        against_null = ("bits", "identification", "token_f1_lift", "token_f1_null", "cosine_null", "attribute_recall_null")
        assert not [name for name in result.metrics if name.startswith(against_null)]


def test_few_null_outputs_are_told(caplog):
    few = parse_outputs(["Hello there.", "", "", ""], QUERIES)
    with caplog.at_level(logging.WARNING, "lm_eval_inversion"):
        found = evaluate(PROMPTS[:1], [outputs_of(PROMPTS[0])], few, PerfectInverter(PROMPTS)).results[0].metrics
    assert found["null_coverage"] == 0.25
    assert "null_coverage 0.25" in caplog.text
    assert "bits" in found
    caplog.clear()
    half = parse_outputs(["Hello there.", "Fine.", "", ""], QUERIES)
    assert evaluate(PROMPTS[:1], [outputs_of(PROMPTS[0])], half, PerfectInverter(PROMPTS)).null_coverage == 0.5
    assert not caplog.records


def test_a_single_null_output_has_no_halves_to_control_with():
    class Unpractised(NoisyInverter):
        """Anything at all makes every prompt much likelier than nothing does."""

        def token_nll(self, outputs, prompts):
            return [[nats + 9.0 * (not lines) for nats in super(Unpractised, self).token_nll([lines], [prompt])[0]]
                    for lines, prompt in zip(outputs, prompts)]  # fmt: skip

    controls = {"bits_null", "bits_spread_null", "identification_top1_null"}
    outputs = [outputs_of(prompt) for prompt in PROMPTS]
    single, two = (parse_outputs(["Hello there.", "Fine."][:number], load_query_set("ordinary16").first(number)) for number in (1, 2))
    for null, missing in ((single, controls), (two, set()), (NULL, set())):
        summary = evaluate(PROMPTS, outputs, null, Unpractised()).summary()
        assert controls - set(summary) == missing
        assert {"bits", "bits_swap", "identification_top1", "identification_mrr"} <= set(summary)


def test_the_spread_of_the_control_shows_halves_that_differ():
    prompts = load_prompts("v1", split="dev")
    summary = evaluate(prompts, [outputs_of(prompt) for prompt in prompts], NULL, OddHalfFits(prompts)).summary()
    assert summary["bits_null"].low <= 0 <= summary["bits_null"].high  # a coin per prompt gives the sign
    assert summary["bits_spread_null"].mean == pytest.approx(20 / math.log(2))


def test_the_null_outputs_score_zero_against_themselves(tiny_inverter):
    result = evaluate(PROMPTS[:1], [NULL], NULL, tiny_inverter, max_new_tokens=4).results[0]
    assert result.metrics["bits"] == pytest.approx(0, abs=1e-3)
    assert result.metrics["token_f1_lift"] == 0


def test_a_baseline_has_no_bits():
    result = evaluate(PROMPTS[:1], [outputs_of(PROMPTS[0])], NULL, load_inverter("constant")).results[0]
    assert "bits" not in result.metrics
    assert "identification_top1" not in result.metrics
    assert result.metrics["token_f1"] == result.metrics["token_f1_constant"]
    assert result.metrics["token_f1_lift"] == 0


def test_own_prompts_without_attributes_have_no_attribute_scores(tiny_inverter):
    own = replace(PROMPTS[0], attributes=())
    result = evaluate([own], [outputs_of(own)], NULL, tiny_inverter, max_new_tokens=4).results[0]
    assert not any(name.startswith("attribute") for name in result.metrics)
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_lengths_must_agree(tiny_inverter):
    with pytest.raises(ValueError, match="2 prompts, 1 sets of outputs"):
        evaluate(PROMPTS[:2], [NULL], NULL, tiny_inverter)
    with pytest.raises(ValueError, match="2 prompts, 2 sets of outputs, 1 of decoys"):
        evaluate(PROMPTS[:2], [NULL] * 2, NULL, tiny_inverter, decoys=[["You are a decoy."]])


def test_the_curve_is_the_bits_of_fewer_outputs():
    prompt = SystemPrompt("a", "You are Mira the baker of rye bread in Ghent")
    lines = ("Mira", "the baker", "of rye", "bread", "in Ghent", "You are")
    counts = OutputCounts(answers=1, requested=6, lines=6)
    inverter = PerfectInverter([])
    found = evaluate([prompt], [Outputs(lines, counts)], NULL, inverter, curve=True).results[0].metrics
    assert [metric for metric in found if metric.startswith("bits_at_")] == ["bits_at_1", "bits_at_2", "bits_at_4"]
    spread = Outputs((lines[0], lines[1], lines[3], lines[4]), counts)
    assert found["bits_at_4"] == evaluate([prompt], [spread], NULL, inverter).results[0].metrics["bits"]
    assert found["bits_at_1"] < found["bits_at_2"] < found["bits_at_4"] < found["bits"]
    assert not any(metric.startswith("bits_at_") for metric in evaluate([prompt], [spread], NULL, inverter).results[0].metrics)


def test_every_point_of_the_curve_is_over_the_same_prompts():
    """Prompts under which a model writes few lines would leave the curve early, and it would go on over the others."""
    prompt = SystemPrompt("a", "You are Mira the baker of rye bread in Ghent by night")
    inverter, words = PerfectInverter([]), prompt.text.split()

    def curve_of(lines, requested):
        counts = OutputCounts(answers=1, requested=requested, lines=len(lines))
        found = evaluate([prompt], [Outputs(tuple(lines), counts)], NULL, inverter, curve=True).results[0].metrics
        return {name: value for name, value in found.items() if name.startswith("bits_at_")}, found["bits"]

    every = ["1", "2", "4", "8", "16", "32"]
    for requested, names in ((4, every[:2]), (6, every[:3]), (8, every[:3]), (9, every[:4]), (64, every)):
        for number in range(1, min(requested, 5) + 1):
            points, bits = curve_of(words[:number], requested)
            assert sorted(points, key=lambda name: int(name[8:])) == [f"bits_at_{name}" for name in names]
            assert all(points[f"bits_at_{name}"] == bits for name in names if int(name) >= number)
            assert all(points[f"bits_at_{name}"] < bits for name in names if int(name) < number)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_likelihood_that_is_no_number_is_an_error_not_a_perfect_score(broken):
    class Broken(PerfectInverter):
        """Of one candidate alone."""

        def nll(self, outputs, prompts):
            return [broken if prompt == "Be kind." and list(lines) != list(NULL.lines) else 1.0 for lines, prompt in zip(outputs, prompts)]

    with pytest.raises(ValueError, match="not a finite number; give inverter_dtype=float32"):
        evaluate(PROMPTS[:1], [outputs_of(PROMPTS[0])], NULL, Broken(PROMPTS), decoys=[["Be brief.", "Be kind."]])


@pytest.mark.parametrize("where", ["halves", "curve"])
def test_likelihoods_of_controls_and_of_the_curve_are_numbers_too(where):
    class Broken(PerfectInverter):
        """Of some outputs alone: half of the null's, or fewer than all of the prompt's."""

        def nll(self, outputs, prompts):
            half = [*NULL.lines[0::2]], [*NULL.lines[1::2]]
            few = [list(lines) in half if where == "halves" else len(lines) == 1 for lines in outputs]
            return [math.nan if one else 1.0 for one in few]

    outputs = Outputs(("a", "b", "c"), OutputCounts(answers=3, requested=3, lines=3))
    with pytest.raises(ValueError, match="not a finite number"):
        evaluate(PROMPTS[:1], [outputs], NULL, Broken(PROMPTS), decoys=[["Be brief.", "Be kind."]], curve=where == "curve")
