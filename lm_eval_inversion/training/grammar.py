"""A grammar of system prompts with many slots, for training data of wide variety.

Example of what it writes::

    Act as a lighthouse keeper. Be bone-dry. Never give medical advice; point to a doctor instead.

Every prompt is a pure function of (seed, index), so a corpus can be regenerated and extended. The words come from
``training/data/banks.json``; about a third of the prompts recombine sentences of the hand-written training prompts.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

MAX_WORDS = 140

ROLE_OPENINGS = (
    "You are {a_role}.",
    "You are {name}, {a_role}.",
    "You are {name}, {a_role} at {company}.",
    "You're {a_role} for {audience}.",
    "Act as {a_role}.",
    "Act as {name}, {a_role}.",
    "Your job is to be {a_role}.",
    "Role: {role}.",
    "Take the role of {a_role} named {name}.",
    "This assistant is {a_role}.",
    "{name} is {a_role}. Answer every message as {name}.",
    "Please behave like {a_role}.",
    "From now on you are {name}, {a_role}.",
    "Imagine you are {a_role} who knows everything about {domain}.",
    "Your name is {name} and you work as {a_role}.",
    "Speak as {a_role}.",
    "Persona: {name}, {role}.",
)
COMPANY_OPENINGS = (
    "You answer customer questions for {company}, {business}.",
    "You are the support assistant of {company}, {business}.",
    "You are {name}, the virtual assistant of {company}, {business}.",
    "{company} is {business}. Help its customers.",
    "You work at the front desk of {company}, {business}.",
    "Customer service bot for {company} ({business}).",
    "Welcome visitors of {company}, {business}, and help them choose.",
)
DOMAIN_OPENINGS = (
    "You help {audience} with {domain}.",
    "You teach {domain} to {audience}.",
    "Answer questions about {domain} only.",
    "You are an expert in {domain}.",
    "Explain {domain} to {audience}.",
    "Topic: {domain}. Audience: {audience}.",
    "Help users who struggle with {domain}.",
    "You translate everything the user writes into {language}.",
    "You are a {language} conversation partner for {audience}.",
)
TONE_SENTENCES = (
    "Be {tone}.",
    "Your tone is {tone}.",
    "Keep your answers {tone}.",
    "Always sound {tone}.",
    "Tone: {tone}.",
    "Speak in a way that is {tone}.",
)
SIGNOFF_SENTENCES = (
    'End every answer with "{signoff}".',
    'Sign off with "{signoff}".',
    'Close each reply by saying "{signoff}"',
)
TOOL_SENTENCES = (
    "Call {tool} when {tool_use}.",
    "You have a tool named {tool}; use it when {tool_use}.",
    "When {tool_use}, use `{tool}` first.",
)
AUDIENCE_SENTENCES = ("Your users are {audience}.", "You talk to {audience}.", "Write for {audience}.")
LANGUAGE_SENTENCES = ("Answer in {language}.", "If the user writes in {language}, answer in {language}.")
LIST_HEADINGS = ("Rules:", "Guidelines:", "Remember:", "Instructions:", "Please follow these rules:")


@dataclass(frozen=True)
class WordBanks:
    """The vocabulary: slot name -> values; ``sentences``: what hand-written prompts say after their opening."""

    slots: dict[str, list[str]]
    openings: list[str]
    sentences: list[str]


def load_banks() -> WordBanks:
    """The shipped word banks and the sentences of the hand-written training prompts."""
    slots = json.loads(files(__package__).joinpath("data", "banks.json").read_text(encoding="utf-8"))
    openings, sentences = [], []
    for text in handwritten_prompts():
        parts = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]
        openings += [part for part in parts[:1] if 4 <= len(part.split()) <= 30]
        sentences += [part for part in parts[1:] if 4 <= len(part.split()) <= 30]
    return WordBanks(slots, openings, sentences)


def handwritten_prompts() -> list[str]:
    """The hand-written training prompts, in file order."""
    folder = files(__package__).joinpath("data")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("handwritten"))
    lines = [line for name in names for line in folder.joinpath(name).read_text(encoding="utf-8").splitlines()]
    return [json.loads(line)["text"] for line in lines if line.strip()]


def _article(noun_phrase: str) -> str:
    return ("an " if noun_phrase[:1].lower() in "aeiou" else "a ") + noun_phrase


def generate_prompt(banks: WordBanks, seed: int, index: int) -> str:
    """One system prompt, 3 to ``MAX_WORDS`` words, a pure function of its arguments."""
    rng = random.Random(f"{seed}/{index}")
    company, _, business = rng.choice(banks.slots["companies"]).partition("|")
    tool, _, tool_use = rng.choice(banks.slots["tools"]).partition("|")
    role = rng.choice(banks.slots["roles"])
    values = {
        "name": rng.choice(banks.slots["names"]),
        "role": role,
        "a_role": _article(role),
        "company": company,
        "business": business,
        "domain": rng.choice(banks.slots["domains"]),
        "audience": rng.choice(banks.slots["audiences"]),
        "tone": rng.choice(banks.slots["tones"]),
        "signoff": rng.choice(banks.slots["signoffs"]),
        "language": rng.choice(banks.slots["languages"]),
        "tool": tool,
        "tool_use": tool_use,
    }

    def fill(templates: tuple[str, ...]) -> str:
        sentence = rng.choice(templates).format(**values)
        return sentence[0].upper() + sentence[1:]

    def sentence_from(slot: str) -> str:
        return rng.choice(banks.slots[slot])

    kind = rng.random()
    if banks.openings and kind < 0.2:
        opening = rng.choice(banks.openings)
    elif kind < 0.65:
        opening = fill(ROLE_OPENINGS)
    elif kind < 0.85:
        opening = fill(COMPANY_OPENINGS)
    else:
        opening = fill(DOMAIN_OPENINGS)
    writers: list[tuple[float, Callable[[], str]]] = [
        (3.0, lambda: fill(TONE_SENTENCES)),
        (2.5, lambda: sentence_from("formats")),
        (2.5, lambda: sentence_from("rules")),
        (2.0, lambda: sentence_from("refusals")),
        (1.5, lambda: sentence_from("facts")),
        (1.5, lambda: sentence_from("quirks")),
        (1.0, lambda: fill(SIGNOFF_SENTENCES)),
        (0.6, lambda: sentence_from("secrets")),
        (0.6, lambda: fill(TOOL_SENTENCES)),
        (0.8, lambda: fill(AUDIENCE_SENTENCES)),
        (0.4, lambda: fill(LANGUAGE_SENTENCES)),
        (3.0 if banks.sentences else 0.0, lambda: rng.choice(banks.sentences)),
    ]
    wanted = rng.choices((0, 1, 2, 3, 4, 6, 8), weights=(14, 26, 24, 16, 10, 6, 4))[0]
    body: list[str] = []
    for writer in rng.choices([w for _, w in writers], weights=[weight for weight, _ in writers], k=wanted):
        sentence = writer()
        if sentence not in body and len(" ".join([opening, *body, sentence]).split()) <= MAX_WORDS:
            body.append(sentence)
    style = rng.random()
    if len(body) >= 2 and style < 0.12:
        return f"{opening}\n{rng.choice(LIST_HEADINGS)}\n" + "\n".join(f"- {sentence}" for sentence in body)
    if len(body) >= 2 and style < 0.2:
        return f"{opening}\n" + "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(body, 1))
    if style < 0.28:
        return "\n".join([opening, *body])
    return " ".join([opening, *body])
