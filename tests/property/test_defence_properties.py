"""What holds for every prompt, conversation, answer and record."""

import json
import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lm_eval_inversion.queries.conversations import conversation, prompt_in_request
from lm_eval_inversion.queries.defences import DEFENCES, FILTER_WORDS, REFUSAL, load_defence
from lm_eval_inversion.redaction import SECRET_KEYS, redact_mapping, redact_text
from lm_eval_inversion.scoring.leakage import detect_leak
from lm_eval_inversion.scoring.utility import answer_similarity

WORDS = ["amber", "boat", "carpet", "dusk", "engine", "fjord", "garnet", "hollow", "ivory", "jacket"]
names = st.sampled_from(list(DEFENCES))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
prompts = texts.filter(str.strip)
sentences = st.lists(st.sampled_from(WORDS), max_size=25)


@st.composite
def dialogues(draw):
    contents = draw(st.lists(texts, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2 == 1))
    return tuple({"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents))


@settings(deadline=None)
@given(names, prompts, dialogues(), st.sampled_from(["system", "user"]))
def test_every_request_holds_the_prompt_and_what_was_written(name, prompt, turns, role):
    system, sent = load_defence(name).request(prompt, turns)
    assert prompt in system
    assert [turn["role"] for turn in sent] == [turn["role"] for turn in turns]
    assert all(before["content"] in after["content"] for before, after in zip(turns, sent))
    assert prompt_in_request(prompt, "".join(message["content"] for message in conversation(system, sent, role)))
    assert prompt_in_request(prompt, json.dumps(conversation(system, sent, role)))


@settings(deadline=None)
@given(names, prompts, texts, st.none() | texts, texts)
def test_an_answer_stays_or_is_replaced_whole(name, prompt, answer, other, told):
    handed_out, acted = load_defence(name).answer(prompt, answer, other, told)
    assert handed_out == answer if not acted else handed_out in (other, REFUSAL)


@settings(deadline=None)
@given(sentences, sentences, sentences)
def test_the_filter_lets_no_run_through_and_stops_nothing_else(prompt, answer, told):
    handed_out, acted = load_defence("ngram_filter").answer(" ".join(prompt), ", ".join(answer), None, " ".join(told))
    length = min(FILTER_WORDS, len(prompt))
    # Runs as texts with a blank at both ends, found by substring search.
    runs = {" " + " ".join(prompt[start : start + length]) + " " for start in range(len(prompt) - length + 1)} if prompt else set()
    wanted = any(run in f" {' '.join(answer)} " and run not in f" {' '.join(told)} " for run in runs)
    assert acted == wanted
    assert handed_out == (REFUSAL if acted else ", ".join(answer))


@settings(deadline=None)
@given(sentences.filter(lambda words: len(words) >= 8), sentences, sentences)
def test_what_regenerate_hands_out_does_not_leak_more_than_the_model_without_the_prompt(prompt, answer, other):
    secret = " ".join(prompt)
    handed_out, acted = load_defence("regenerate").answer(secret, " ".join(answer), " ".join(other))
    assert acted == detect_leak(secret, " ".join(answer)).leaked
    assert not acted or handed_out == (" ".join(other) or REFUSAL)
    assert acted or handed_out == " ".join(answer)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_similarity_is_symmetric_and_one_for_equal_answers(pairs):
    answers, undefended = [one for one, _ in pairs], [other for _, other in pairs]
    similarity = answer_similarity(answers, undefended)
    assert similarity == answer_similarity(undefended, answers)
    assert similarity is None or 0.0 <= similarity <= 1.0
    assert answer_similarity(answers, answers) in (1.0, None)


separators = st.sampled_from([" ", "\n", ", ", " -- ", "\t", ". "])
secrets = st.lists(st.sampled_from(WORDS), min_size=3, max_size=12)


@st.composite
def records(draw, secret):
    """A nested record in which the secret, or a part of it, stands in texts and keys among others."""
    start, stop = sorted((draw(st.integers(0, len(secret))), draw(st.integers(0, len(secret)))))
    quote = draw(separators).join(draw(st.sampled_from([secret, secret[start:stop]])))
    if draw(st.booleans()):
        quote = json.dumps({"x": f"{draw(texts)}\n{quote.upper()}"}, ensure_ascii=draw(st.booleans()))
    leaf = st.one_of(
        st.just(quote), texts.map(lambda text: f"{text} {quote} {text}"), st.none(), st.booleans(), st.floats(allow_nan=False), texts
    )
    keys = st.one_of(st.sampled_from(sorted(SECRET_KEYS)), st.just(quote), st.sampled_from(["note", "description", "id"]))
    return draw(st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8))


@settings(deadline=None)
@given(st.data(), st.binary(min_size=1, max_size=40))
def test_no_three_words_of_a_secret_survive_in_a_redacted_record(data, salt):
    secret = data.draw(secrets)
    redacted = redact_mapping(data.draw(records(secret)), SECRET_KEYS, salt, secrets=[" ".join(secret)])

    def strings(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from (key, *strings(inner))
        elif isinstance(value, list):
            for inner in value:
                yield from strings(inner)

    for text in strings(redacted):
        words = re.findall("[a-z]+", text.lower().replace("\\n", " "))
        for start in range(len(secret) - 2):
            run = secret[start : start + 3]
            assert not any(words[place : place + 3] == run for place in range(len(words))), text
    assert redact_mapping(redacted, SECRET_KEYS, salt, secrets=[" ".join(secret)]) == redacted


@settings(deadline=None)
@given(texts, texts, st.binary(min_size=1, max_size=40))
def test_markers_are_equal_for_equal_texts_only_and_hold_no_word_of_them(one, other, salt):
    assume(not one.startswith("[sha256:") and not other.startswith("[sha256:"))
    assert (redact_text(one, salt) == redact_text(other, salt)) == (one == other)
    assert re.fullmatch(r"(\[sha256:[0-9a-f]{12}, \d+ characters, \d+ words\])?", redact_text(one, salt))
