"""Metrics against values computed by hand or by the reference libraries themselves."""

import math
import random

import nltk
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from lm_eval_inversion import score_reconstruction
from lm_eval_inversion.prompts import Attribute
from lm_eval_inversion.scoring.attributes import attribute_scores, mentions
from lm_eval_inversion.scoring.bits import bits_above_null
from lm_eval_inversion.scoring.identification import choose_decoys, identification_scores, rank_of_first
from lm_eval_inversion.scoring.text import MAX_CHARACTERS, bleu, rouge, text_metrics, token_f1, word_tokens
from lm_eval_inversion.scoring.uncertainty import RESAMPLES, estimate

PAIRS = [
    ("You are a baker. Be brief.", "You are a brief baker."),
    ("Act as a pirate captain!", "You are a pirate captain who loves rum."),
    ("Rules:\n- Never say \"no\".\n- Cost: $4.50", "Never say no. It costs $4.50."),
]


def test_token_f1_by_hand():
    # {You, are, a, baker, ., Be, brief} and {You, are, a, brief, baker, .}: 6 shared, 7 + 6 in all.
    assert token_f1(*PAIRS[0]) == pytest.approx(2 * 6 / 13)
    assert token_f1("a a a", "a") == 1.0  # sets, not counts
    assert token_f1("Baker", "baker") == 0.0  # case kept
    assert token_f1("", "x") == token_f1("x", "") == 0.0


@pytest.mark.parametrize("text", [text for pair in PAIRS for text in pair] + ["It's 3 o'clock, isn't it? (Yes.)"])
def test_tokens_are_nltks(text):
    words = nltk.tokenize.NLTKWordTokenizer()
    sentences = nltk.tokenize.punkt.PunktSentenceTokenizer()
    assert word_tokens(text) == [token for sentence in sentences.tokenize(text) for token in words.tokenize(sentence)]
    # With one sentence the definition is nltk.word_tokenize(preserve_line=True), which needs no data at all.
    if len(sentences.tokenize(text)) == 1:
        assert word_tokens(text) == nltk.word_tokenize(text, preserve_line=True)


spaced_scripts = st.text(st.characters(max_codepoint=0x7F)) | st.text(st.sampled_from("aé ß’“”—.,ЖяΩ한국'-\n"), max_size=80)


@settings(max_examples=300, deadline=None)
@given(spaced_scripts)
def test_texts_of_scripts_with_spaces_have_nltks_tokens(text):
    words = nltk.tokenize.NLTKWordTokenizer()
    sentences = nltk.tokenize.punkt.PunktSentenceTokenizer()
    assert word_tokens(text) == [token for sentence in sentences.tokenize(text) for token in words.tokenize(sentence)]


@pytest.mark.parametrize(
    ("truth", "near", "far"),
    [
        ("你是米拉，根特的一名面包师。绝不给出食谱。", "你是米拉，根特的一名面包师。不要给出食谱。", "请把合同翻译成丹麦语，语气正式。"),
        ("あなたは「みどり書店」の案内係です。", "あなたは「みどり書店」の店員です。", "契約書を翻訳してください。"),
        ("คุณเป็นผู้ช่วยของร้านหนังสือ ตอบสั้นๆ", "คุณเป็นผู้ช่วยของร้านหนังสือ ตอบสั้น", "You are a baker."),
    ],
)
def test_scripts_without_spaces_count_by_character(truth, near, far):
    assert token_f1(truth, truth) == 1
    assert 0.8 < token_f1(truth, near) < 1
    assert token_f1(truth, far) < 0.5
    assert len(word_tokens(truth)) > 15
    assert word_tokens("你是Mira, ok?") == ["你", "是", "Mira", ",", "ok", "?"]


@pytest.mark.parametrize(("truth", "guess"), PAIRS)
def test_bleu_is_sacrebleus_sentence_bleu(truth, guess):
    expected = sacrebleu.sentence_bleu(guess, [truth], smooth_method="exp", tokenize="13a", use_effective_order=False).score
    assert bleu(truth, guess) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("truth", "guess"), PAIRS)
def test_rouge_is_rouge_scores(truth, guess):
    reference = RougeScorer(["rouge1", "rougeL"], use_stemmer=False).score(truth, guess)
    found = text_metrics(truth, guess)
    assert found["rouge1"] == reference["rouge1"].fmeasure
    assert found["rougeL_recall"] == reference["rougeL"].recall


words = st.lists(st.sampled_from(["a", "b", "C", "d3", "e-f", "é", "."]), max_size=25).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(words, words)
def test_rouge_is_rouge_scores_whatever_the_texts(truth, guess):
    reference = RougeScorer(["rouge1", "rougeL"], use_stemmer=False).score(truth, guess)
    assert rouge(truth, guess) == (reference["rouge1"].fmeasure, reference["rougeL"].recall)


def test_rouge_by_hand():
    # you are a pirate captain: 3 of 5 truth words in order (a, pirate, captain), guess has 8 words.
    found = text_metrics(*PAIRS[1])
    assert found["rougeL_recall"] == pytest.approx(3 / 5)
    assert found["rouge1"] == pytest.approx(2 * (3 / 5) * (3 / 8) / (3 / 5 + 3 / 8))


def test_a_perfect_reconstruction():
    found = score_reconstruction(PAIRS[0][0], PAIRS[0][0])
    assert found == pytest.approx(
        {"token_f1": 1, "bleu": 100, "rouge1": 1, "rougeL_recall": 1, "exact_match": 1, "cosine": 1}, abs=1e-5
    )


def test_a_match_is_of_the_whole_texts_however_much_of_them_is_read():
    text = "a " * (MAX_CHARACTERS // 2)
    found = text_metrics(text, f"{text}b")
    assert (found["token_f1"], found["exact_match"]) == (1, 0)


def test_cosine_orders_by_meaning():
    truth = "You are a baker who sells bread."
    near = score_reconstruction(truth, "Act as someone with a bakery.")["cosine"]
    far = score_reconstruction(truth, "Translate contracts into Danish.")["cosine"]
    assert near > far + 0.2
    assert score_reconstruction(truth, "")["cosine"] == 0.0


def test_bits_are_nats_over_ln_2():
    assert bits_above_null(10 * math.log(2), 3 * math.log(2)) == pytest.approx(7)
    assert bits_above_null(1.0, 2.0) < 0


def test_identification_by_hand():
    assert identification_scores([3.0, 1.0, 2.0]) == {"top1": 1.0, "mrr": 1.0}
    assert identification_scores([2.0, 3.0, 1.0]) == {"top1": 0.0, "mrr": 0.5}
    alike = identification_scores([1.0] * 16)  # chance, of both
    assert alike == {"top1": pytest.approx(1 / 16), "mrr": pytest.approx(sum(1 / place for place in range(1, 17)) / 16)}
    assert identification_scores([1.0, 2.0, 1.0, 0.0]) == {"top1": 0.0, "mrr": pytest.approx((1 / 2 + 1 / 3) / 2)}
    assert rank_of_first([1.0] * 16) == 8.5
    assert rank_of_first([0.0, 1.0, 0.0]) == 2.5


def test_decoys_are_a_function_of_truth_pool_and_seed():
    pool = [f"prompt {number}" for number in range(40)]
    (decoys,) = choose_decoys([pool[3]], pool, seed=0)
    assert len(set(decoys)) == 15
    assert pool[3] not in decoys
    assert [decoys] == choose_decoys([pool[3]], pool[::-1], seed=0)
    assert [decoys] != choose_decoys([pool[3]], pool, seed=1)
    with pytest.raises(ValueError, match="needs 15 other prompts, the pool holds 14"):
        choose_decoys([pool[0]], pool[:15], seed=0)


@pytest.mark.parametrize("number", [15, 16, 17, 90, 400])
def test_decoys_are_a_sample_of_the_sorted_others(number):
    pool = [f"prompt {place}" for place in range(number)]
    truths = ["no prompt", *pool] if number > 15 else ["no prompt"]
    expected = [random.Random(f"5/{truth}").sample(sorted(set(pool) - {truth}), 15) for truth in truths]
    assert choose_decoys(truths, [*pool, *pool], seed=5) == expected


@pytest.mark.parametrize("number", [6, 7, 333, 1000])
def test_drawing_in_parts_changes_no_interval(number):
    values = np.sort(np.random.default_rng(1).normal(size=number))
    resamples = values[np.random.default_rng(3).integers(0, number, (RESAMPLES, number))]
    stderr = values.std(ddof=1) / math.sqrt(number)
    spread = np.maximum(resamples.std(axis=1, ddof=1) / math.sqrt(number), stderr / 4)
    distances = (resamples.mean(axis=1) - values.mean()) / spread
    found = estimate(values.tolist(), seed=3)
    assert found.low == pytest.approx(values.mean() - stderr * np.quantile(distances, 0.975))
    assert found.high == pytest.approx(values.mean() - stderr * np.quantile(distances, 0.025))


def test_intervals_of_few_and_skewed_values_hold_the_mean_about_as_often_as_they_say():
    """The percentile interval that it took the place of holds the mean of eight such values in about four fifths of all cases."""
    generator = np.random.default_rng(2)
    draws, mean = generator.lognormal(0, 0.8, (300, 8)), math.exp(0.32)
    held = [found.low <= mean <= found.high for found in (estimate(list(row)) for row in draws)]
    assert np.mean(held) > 0.88
    percentiles = [np.quantile(row[generator.integers(0, 8, (2000, 8))].mean(axis=1), [0.025, 0.975]) for row in draws]
    assert np.mean([low <= mean <= high for low, high in percentiles]) < 0.86


def test_one_value_that_sticks_out_makes_no_boundless_interval():
    """A third of the resamples hold nothing of it, and next to no spread."""
    values = [*np.random.default_rng(0).normal(5, 0.01, 29), 60.0]
    found, observed = estimate(values), np.quantile(np.random.default_rng(1).choice(values, (4000, 30)).mean(axis=1), 0.975)
    assert observed < found.high < 2 * observed


def test_there_is_no_interval_where_more_than_a_tail_of_the_resamples_would_hold_one_value():
    assert math.isfinite(estimate([0.0] * 5 + [1.0, 2.0, 3.0]).low)  # (5 / 8) ** 8 is 0.023
    assert math.isnan(estimate([0.0] * 6 + [1.0, 2.0, 3.0]).low)  # (6 / 9) ** 9 is 0.026


@given(st.lists(st.floats(0, 1), min_size=6, max_size=30))
def test_an_interval_stays_in_its_range_and_holds_the_mean(values):
    found = estimate(values, lowest=0.0, highest=1.0)
    assert math.isnan(found.low) or 0 <= found.low <= found.mean + 1e-12
    assert math.isnan(found.high) or found.mean - 1e-12 <= found.high <= 1


def test_attributes_by_hand():
    attributes = (
        Attribute("role", "pirate captain", ("buccaneer",), "baker"),
        Attribute("fact", "4.50", (), "9.99"),
        Attribute("name", "Ann", (), "Bea"),
    )
    assert attribute_scores(attributes, "A BUCCANEER, and it costs 4.50; announce it") == {
        "attribute_recall": pytest.approx(2 / 3),
        "attribute_false_claims": 0.0,
    }
    assert attribute_scores(attributes, "Bea is a baker")["attribute_false_claims"] == pytest.approx(2 / 3)
    assert attribute_scores((), "x") == {}
    assert not mentions("announce", "Ann")


def test_intervals():
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, float("nan")])
    assert (found.mean, found.number) == (3.5, 6)
    assert found.stderr == pytest.approx(math.sqrt(3.5 / 6))
    assert found.low < 3.5 - found.stderr < 3.5 + found.stderr < found.high
    within = estimate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], lowest=3.0, highest=4.0)
    assert (within.low, within.high) == (3.0, 4.0)
    values = [0.0, 0.3, 1.0, 2.2, 3.1, 5.7, 7.0]
    assert estimate(values[::-1]) == estimate(values)  # seeded, in any order
    few = estimate([1.0, 2.0, 3.0])
    assert (few.mean, few.stderr, few.number) == (2.0, pytest.approx(1 / math.sqrt(3)), 3)
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    assert math.isnan(estimate([]).mean)
    assert estimate([5.0]).mean == 5.0
