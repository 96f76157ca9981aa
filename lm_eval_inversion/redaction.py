"""Redaction: records that keep hashes and scores, and not one text that comes from a private system prompt.

Example: "You are Mira, a baker." becomes "[sha256:5f0c2a9e7b41, 22 characters, 5 words]".

The hash is keyed (HMAC-SHA256). A plain hash of a short prompt can be guessed by hashing likely prompts; without the key, guesses
cannot be checked. The key is the run's own salt, random and never stored, so that markers can be compared within a run and nowhere
else. To compare runs, or to give all processes of one run the same markers, set ``LM_EVAL_INVERSION_REDACTION_KEY`` to a long random
text and keep it as you keep the prompts. Lengths stay readable, because scores are broken down by them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets as random_bytes
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm_eval_inversion.hashing import SHORT_HASH_DIGITS
from lm_eval_inversion.prompts.schema import REDACTED, SystemPrompt
from lm_eval_inversion.queries.defences import plain_words, word_runs
from lm_eval_inversion.scoring.leakage.decoders import MINIMUM_ENCODED, all_texts

KEY_VARIABLE = "LM_EVAL_INVERSION_REDACTION_KEY"
MIN_KEY_CHARACTERS = 16  # a shorter key can be guessed together with the prompt
SALT_BYTES = 32
RUN_WORDS = 3  # consecutive words of a secret that no redacted record may hold

# Keys of the records of both hosts whose texts come from the system prompt: the prompt itself and its likes (decoys, the swap arm's), the
# requests that carry it, the answers, and what was made from the answers.
SECRET_KEYS = frozenset({
    "text", "attributes", "target", "system_prompt", "matched", "decoys", "content", "answers", "null_answers", "Answers:answers",
    "Answers:null_answers", "answer", "explanation", "reconstruction", "null_reconstruction", "null_reconstructions", "span", "arguments",
    "resps", "reasoning", "completion", "attachments",
})  # fmt: skip
REDACTED_HASH = "redacted"  # key of an Inspect log's metadata: the hash of the prompts as redaction wrote it
REDACTION_KEY = "redaction_key"  # key of a redacted sample's metadata: a hash that is the same wherever the salt is
EMPTIED_KEYS = frozenset({"attributes"})  # lists of objects with a schema of their own, which would not take markers

_ESCAPE = re.compile(r"\\{1,16}(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|[nrtbf])")  # of JSON text inside a text, however often it was quoted


def run_salt() -> bytes:
    """The salt of a run: random, or the user's key from ``LM_EVAL_INVERSION_REDACTION_KEY``. Never write it into a result.

    Raises:
        ValueError: the user's key is too short.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return random_bytes.token_bytes(SALT_BYTES)
    if len(key) < MIN_KEY_CHARACTERS:
        raise ValueError(
            f"{KEY_VARIABLE} has {len(key)} characters; a short key can be guessed: give at least {MIN_KEY_CHARACTERS} random ones, or "
            "unset it for a key of this run only"
        )
    return hashlib.sha256(key.encode("utf-8")).digest()


def keyed_hash(text: str, salt: bytes) -> str:
    """Twelve hex digits of HMAC-SHA256 over a text; lone surrogates are hashed as they are.

    Raises:
        ValueError: the salt is empty.
    """
    if not salt:
        raise ValueError("the salt is empty, and the hash of a short text without one can be guessed; use run_salt()")
    return hmac.new(salt, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:SHORT_HASH_DIGITS]


def redact_text(text: str, salt: bytes) -> str:
    """A marker instead of a text: keyed hash, characters, and words split at white space. "" and markers stay as they are.

    Raises:
        ValueError: the salt is empty.
    """
    digest = keyed_hash(text, salt)
    if not text or REDACTED.fullmatch(text):
        return text
    return f"[sha256:{digest}, {len(text)} characters, {len(text.split())} words]"


def redacted_length(marker: str) -> tuple[int, int] | None:
    """Characters and words of the text that a marker stands for; None where the text is no marker."""
    found = REDACTED.fullmatch(marker)
    return (int(found[1]), int(found[2])) if found else None


def redact_prompt(prompt: SystemPrompt, salt: bytes) -> SystemPrompt:
    """A prompt with a marker for its text and without attributes, which quote it. Id, category and split stay: keep secrets out of them."""
    return replace(prompt, text=redact_text(prompt.text, salt), attributes=())


def redact_mapping(value: Any, keys: Collection[str], salt: bytes, secrets: Iterable[str] = ()) -> Any:
    """A copy of a JSON-like record without its secret texts.

    Under one of ``keys``, at any depth, every text becomes a marker and every number (an offset, a token) becomes None; ``EMPTIED_KEYS``
    become empty. Elsewhere, numbers, flags and structure stay, and so do texts, unless they share ``RUN_WORDS`` consecutive words
    with one of ``secrets`` (a secret of two words is looked for whole; one of a single word is hidden under ``keys`` only). Then no
    text and no key holds such a run, wherever it stood. A secret scattered over the texts of a list is hidden under ``keys`` only.

    Args:
        value: mappings, sequences, texts, numbers, flags and None.
        keys: whose texts are hidden; see ``SECRET_KEYS``.
        salt: of the run, see ``run_salt``.
        secrets: the private system prompts, whole.

    Raises:
        ValueError: the salt is empty.
        TypeError: the record holds something else, whose text could not be seen.
    """
    keyed_hash("", salt)  # an empty salt is refused even where there is nothing to hide
    return _redact(value, frozenset(keys), salt, _secret_runs(secrets), hidden=False)


def _redact(value: Any, keys: frozenset[str], salt: bytes, runs: frozenset[tuple[str, ...]], hidden: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return redact_text(value, salt) if hidden or _holds(value, runs) else value
    if isinstance(value, (int, float)):
        return None if hidden else value
    if isinstance(value, Mapping):
        redacted: dict[Any, Any] = {}
        for key, inner in value.items():
            # Under a hidden key the keys are the record's own field names; only what quotes a secret is hidden among them.
            name = redact_text(key, salt) if isinstance(key, str) and _holds(key, runs) else key
            if key in keys and key in EMPTIED_KEYS and inner is not None:
                redacted[name] = "[]" if isinstance(inner, str) else []  # lm_eval keeps them as JSON text
            else:
                redacted[name] = _redact(inner, keys, salt, runs, hidden or key in keys)
        return redacted
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_redact(inner, keys, salt, runs, hidden) for inner in value]
    raise TypeError(f"a record to redact holds a {type(value).__name__}; turn it into mappings, lists, texts and numbers first")


def _secret_runs(secrets: Iterable[str]) -> frozenset[tuple[str, ...]]:
    listed = [plain_words(secret) for secret in secrets]
    return frozenset(run for words in listed if len(words) >= 2 for run in word_runs(words, min(RUN_WORDS, len(words))))


def _holds(text: str, runs: frozenset[tuple[str, ...]]) -> bool:
    """Whether one of the runs stands in a text: as it is, as it reads as JSON, or in what decodes to text (base64, hex, URLs, HTML)."""
    if not runs:
        return False
    plain = _ESCAPE.sub(_unescaped, text)
    readings = {text, plain}
    if len(text) >= MINIMUM_ENCODED:
        readings |= {reading for one in {text, plain} for _, reading in all_texts(one)}
    return any(
        not runs.isdisjoint(word_runs(words, length)) for words in map(plain_words, readings) for length in (RUN_WORDS - 1, RUN_WORDS)
    )


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else " "
