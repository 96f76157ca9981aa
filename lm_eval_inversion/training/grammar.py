"""A grammar of system prompts with many slots, for training data of wide variety.

Example of what it writes::

    Act as a lighthouse keeper. Be bone-dry. Never give medical advice; point to a doctor instead.

Every prompt is a pure function of (seed, index), so a corpus can be regenerated and extended. Words come from ``training/data``:
``banks.json`` and ``vocabulary.json`` fit anything, ``themes.json`` holds what belongs together (a harbour's roles, rules, tools and
facts). How sentences become a text is in ``training.skeletons``. One prompt in eight recombines sentences of hand-written training
prompts of one category.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from lm_eval_inversion.training.skeletons import (
    COMPANY_OPENINGS,
    DOMAIN_OPENINGS,
    ONE_LINERS,
    ROLE_OPENINGS,
    SENTENCES,
    THIRD_PERSON_OPENINGS,
    VOICES,
    WISH_OPENINGS,
    Draft,
    in_voice,
    lay_out,
)

MIN_WORDS, MAX_WORDS = 3, 250
# Share of prompts -> from, up to so many words; the benchmark's thirds, and what lies beyond them.
LENGTHS = ((0.34, 3, 20), (0.36, 21, 70), (0.26, 71, 200), (0.04, 201, 245))
MIXED_SHARE, THEMED_SHARE, OWN_THEME_SHARE = 0.12, 0.85, 0.6
KINDS = {  # of sentences -> how often
    "tone": 2.2, "format": 2.2, "limit": 1.2, "rule": 4.0, "refusal": 2.6, "fact": 2.6, "quirk": 1.4, "signoff": 0.9, "secret": 0.6,
    "tool": 1.2, "audience": 0.8, "language": 0.5, "escalation": 0.8, "address": 0.6,
}  # fmt: skip
ONCE = frozenset({"tone", "signoff", "audience", "language", "address", "limit"})  # said twice, they would contradict each other
STANDS_ALONE = re.compile(r"^(?!(?:Then|It|They|This|That|These|Those|He|She|His|Her|Their|Also|And|But|So|Or|Both|Otherwise)\b)[A-Z\"“]")
STARTS_ANEW = re.compile(r"(?:You(?:'re| are| play)|Your name|Act|Be|Play|Imagine|Role)\b")  # an assistant is introduced once
SENTENCE_END = re.compile(r"(?<!Mr\.)(?<!Mrs\.)(?<!Ms\.)(?<!Dr\.)(?<!St\.)(?<!a\.m\.)(?<!p\.m\.)(?<=[.!?])\s+")
MOST_RECOMBINED = 8  # sentences: further ones only pile up
PRONOUNS = ("She", "He", "They")


@dataclass(frozen=True)
class HandWritten:
    """A hand-written training prompt and where it stands; prompts without a category share "mixed"."""

    text: str
    source: str
    category: str = "mixed"


@dataclass(frozen=True)
class WordBanks:
    """The vocabulary.

    Attributes:
        slots: bank -> values, from ``banks.json`` and ``vocabulary.json``.
        themes: theme -> bank -> values.
        recombined: (openings, sentences) of hand-written prompts, one pair a category.
    """

    slots: dict[str, list[str]]
    themes: dict[str, dict[str, list[str]]]
    recombined: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


@dataclass(frozen=True)
class Generated:
    """A prompt of the grammar; ``source`` is "grammar" or "recombined", ``layout`` how it is written."""

    text: str
    source: str
    layout: str


def _data(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def load_banks(extra: Sequence[HandWritten] = ()) -> WordBanks:
    """The shipped word banks, and sentences of the hand-written training prompts and of ``extra``."""
    slots = json.loads(_data("banks.json"))
    for name, values in json.loads(_data("vocabulary.json")).items():
        slots[name] = list(dict.fromkeys([*slots.get(name, []), *values]))
    return WordBanks(slots, json.loads(_data("themes.json")), _recombined([*handwritten(), *extra]))


def handwritten() -> list[HandWritten]:
    """The hand-written training prompts, in file order."""
    folder = files(__package__).joinpath("data")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("handwritten"))
    return [
        HandWritten(row["text"], name.removesuffix(".jsonl"), row.get("category", "mixed"))
        for name in names
        for row in map(json.loads, filter(str.strip, _data(name).splitlines()))
    ]


def _recombined(prompts: Sequence[HandWritten]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Openings and further sentences of plain prompts, by category; sentences that lean on the one before are left out."""
    openings: dict[str, list[str]] = {}
    sentences: dict[str, list[str]] = {}
    for prompt in prompts:
        if "\n" in prompt.text or "<" in prompt.text or re.search(r"(?:^|\s)(?:1[.)]|\{)", prompt.text):
            continue
        parts = [part for part in SENTENCE_END.split(prompt.text) if _whole(part)]
        openings.setdefault(prompt.category, []).extend(part for part in parts[:1] if 4 <= len(part.split()) <= 40)
        sentences.setdefault(prompt.category, []).extend(
            part for part in parts[1:] if 3 <= len(part.split()) <= 30 and STANDS_ALONE.match(part) and not STARTS_ANEW.match(part)
        )
    return tuple(
        (tuple(openings[category]), tuple(dict.fromkeys(sentences[category])))
        for category in sorted(openings)
        if len(openings[category]) >= 4 and len(set(sentences[category])) >= 12
    )


def _whole(sentence: str) -> bool:
    """Whether no quotation was cut in two."""
    singles = len(re.findall(r"(?<!\w)'", sentence)), len(re.findall(r"'(?!\w)", sentence))
    return bool(sentence.strip()) and sentence.count('"') % 2 == 0 and singles[0] == singles[1]


def generate(banks: WordBanks, seed: int, index: int) -> Generated:
    """One system prompt of ``MIN_WORDS`` to ``MAX_WORDS`` words, and what kind it is: a pure function of the arguments."""
    rng = random.Random(f"{seed}/{index}")
    (_, fewest, most) = rng.choices(LENGTHS, weights=[share for share, _, _ in LENGTHS])[0]
    target = round(math.exp(rng.uniform(math.log(fewest), math.log(most))))
    if banks.recombined and rng.random() < MIXED_SHARE:
        return Generated(_recombine(banks, max(8, target), rng), "recombined", "prose")
    scene = _Scene(banks, rng)
    if most <= 20:
        return Generated(_short(scene, target, rng), "grammar", "one-liner")
    # Headings, tags and keys add words of their own; what grows too long is drafted again, shorter.
    while True:
        draft = _draft(scene, min(target, 240), rng)
        text, layout = lay_out(draft, target > 70, rng)
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            return Generated(text, "grammar", layout)
        target = round(0.8 * target)


class _Scene:
    """One assistant: who and where it is stays the same through a prompt; numbers and things are drawn anew each time."""

    def __init__(self, banks: WordBanks, rng: random.Random) -> None:
        self.slots, self.rng = banks.slots, rng
        self.theme = banks.themes[rng.choice(sorted(banks.themes))] if rng.random() < THEMED_SHARE else None
        self.values: dict[str, str] = {}
        org, _, kind = rng.choice(self.slots["companies"]).partition("|")
        if rng.random() < 0.75:
            org = self._org()
            kind = rng.choice(self.theme["orgs"]) if self.theme else kind
        role, role2 = self._distinct("roles")
        domain, domain2 = self._distinct("domains")
        tone, tone2 = rng.sample(self.slots["tones"], 2)
        language, language2 = rng.sample(self.slots["languages"], 2)
        self.values = {
            "name": self._name(), "role": role, "a_role": _article(role), "a_role2": _article(role2), "org": org, "org_kind": kind,
            "language": language, "language2": language2, "tone": tone, "tone2": tone2, "city": rng.choice(self.slots["cities"]),
            "address": rng.choice(self.slots["addresses"]),
        }  # fmt: skip
        self.values |= {"domain": self.fill(domain), "domain2": self.fill(domain2)}
        self.values["audience"] = self.fill(self.one_of("audiences"))
        for name in ("role", "tone", "domain"):
            self.values[name.capitalize()] = _capital(self.values[name])

    def one_of(self, bank: str) -> str:
        """A value of a bank, of the scene's theme mostly."""
        own = self.theme.get(bank, []) if self.theme else []
        return self.rng.choice(own if own and (bank not in self.slots or self.rng.random() < OWN_THEME_SHARE) else self.slots[bank])

    def fill(self, template: str) -> str:
        """A template with its slots filled."""
        return _with_articles(re.sub(r"\{(\w+)\}", lambda slot: self._value(slot[1]), template))

    def sentence(self, kind: str) -> str:
        """A sentence of a kind, in the imperative."""
        self.values["signoff"] = self.fill(self.rng.choice(self.slots["signoffs"]))
        tool, _, use = self.one_of("tools").partition("|")
        self.values |= {"tool": tool, "tool_use": self.fill(use)}
        if kind in SENTENCES:
            return _capital(self.fill(self.rng.choice(SENTENCES[kind])))
        return self.fill(self.one_of(kind + "s"))

    def _distinct(self, bank: str) -> tuple[str, str]:
        first = self.one_of(bank)
        return first, next(value for value in iter(lambda: self.one_of(bank), None) if value != first)

    def _name(self) -> str:
        rng = self.rng
        first = rng.choice(self.slots["first"] if rng.random() < 0.5 else self.slots["names"])
        draw = rng.random()
        if draw < 0.35:
            return first
        if draw < 0.65:
            return f"{first.split()[-1]} {rng.choice(self.slots['surnames'])}"
        if draw < 0.8:
            return f"{rng.choice(self.slots['titles'])} {rng.choice(self.slots['surnames'])}"
        if draw < 0.88:
            return f"{rng.choice(self.slots['titles'])} {first.split()[-1]}"
        return rng.choice(self.slots["machine_names"])

    def _org(self) -> str:
        rng = self.rng
        first, other = rng.sample(self.slots["org_first"], 2)
        draw = rng.random()
        if draw < 0.45:
            return f"{first} {rng.choice(self.slots['org_second'])}"
        if draw < 0.6:
            return f"{first} & {other}"
        if draw < 0.75:
            return f"{rng.choice(self.slots['surnames'])} {rng.choice(self.slots['org_second'])}"
        if draw < 0.85:
            return first + other.lower()
        return first

    def _value(self, slot: str) -> str:
        rng = self.rng
        if slot in self.values:
            return self.values[slot]
        if slot in _FRESH:
            return _FRESH[slot](rng)
        if slot == "thing":
            return rng.choice(self.theme["things"]) if self.theme else rng.choice(("lamp", "notebook", "bell", "umbrella", "kettle"))
        if slot == "price":
            return f"{_FRESH['number'](rng)} {rng.choice(self.slots['currencies'])}"
        bank = {"first": "first", "code": "codes", "month": "months", "day": "days", "key1": "keys", "key2": "keys"}[slot]
        return rng.choice(self.slots[bank])


_FRESH: dict[str, Callable[[random.Random], str]] = {
    "number": lambda rng: str(rng.choice((rng.randint(3, 12), rng.randint(13, 60), 5 * rng.randint(3, 18)))),
    "number2": lambda rng: str(rng.randint(20, 90)),
    "small": lambda rng: rng.choice(("two", "three", "four", "five", "2", "3", "4", "5")),
    "time": lambda rng: rng.choice(("{}:{:02}", "{}.{:02}")).format(rng.randint(6, 22), rng.choice((0, 15, 20, 30, 40, 45))),
    "time2": lambda rng: f"{rng.randint(10, 23)}:{rng.choice((0, 30, 45)):02}",
    "year": lambda rng: str(rng.randint(1320, 2087) if rng.random() < 0.3 else rng.randint(1890, 2026)),
    "phone": lambda rng: rng.choice(("{}", "0800 {}", "extension {}", "{} 44")).format(rng.randint(110, 9999)),
}
_FRESH["days"] = lambda rng: str(rng.randint(2, 30))


def _draft(scene: _Scene, target: int, rng: random.Random) -> Draft:
    """An opening and sentences of about ``target`` words together."""
    voice = rng.choices(list(VOICES), weights=list(VOICES.values()))[0]
    # An assistant that is several people, or speaks of itself by name now and then.
    subject = rng.choice((*PRONOUNS, scene.values["name"])) if voice == "third" else "You"
    openings = {"third": THIRD_PERSON_OPENINGS, "wish": WISH_OPENINGS}.get(
        voice, rng.choices((ROLE_OPENINGS, COMPANY_OPENINGS, DOMAIN_OPENINGS), weights=(5, 3, 3))[0]
    )
    opening = _capital(scene.fill(rng.choice(openings)))
    body: list[tuple[str, str]] = []
    words, seen = len(opening.split()), set[str]()
    kinds = dict(KINDS)
    while words < target and kinds:
        kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]
        sentence = in_voice(scene.sentence(kind), voice, subject)
        # Names of slots differ between fillings; the letters of what was said tell whether it was said before.
        key = re.sub(r"[\d\W]+", " ", sentence)
        length = len(sentence.split())
        if key in seen or (words + length > 1.15 * target + 3 and body):
            kinds[kind] *= 0.5
            if kinds[kind] < 0.05:
                del kinds[kind]
            continue
        seen.add(key)
        body.append((kind, sentence))
        words += length
        if kind in ONCE:
            kinds.pop(kind)
    facts = {
        "Name": scene.values["name"], "Role": _capital(scene.values["role"]), "Organisation": scene.values["org"],
        "Audience": _capital(scene.values["audience"]), "Tone": scene.values["tone"], "City": scene.values["city"],
        "Topic": _capital(scene.values["domain"]),
    }  # fmt: skip
    return Draft(opening, tuple(body), facts)


def _short(scene: _Scene, target: int, rng: random.Random) -> str:
    """One line of up to 20 words, and short sentences while there is room."""
    if target >= 8 and rng.random() < 0.5:
        text = _capital(scene.fill(rng.choice(rng.choice((ROLE_OPENINGS, COMPANY_OPENINGS, DOMAIN_OPENINGS, WISH_OPENINGS)))))
    else:
        text = _capital(scene.fill(rng.choice(ONE_LINERS)))
    for _ in range(4):
        kind = rng.choices(list(KINDS), weights=list(KINDS.values()))[0]
        longer = f"{text} {scene.sentence(kind)}"
        if len(longer.split()) <= target:
            text = longer
    if len(text.split()) < MIN_WORDS:
        text += f" {_capital(scene.values['tone'])}."
    return text if len(text.split()) >= MIN_WORDS else f"{text} Answer as such."


def _recombine(banks: WordBanks, target: int, rng: random.Random) -> str:
    """The opening of one hand-written prompt with sentences of others of its category."""
    openings, sentences = rng.choice(banks.recombined)
    parts = [rng.choice(openings)]
    for sentence in rng.sample(sentences, min(len(sentences), MOST_RECOMBINED)):
        if len(" ".join([*parts, sentence]).split()) <= target or len(parts) == 1:
            parts.append(sentence)
    if len(parts) > 4 and rng.random() < 0.2:
        return parts[0] + "\n" + "\n".join(f"- {part}" for part in parts[1:])
    return " ".join(parts)


def _article(noun_phrase: str) -> str:
    return _with_articles(f"a {noun_phrase}")


def _with_articles(text: str) -> str:
    """Turn "a oven" into "an oven"; words such as "uniform" and "European" keep their "a"."""
    return re.sub(r"\b([Aa]) (?=[AEIOUaeiou])(?!(?:[Uu]ni[^n]|[Uu]se|[Ee]u|[Oo]ne))", r"\1n ", text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
