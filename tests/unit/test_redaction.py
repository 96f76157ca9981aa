import base64
import hashlib
import hmac
import json

import pytest
from surviving import surviving_runs

from lm_eval_inversion.prompts import Attribute, SystemPrompt
from lm_eval_inversion.prompts.schema import prompt_from_row
from lm_eval_inversion.redaction import (
    KEY_VARIABLE,
    SECRET_KEYS,
    keyed_hash,
    redact_mapping,
    redact_prompt,
    redact_text,
    redacted_length,
    run_salt,
)

SALT = b"a salt of this test"
SECRET = "You are Mira, a baker in Ghent.\nNever give a recipe away."


def test_a_marker_tells_hash_and_length_and_nothing_else():
    digest = hmac.new(SALT, SECRET.encode(), hashlib.sha256).hexdigest()[:12]
    assert redact_text(SECRET, SALT) == f"[sha256:{digest}, 57 characters, 12 words]"
    assert redacted_length(redact_text(SECRET, SALT)) == (57, 12)
    assert redacted_length(SECRET) is None


def test_without_the_salt_a_guess_cannot_be_checked():
    marker = redact_text("Be brief.", SALT)
    assert hashlib.sha256(b"Be brief.").hexdigest()[:12] not in marker
    assert redact_text("Be brief.", b"another salt") != marker
    assert redact_text("Be brief.", SALT) == marker
    for attempt in (redact_text, keyed_hash):
        with pytest.raises(ValueError, match="the salt is empty"):
            attempt("Be brief.", b"")
    with pytest.raises(ValueError, match="the salt is empty"):
        redact_mapping({}, SECRET_KEYS, b"")


def test_empty_texts_and_markers_stay():
    assert redact_text("", SALT) == ""
    assert redact_text(redact_text(SECRET, SALT), SALT) == redact_text(SECRET, SALT)
    assert redact_text(redact_text(SECRET, SALT) + " You are Mira", SALT) != redact_text(SECRET, SALT) + " You are Mira"
    assert redacted_length(redact_text("\ud83d half", SALT)) == (6, 2)


def test_salts_are_random_unless_the_user_has_a_key(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert run_salt() != run_salt()
    assert len(run_salt()) >= 16
    monkeypatch.setenv(KEY_VARIABLE, "correct horse battery staple")
    assert run_salt() == run_salt()
    assert b"horse" not in run_salt()
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ValueError, match=f"{KEY_VARIABLE} has 5 characters; a short key can be guessed: give at least 16"):
        run_salt()


def test_a_redacted_prompt_is_still_a_prompt():
    prompt = SystemPrompt("own-0001", SECRET, "own", "test", (Attribute("name", "Mira", (), "Paloma"),))
    redacted = redact_prompt(prompt, SALT)
    assert (redacted.id, redacted.category, redacted.split, redacted.attributes) == ("own-0001", "own", "test", ())
    assert redacted.text == redact_text(SECRET, SALT)
    # The record says the same, and the reader of records takes it.
    row = redact_mapping(prompt.to_dict(), SECRET_KEYS, SALT)
    assert prompt_from_row(row, "x") == redacted
    assert redact_mapping({"attributes": json.dumps(prompt.to_dict()["attributes"])}, SECRET_KEYS, SALT) == {"attributes": "[]"}


def test_named_keys_lose_texts_and_numbers_at_any_depth_and_the_rest_stays():
    record = {
        "id": "own-0001",
        "metrics": {"recovery": 0.5, "leaked": True, "span": (3, 17)},
        "answers": ["Hello.", None, {"deep": ["Rye.", 7, False]}],
        "requests": [{"id": "direct-1", "arm": "attack", "state": "answered", "span": None}],
    }
    kept = json.loads(json.dumps(record))
    redacted = redact_mapping(record, {"answers", "span"}, SALT)
    assert redacted == {
        "id": "own-0001",
        "metrics": {"recovery": 0.5, "leaked": True, "span": [None, None]},
        "answers": [redact_text("Hello.", SALT), None, {"deep": [redact_text("Rye.", SALT), None, False]}],
        "requests": [{"id": "direct-1", "arm": "attack", "state": "answered", "span": None}],
    }
    assert json.loads(json.dumps(record)) == kept


def test_texts_outside_the_named_keys_are_searched_for_the_secret():
    record = {
        "note": "It said: you are MIRA - a baker!",
        "json": json.dumps({"row": SECRET.replace(" ", "\n")}),
        "escaped": json.dumps("Жить в лесу"),
        "Mira, a baker": 1,
        "fine": "You are a baker, Mira.",
    }
    redacted = redact_mapping(record, (), SALT, secrets=[SECRET, "Жить в лесу"])
    assert redacted == {
        "note": redact_text(record["note"], SALT),
        "json": redact_text(record["json"], SALT),
        "escaped": redact_text(record["escaped"], SALT),
        redact_text("Mira, a baker", SALT): 1,
        "fine": "You are a baker, Mira.",
    }


def test_short_secrets_are_searched_for_whole_from_two_words_on():
    record = {"arm": "attack", "note": "They said: be brief."}
    assert redact_mapping(record, (), SALT, secrets=["Be brief.", "Attack!"]) == {
        "arm": "attack",
        "note": redact_text("They said: be brief.", SALT),
    }


def test_surviving_runs_finds_what_a_redaction_missed():
    assert surviving_runs({"a": ["x", {"b": "mira A baker, in"}]}, [SECRET]) == ["a baker in", "mira a baker"]
    assert surviving_runs({"You are Mira": 1}, [SECRET]) == ["you are mira"]
    assert surviving_runs({"a": redact_text(SECRET, SALT)}, [SECRET, "57 characters 12 words"]) == []


def test_a_record_that_cannot_be_seen_through_is_refused():
    with pytest.raises(TypeError, match="holds a bytes"):
        redact_mapping({"a": SECRET.encode()}, SECRET_KEYS, SALT)
    with pytest.raises(TypeError, match="holds a SystemPrompt"):
        redact_mapping([SystemPrompt("a", SECRET)], SECRET_KEYS, SALT)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("Ты Мира, пекарь из Гента", json.dumps(json.dumps("Ты Мира, пекарь из Гента"))),
        ("You are Mira, a baker", "GET /?q=You%20are%20Mira%2C%20a%20baker"),
        ("Tu es Léa, fée", "Tu es L&eacute;a, f&eacute;e"),
        ("You are Mira the baker of Ghent", base64.b64encode(b"You are Mira the baker of Ghent").decode()),
        ("Secret word", "the Secret word was said"),
    ],
)
def test_no_quoting_hides_a_secret_from_redaction(secret, text):
    record = {"error": text}
    assert surviving_runs(record, [secret])
    redacted = redact_mapping(record, SECRET_KEYS, SALT, [secret])
    assert text not in json.dumps(redacted)
    assert not surviving_runs(redacted, [secret])
