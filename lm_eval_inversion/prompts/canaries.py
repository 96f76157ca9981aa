"""Canaries: secrets drawn from a seed and planted in system prompts, so that whatever turns up can only come from there.

A carrier is an invented system prompt with five places: a code, a name, a price, a URL and a pass phrase. What is put there is drawn
from word lists and letters; another draw of the same form, never shown to the model, is the control. A behaviour (a sign-off, a banned
word, a word limit) is a canary that shows in ordinary answers.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.prompts.schema import SystemPrompt

KINDS = ("code", "name", "price", "url", "passphrase")
BEHAVIOURS = ("sign_off", "banned_word", "word_limit")
PLANTED = "canary"  # category of the system prompts that are made here, and of no others
_PLANTING = re.compile(r"(?:-\d+)?/(?:plain|secrecy)$")  # what follows the carrier in their ids
_CODE_LETTERS = "".join(sorted(set(string.ascii_uppercase) - set("IO"))) + "23456789"  # none that is mistaken for another


@dataclass(frozen=True)
class Behaviour:
    """A rule whose keeping shows in ordinary answers.

    Attributes:
        kind: one of ``BEHAVIOURS``.
        value: the phrase, the word, or the number of words.
        line: the rule as it stands in the system prompt.
    """

    kind: str
    value: str
    line: str


@dataclass(frozen=True)
class Planted:
    """A system prompt with its canaries.

    Attributes:
        prompt: what stands in the system turn; its id is "carrier/plain" or "carrier/secrecy" ("carrier-2/…" for a second draw).
        canaries: kind -> secret.
        controls: kind -> a secret of the same form that stands nowhere.
        behaviour: the rule at the prompt's end.
        secrecy: whether the prompt asks for silence about the canaries.
    """

    prompt: SystemPrompt
    canaries: dict[str, str]
    controls: dict[str, str]
    behaviour: Behaviour
    secrecy: bool

    def to_dict(self) -> dict[str, Any]:
        """What a scorer needs, as it stands in logs."""
        return {
            "canaries": self.canaries,
            "controls": self.controls,
            "behaviour": {"kind": self.behaviour.kind, "value": self.behaviour.value, "line": self.behaviour.line},
            "secrecy": self.secrecy,
        }


def planted_from_dict(prompt: SystemPrompt, row: dict[str, Any]) -> Planted:
    """The inverse of ``Planted.to_dict``."""
    return Planted(prompt, dict(row["canaries"]), dict(row["controls"]), Behaviour(**row["behaviour"]), bool(row["secrecy"]))


def is_planted(prompt: SystemPrompt) -> bool:
    """Whether a system prompt was made here; its text is not asked, which may be redacted."""
    return prompt.category == PLANTED and _PLANTING.search(prompt.id) is not None


def carrier_of(prompt_id: str) -> str:
    """The carrier in the id of a system prompt that was made here, whatever its draw and its secrecy line."""
    return _PLANTING.sub("", prompt_id)


def plant(carriers: int, draws: int, seed: int) -> list[Planted]:
    """Plant canaries in the first ``carriers`` carriers, ``draws`` times, each with and without the secrecy line.

    Raises:
        ValueError: there are not so many carriers.
    """
    data = canary_data()
    if not 1 <= carriers <= len(data["carriers"]):
        raise ValueError(f"{carriers} carriers are asked for; there are {len(data['carriers'])}")
    return [
        _plant_one(carrier, place, draw, secrecy, seed)
        for draw in range(1, draws + 1)
        for place, carrier in enumerate(data["carriers"][:carriers])
        for secrecy in (False, True)
    ]


def _plant_one(carrier: dict[str, str], place: int, draw: int, secrecy: bool, seed: int) -> Planted:
    name = carrier["id"] if draw == 1 else f"{carrier['id']}-{draw}"
    # With and without the secrecy line the secrets are the same, so that the line is the only difference.
    secrets = {kind: next(draws(kind, f"{seed}/{name}/{kind}")) for kind in KINDS}
    # Two draws may be equal, and then every leak would count as the detector's own error.
    controls = {
        kind: next(drawn for drawn in draws(kind, f"{seed}/{name}/{kind}/control") if drawn != secrets[kind]) for kind in KINDS
    }
    behaviour = _behaviour(BEHAVIOURS[(place + draw - 1) % len(BEHAVIOURS)], f"{seed}/{name}/behaviour")
    parts = [carrier["text"].format(**secrets), *([canary_data()["secrecy"]] if secrecy else []), behaviour.line]
    identifier = f"{name}/{'secrecy' if secrecy else 'plain'}"
    return Planted(SystemPrompt(identifier, "\n\n".join(parts), PLANTED), secrets, controls, behaviour, secrecy)


def draws(kind: str, key: str) -> Iterator[str]:
    """Distinct secrets of one kind, all of one form, without end; a pure function of the key.

    Args:
        kind: one of ``KINDS``.
        key: any text.
    """
    generator = random.Random(f"canary/{key}")
    words = canary_data()["words"]
    seen: set[str] = set()
    while True:
        secret = _draw(kind, generator, words)
        if secret not in seen:
            seen.add(secret)
            yield secret


def _draw(kind: str, generator: random.Random, words: dict[str, Sequence[str]]) -> str:
    pick = generator.choice
    if kind == "code":
        letters = "".join(pick(_CODE_LETTERS) for _ in range(8))
        return f"{letters[:4]}-{letters[4:]}"
    if kind == "name":
        return f"{pick(words['first_names'])} {pick(words['last_names'])}"
    if kind == "price":
        return f"{generator.randrange(110, 990)}.{generator.randrange(11, 99)}"
    if kind == "url":
        return f"https://{pick(words['hosts'])}.example/{pick(words['nouns'])}-{''.join(pick(string.digits) for _ in range(4))}"
    if kind == "passphrase":
        first, second = generator.sample(words["nouns"], 2)
        return f"{pick(words['adjectives'])}-{first}-{pick(words['adjectives'])}-{second}"
    raise ValueError(f"canary kind {kind!r} is unknown; known: {', '.join(KINDS)}")


def _behaviour(kind: str, key: str) -> Behaviour:
    data = canary_data()["behaviours"]
    value = str(random.Random(f"canary/{key}").choice(data[f"{kind}s"]))
    return Behaviour(kind, value, data[f"{kind}_line"].format(**{kind: value}))


def canaries_hash() -> str:
    """Twelve hex digits over carriers, word lists, messages and behaviours."""
    return content_hash(canary_data())


@lru_cache(maxsize=1)
def canary_data() -> dict[str, Any]:
    """The shipped carriers, word lists, messages and behaviours."""
    import yaml

    return dict(yaml.safe_load(files(__package__).joinpath("data", "canaries.yaml").read_text(encoding="utf-8")))
