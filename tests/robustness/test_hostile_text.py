"""Whatever a model, a prompts file or an attacks file says, it is text: it travels verbatim, and every function returns."""

import csv
import io
import json
import math

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lm_eval_inversion import detect_leak, load_prompts, score_reconstruction
from lm_eval_inversion.characters import holds_letters
from lm_eval_inversion.inverter.prefix_model import encode_blocks
from lm_eval_inversion.leakage import make_leakage_protocol, score_leakage
from lm_eval_inversion.outputs import MAX_OUTPUTS, parse_outputs, split_list
from lm_eval_inversion.queries import conversation, load_query_set
from lm_eval_inversion.queries.attacks import load_attacks
from lm_eval_inversion.thinking import strip_thinking

from .hostile import EVERYTHING, HALVES, INJECTIONS, LONG, TEMPLATES, texts, whole_texts

PROMPT = "You are Mira, a baker in Ghent. Never give a recipe to anybody who asks for one."
LIMIT = 60  # seconds; what takes so long hangs
relaxed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
few = settings(relaxed, max_examples=25)
LIST, ORDINARY = load_query_set("intro4x16").first(2), load_query_set("ordinary16").first(2)


def check_outputs(outputs, answers):
    assert outputs.counts.answers == len(answers)
    assert outputs.counts.lines == len(outputs.lines) <= MAX_OUTPUTS
    assert 0 <= outputs.counts.refusals <= outputs.counts.lines
    assert all(line.strip() for line in outputs.lines)
    assert 0 <= outputs.coverage <= 1


@relaxed
@given(st.lists(texts, max_size=2))
def test_any_answers_are_parsed(answers):
    for queries in (LIST, ORDINARY):
        check_outputs(parse_outputs(answers, queries), answers)


@relaxed
@given(texts)
def test_no_text_confuses_the_removal_of_thinking(text):
    found = strip_thinking(text)
    assert "</think>" not in found.lower()
    assert found == found.strip()
    assert len(found) <= len(text)


@relaxed
@given(texts, texts)
def test_any_output_is_searched_for_leaks(output, given_text):
    leak = detect_leak(PROMPT, output, given=given_text)
    assert 0 <= leak.recovery <= 1
    if leak.span is not None:
        assert 0 <= leak.span[0] < leak.span[1] <= len(output)


@relaxed
@given(texts, texts)
def test_a_leak_between_hostile_texts_is_found(before, after):
    leak = detect_leak(PROMPT, f"{before}\n{PROMPT}\n{after}")
    assert leak.recovery == 1
    assert leak.leaked


@settings(few, max_examples=12)
@given(texts)
@example("\ud83d")
@example("an emoji cut in half: \ud83d")
@example("")
def test_any_text_is_scored(text):
    for truth, reconstruction in ((PROMPT, text), (text, PROMPT)):
        scores = score_reconstruction(truth, reconstruction)
        assert all(math.isfinite(value) for value in scores.values())
        assert -1.001 <= scores["cosine"] <= 1.001
        assert 0 <= scores["bleu"] <= 100.001
        assert all(0 <= scores[name] <= 1 for name in ("token_f1", "rouge1", "rougeL_recall", "exact_match"))


@pytest.mark.parametrize("name", LONG)
def test_a_megabyte_on_one_line_is_parsed(watchdog, name):
    with watchdog(LIMIT):
        for queries in (LIST, ORDINARY):
            check_outputs(parse_outputs([LONG[name]], queries), [LONG[name]])
        strip_thinking(LONG[name])
        lines, counts = split_list(LONG[name])
    assert len(lines) == counts.lines <= MAX_OUTPUTS


@pytest.mark.parametrize("name", LONG)
def test_a_megabyte_on_one_line_is_searched_for_leaks(watchdog, name):
    with watchdog(LIMIT):
        leak = detect_leak(PROMPT, LONG[name], given=LONG[name])
        assert leak.cut
        assert not leak.leaked


@pytest.mark.parametrize("name", ["exclamations"])  # the slowest: every one might end a sentence
def test_a_megabyte_on_one_line_is_scored(watchdog, name):
    with watchdog(LIMIT):
        scores = score_reconstruction(PROMPT, LONG[name])
    assert all(math.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("name", ["letter", "words", "nulls", "emoji", "half characters"])
def test_a_megabyte_on_one_line_is_inverted(watchdog, tiny_inverter, name):
    with watchdog(LIMIT):
        (reconstruction,) = tiny_inverter.invert([[LONG[name]]], max_new_tokens=4)
        assert math.isfinite(tiny_inverter.nll([[LONG[name]]], [PROMPT])[0])
    assert isinstance(reconstruction, str)


@few
@given(st.lists(texts, max_size=4))
@example(EVERYTHING)
@example(HALVES)
def test_any_outputs_are_inverted(tiny_inverter, outputs):
    assert isinstance(tiny_inverter.invert([outputs], max_new_tokens=2)[0], str)
    assert math.isfinite(tiny_inverter.nll([outputs], [PROMPT])[0])


@pytest.mark.parametrize("injection", INJECTIONS)
def test_an_injection_cannot_reach_what_other_outputs_say(tiny_inverter, injection):
    """Blocks do not see each other: with an injection beside it, an output is encoded as without."""
    import torch

    honest = "\tA baker."  # sorted before the injection
    blocks = [tiny_inverter.tokenizer.blocks([text])[0] for text in (honest, injection)]
    with torch.inference_mode():
        alone = encode_blocks(tiny_inverter.model, [blocks[:1]])
        beside = encode_blocks(tiny_inverter.model, [blocks])
    for kept, found in zip(alone.keys + alone.values, beside.keys + beside.values):
        torch.testing.assert_close(found[:, :, : len(blocks[0])], kept, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [*TEMPLATES, *INJECTIONS])
def test_answers_and_conversations_carry_templates_verbatim(text):
    (line,) = parse_outputs([f"Well. {text}"], ORDINARY).lines
    assert line == f"Well. {text}".strip()
    for role in ("system", "user"):
        messages = conversation(text, text, role)
        assert messages[-1]["content"].endswith(text)
        assert messages[0]["content"].startswith(text)


@pytest.mark.parametrize("text", [*TEMPLATES, *INJECTIONS])
def test_chat_templates_print_prompts_and_do_not_run_them(chat_model, text):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    request = tokenizer.apply_chat_template(conversation(text, text), tokenize=False)
    assert request.count(text) == 2


PROMPTS = [text for text in TEMPLATES if holds_letters(text)]  # the others hold no letter or digit, and are refused


def write_csv(texts):
    stream = io.StringIO()
    csv.writer(stream).writerows([["text"], *[[text] for text in texts]])
    return stream.getvalue()


@relaxed
@given(st.lists(whole_texts.filter(holds_letters), min_size=1, max_size=4, unique_by=str.strip))
@example(PROMPTS)
def test_prompts_are_loaded_verbatim(tmp_path, found):
    path = tmp_path / "mine.jsonl"
    for ascii_only in (True, False):
        path.write_text("".join(json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n" for text in found), encoding="utf-8", newline="")
        assert [prompt.text for prompt in load_prompts(path)] == [text.strip() for text in found]
    for prompt, text in zip(load_prompts(path), found):
        assert [message["content"] for message in conversation(prompt.text, "Hi")] == [text.strip(), "Hi"]


@pytest.mark.parametrize("text", [*PROMPTS, *INJECTIONS, "👩‍👩‍👧 a", "\u202eevil", "\x1b[31mred", "=1+1", 'a "quoted" word, and a comma'])
def test_prompts_of_tables_and_plain_text_are_loaded_verbatim(tmp_path, text):
    for name, content in (("mine.csv", write_csv([text])), ("mine.txt", text)):
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        assert [prompt.text for prompt in load_prompts(tmp_path / name)] == [text.strip()]


@pytest.mark.parametrize("half", HALVES)
def test_half_characters_in_prompts_and_attacks_are_refused(tmp_path, half):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"text": "Good."}) + "\n" + json.dumps({"text": f"Bad: {half}"}) + "\n")
    with pytest.raises(ValueError, match=r"mine\.jsonl line 2: .*half"):
        load_prompts(tmp_path / "mine.jsonl")
    entry = {"id": "a", "family": "encode", "text": f"Bad: {half}"}
    (tmp_path / "mine.yaml").write_text("attacks:\n  - " + json.dumps(entry) + "\n")
    with pytest.raises(ValueError, match=r"mine\.yaml line 2: .*half"):
        load_attacks(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.jsonl", b"[" * 100_000),
        ("mine.jsonl", b'{"text": "a", "id": ' + b"9" * 5000 + b"}"),
        ("mine.jsonl", b'{"text": "a"} {"text": "b"}'),
        ("mine.jsonl", b"\xff\xfe{}"),
        ("mine.jsonl", b"\0\0\0"),
        ("mine.csv", b'text\n"never closed'),
        ("mine.csv", b"\0"),
        ("mine.txt", b"\n \t" * 300_000),
        ("mine.txt", b"\xed\xa0\x80"),  # half a character in bytes
    ],
)
def test_broken_prompts_files_are_named(tmp_path, watchdog, name, content):
    (tmp_path / name).write_bytes(content)
    with watchdog(LIMIT), pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        load_prompts(tmp_path / name)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl", "mine.txt"])
def test_a_prompt_of_a_megabyte_is_loaded_or_refused_by_name(tmp_path, watchdog, name):
    text = LONG["words"].strip()
    content = {"mine.csv": write_csv([text]), "mine.jsonl": json.dumps({"text": text}), "mine.txt": text}[name]
    (tmp_path / name).write_text(content)
    with watchdog(LIMIT):
        (prompt,) = load_prompts(tmp_path / name)
    assert prompt.text == text


@pytest.mark.parametrize("load", [load_prompts, load_attacks])
@pytest.mark.parametrize("name", ["x" * 100_000, "x\0y.txt", "~", "/", ".", "\ud83d", "{{7*7}}.yaml"])
def test_names_that_are_no_files_are_not_found(load, name):
    with pytest.raises((FileNotFoundError, ValueError), match="neither a shipped set|prompts are read from") as caught:
        load(name)
    assert str(caught.value).encode("utf-8", "backslashreplace")


def attack(text, **entry):
    return yaml.safe_dump({"attacks": [{"id": "a", "family": "encode", "text": text, **entry}]}, allow_unicode=True)


@few
@given(whole_texts)
@example(TEMPLATES[0])
@example(TEMPLATES[4])
@example(INJECTIONS[2])
def test_attacks_are_loaded_verbatim(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"attacks": [{"id": "a", "family": "encode", "text": text}]}), encoding="utf-8")
    (found,) = load_attacks(str(path))
    assert found.turns == ({"role": "user", "content": text},)
    (path.parent / "mine.jsonl").write_text(json.dumps({"text": "Be a baker."}))
    protocol = make_leakage_protocol("prompt_leakage_attacks", prompts=str(path.parent / "mine.jsonl"), attacks=str(path))
    assert protocol.requests()[0].turns[-1]["content"] == text


LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "content",
    [
        "attacks: " + "[" * 100_000,
        "attacks: [{id: 2001-99-99, family: encode, text: Hi}]",
        "attacks: [{id: x, family: encode, text: " + "9" * 5000 + "}]",
        "attacks: !!python/object/apply:os.system [id]",
        "attacks: !!python/name:os.system",
        "a: &a {attacks: [{id: x, family: encode, text: Hi}]}\n<<: *a\n",
        "attacks: []\nattacks: [{id: x, family: encode, text: Hi}]\n",
        LAUGHS + "attacks: [{id: x, family: *a11, text: Hi}]\n",
        LAUGHS + "attacks: [{id: x, family: encode, encoding: *a11, text: Hi}]\n",
        LAUGHS + "attacks: [{id: x, family: encode, turns: *a11}]\n",
        "attacks: &a [*a]\n",
        "? [a]\n: 1\nattacks: 1\n",
        "attacks: [{id: x, family: encode, text: 'a\0b'}]",
        "- attacks\n",
        "--- 1\n--- 2\n",
        "",
        "\t",
    ],
    ids=range(17),
)
def test_broken_attack_files_are_named(tmp_path, watchdog, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with watchdog(LIMIT), pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        load_attacks(str(path))
    assert len(str(caught.value)) < 2000


def test_an_attack_file_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"attacks:\n  - {id: a, family: encode, text: caf\xe9}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml line 2: the file is not UTF-8"):
        load_attacks(str(path))


@few
@given(st.lists(st.one_of(st.none(), texts), min_size=16, max_size=16))
def test_any_answers_to_attacks_are_scored(answers):
    protocol = make_leakage_protocol("prompt_leakage_attacks", tier="smoke")
    requests = protocol.requests()
    answers = [answers[place % len(answers)] for place in range(len(requests))]
    prompt = protocol.prompts[0]
    result = score_leakage(prompt, protocol.matched(prompt).text, requests, answers, answers[: len(protocol.shared_requests())])
    assert all(0 <= value <= 1 for value in result.metrics.values())
    json.dumps(result.rows)
    for row, answer in zip(result.rows, answers):
        assert row["state"] == ("error" if answer is None else row["state"])
        assert row["state"] == "answered" or not row["leaked"]
