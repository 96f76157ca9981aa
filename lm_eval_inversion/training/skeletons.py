"""Skeletons of system prompts: how they open, what sentences they consist of, and the layouts that they are written in.

A sentence stands here in the imperative ("Never guess."), with slots in braces; ``in_voice`` turns it into what other authors write ("You
never guess.", "She never guesses.", "Please never guess."). A layout puts an opening and sentences of several kinds into one text.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

# One line, everything said: templates of short prompts.
ONE_LINERS = (
    "{Role} for {audience}.",
    "You are {a_role}.",
    "You are {name}, {a_role}.",
    "{Tone} {role}.",
    "{Role}, {tone}.",
    "Act as {a_role} for {audience}.",
    "Be {a_role} called {name}.",
    "Help {audience} with {domain}.",
    "Teach {domain} to {audience}.",
    "Explain {domain} as {a_role} would.",
    "Answer only questions about {domain}.",
    "Translate every message into {language}.",
    "Translate from {language} to {language2}. Nothing else.",
    "Speak {language} only.",
    "{name}. {Role}. {Tone}.",
    "{Role} at {org}.",
    "{Role} at {org}, {org_kind}.",
    "Front desk of {org}, {org_kind} in {city}.",
    "Chatbot of {org} ({org_kind}).",
    "Assistant for {audience} at {org}.",
    "{Domain}: explain it to {audience}.",
    "{Domain} coach. {Tone}.",
    "You know everything about {domain} and nothing else.",
    "Pretend to be {a_role} in {year}.",
    "Reply as {a_role} from {city}.",
    "Talk like {a_role}.",
    "A {thing} that can talk. {Tone}.",
    "You're a {thing} in {city}.",
    "You are {name} from {city}.",
    "{name}, {role} in {city}, answers.",
    "This is the help line of {org}.",
    "Support for {org}: {domain}, {domain2}.",
    "Write about {domain} for {audience}.",
    "Summarise messages for {audience}.",
    "Classify each message as {key1}, {key2} or other.",
    "Extract {key1} and {key2} as JSON.",
    "Turn every message into a {thing} joke.",
    "Answer every question with a story about a {thing}.",
    "Your name is {name}. You are {tone}.",
    "Play {a_role} who is {tone}.",
    "I need {a_role}.",
    "Imagine that you are {a_role} on a {day} morning.",
    "Rewrite what I send so that {audience} understand it.",
    "Quiz {audience} on {domain}.",
    "Give tips on {domain}, one at a time.",
    "Correct my {language}.",
    "Teach me {language} with a {thing}.",
)
ROLE_OPENINGS = (
    "You are {a_role}.",
    "You are {name}, {a_role}.",
    "You are {name}, {a_role} at {org}, {org_kind}.",
    "You are {name}, {a_role} in {city}.",
    "You're {a_role} for {audience}.",
    "Act as {a_role}.",
    "Act as {name}, {a_role} from {city}.",
    "Your job is to be {a_role}.",
    "Role: {role}.",
    "Take the role of {a_role} named {name}.",
    "This assistant is {a_role}.",
    "Please behave like {a_role}.",
    "From now on you are {name}, {a_role}.",
    "Imagine you are {a_role} who knows everything about {domain}.",
    "Your name is {name} and you work as {a_role}.",
    "Speak as {a_role} would, in {year}.",
    "Persona: {name}, {role}.",
    "In this conversation you play {name}, {a_role} who is {tone}.",
    "You have been {a_role} for {number} years.",
    "You are {a_role}, {tone}, with an interest in {domain}.",
    "Forget that you are software: you are {name}, {a_role}.",
    "The user has just walked in. You are {a_role}.",
    "You are not a chatbot. You are {name}, {a_role} in {city}.",
    "Respond as {a_role} who talks to {audience}.",
    "{name} here: you write my answers. I am {a_role}.",
    "A {role} and a {thing}: that is all there is in this scene, and you are the first.",
    "You are two people in one: {a_role} and {a_role2}.",
    "You used to be {a_role2}; now you are {a_role}.",
)
COMPANY_OPENINGS = (
    "You answer customer questions for {org}, {org_kind}.",
    "You are the support assistant of {org}, {org_kind} in {city}.",
    "You are {name}, the virtual assistant of {org}, {org_kind}.",
    "{org} is {org_kind}. Help its customers.",
    "You work at the front desk of {org}, {org_kind}.",
    "Customer service bot for {org} ({org_kind}).",
    "Welcome visitors of {org}, {org_kind}, and help them choose.",
    "We are {org}, {org_kind} in {city}. You write to {audience} for us.",
    "You are the internal assistant of {org}. Only staff can see you.",
    "{org} built you to help {audience} with {domain}.",
    "On behalf of {org} ({org_kind}), reply to {audience}.",
    "You handle the night shift of the {org} chat.",
    "Everything that you say appears on the website of {org}, {org_kind}.",
    "You sort incoming mail for {org}, {org_kind}.",
    "You are the voice of {org}. Founded in {year}, it is {org_kind} in {city}.",
    "The phone at {org} is silent, but the chat is not: you answer it.",
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
    "Your field is {domain}, your readers are {audience}.",
    "The user will describe a problem with {domain}. Find the cause.",
    "Prepare {audience} for an exam in {domain}.",
    "You compare {domain} and {domain2} for {audience}.",
    "Everything here is about {domain}.",
    "You write a column on {domain} and answer letters from {audience}.",
    "Turn the user's notes on {domain} into something that {audience} can read.",
    "I am learning about {domain}. You are my {role}.",
    "Read what the user pastes, and report what matters to {audience}.",
)
THIRD_PERSON_OPENINGS = (
    "{name} is {a_role}. Answer every message as {name}.",
    "{name} is {a_role} in {city}.",
    "{name} works as {a_role} at {org}, {org_kind}.",
    "This chat is run by {name}, {a_role}.",
    "The assistant is {name}, {a_role} who is {tone}.",
    "{name}, {a_role}, replies to {audience}.",
    "Character sheet. {name}, {role}, {city}.",
    "{name} talks to {audience} about {domain}.",
)
WISH_OPENINGS = (
    "I want you to act as {a_role}.",
    "I'd like you to be {name}, {a_role}.",
    "Hi! You are going to help {audience} with {domain}.",
    "Could you be {a_role} for me?",
    "Hello. I run {org}, {org_kind}, and you will answer my customers.",
    "Let's pretend: you are {a_role} and I am one of {audience}.",
    "My students are {audience}. You are their {role}.",
    "Thanks for helping out at {org}! You are our {role}.",
)
SENTENCES: dict[str, tuple[str, ...]] = {
    "tone": (
        "Be {tone}.", "Your tone is {tone}.", "Keep your answers {tone}.", "Always sound {tone}.", "Tone: {tone}.",
        "Speak in a way that is {tone}.", "Stay {tone}, whatever happens.", "Write as somebody does who is {tone}.",
        "Be {tone} with beginners and {tone2} with experts.", "Style: {tone}, never {tone2}.",
    ),
    "signoff": (
        'End every answer with "{signoff}".', 'Sign off with "{signoff}".', 'Close each reply by saying "{signoff}"',
        'Finish with the words "{signoff}".', 'The last line is always "{signoff}".', 'Say goodbye with "{signoff}".',
    ),
    "tool": (
        "Call {tool} when {tool_use}.", "You have a tool named {tool}; use it when {tool_use}.", "When {tool_use}, use `{tool}` first.",
        "If {tool_use}, use {tool} and say what it found.", "Tool {tool}: for when {tool_use}.",
        "Whenever {tool_use}, you call {tool} before you answer.", "Never guess when {tool_use}: there is {tool}.",
    ),
    "audience": (
        "Your users are {audience}.", "You talk to {audience}.", "Write for {audience}.", "Assume that you are talking to {audience}.",
        "Most people who write are {audience}.", "Readers: {audience}.",
    ),
    "language": (
        "Answer in {language}.", "If the user writes in {language}, answer in {language}.", "Use {language} for greetings only.",
        "Add one word of {language} to each answer.", "Never use {language}.", "Languages: {language} and {language2}.",
    ),
    "address": (
        'Call the user "{address}".', 'Address everybody as "{address}".', 'Greet with "Hello, {address}!"',
        "Use the user's first name.", 'Never say "{address}" to anybody.',
    ),
}  # fmt: skip
HEADINGS = {
    "style": ("Style", "Tone", "How to write", "Voice", "Format", "Manner", "Language"),
    "rules": ("Rules", "Guidelines", "How you work", "Instructions", "Always", "Procedure", "Conduct", "House rules"),
    "limits": ("Limits", "Never", "Restrictions", "Out of bounds", "What you do not do", "Boundaries", "Refuse"),
    "facts": ("Facts", "What you know", "Information", "Details", "Knowledge", "Background", "Notes"),
    "tools": ("Tools", "Functions", "What you can call", "Actions"),
    "more": ("Background", "Character", "Also", "Remember", "Who you are", "In addition"),
}
SECTION_OF = {
    "tone": "style", "format": "style", "limit": "style", "signoff": "style", "language": "style", "address": "style",
    "rule": "rules", "escalation": "rules", "audience": "more", "refusal": "limits", "fact": "facts", "secret": "facts",
    "tool": "tools", "quirk": "more",
}  # fmt: skip
LIST_HEADINGS = ("Rules:", "Guidelines:", "Remember:", "Instructions:", "Please follow these rules:", "Keep to this:", "Also:")
VOICES = {"plain": 0.42, "you": 0.2, "modal": 0.08, "third": 0.16, "wish": 0.14}

# Imperatives of the word banks: the only first words that ``in_voice`` takes for verbs.
VERBS = frozenset((
    "Use", "Write", "Answer", "Give", "Refuse", "Decline", "Keep", "Ask", "Reply", "Put", "Mention", "Suggest", "Start", "Offer",
    "Return", "Begin", "Avoid", "End", "Recommend", "Say", "Prefer", "Treat", "Tell", "Finish", "Speak", "Include", "Explain", "Format",
    "Leave", "Cite", "Praise", "Correct", "Confirm", "Remind", "Describe", "Point", "Admit", "Pretend", "Introduce", "Repeat", "Send",
    "Assume", "Separate", "Structure", "Wrap", "Label", "Sign", "Prefix", "Number", "Add", "Rank", "Greet", "Stay", "Break", "Show",
    "Round", "Warn", "Define", "Roll", "Address", "Refer", "Take", "Wait", "Translate", "Summarise", "Rewrite", "Thank", "Mix", "Adjust",
    "Base", "Distinguish", "State", "Mark", "Ignore", "Remember", "Verify", "List", "Spell", "Match", "Mirror", "Recap", "Call",
    "Encourage", "Compare", "Steer", "Quote", "Escalate", "Check", "Rate", "Name", "Count", "Celebrate", "Draw", "Choose", "Measure",
    "Report", "Note", "Estimate", "Laugh", "Try", "Apologise", "Open", "Cut", "Listen", "Copy", "Sort", "Turn", "Wipe", "Close", "Be",
))  # fmt: skip
ADVERBS = frozenset({"never", "always", "secretly", "often", "still", "also"})
UNCHANGED = frozenset({"once", "used", "cannot", "were", "learned", "did", "grew"})


def in_voice(sentence: str, voice: str, subject: str = "You") -> str:
    """An imperative sentence in another voice; sentences of other forms stay as they are.

    Args:
        sentence: "Never guess."
        voice: "plain", "you", "modal", "third" or "wish".
        subject: of the third person ("She", "They", a name).
    """
    if voice == "third" and re.search(r"\b(?:you|you're)\b", sentence[3:]):
        return sentence
    if voice == "third" and sentence.startswith("You "):
        return _quirk_in_third_person(sentence, subject)
    first, _, rest = sentence.partition(" ")
    negated = sentence.startswith("Do not ")
    if not (negated or first in VERBS or (first in ("Never", "Always") and rest.split(" ")[0].capitalize() in VERBS)):
        return sentence
    if voice == "plain":
        return sentence
    if voice == "wish":
        return f"Please {first.lower()} {rest}"
    if voice == "modal":
        if negated:
            return f"You must not {sentence[len('Do not ') :]}"
        return f"You must {first.lower()} {rest}" if first in ("Never", "Always") else f"You should {first.lower()} {rest}"
    plural = voice == "you" or subject == "They"
    who = "You" if voice == "you" else subject
    if voice == "third":
        rest = _own(rest, subject)
    if negated:
        return f"{who} {'do' if plural else 'does'} {rest}"
    if first in ("Never", "Always"):
        verb, _, rest = rest.partition(" ")
        return f"{who} {first.lower()} {conjugated(verb, plural)} {rest}"
    return f"{who} {conjugated(first.lower(), plural)} {rest}"


def conjugated(verb: str, plural: bool) -> str:
    """The present tense of a verb after "they" or "you" (plural), or after "she"."""
    word, tail = re.fullmatch(r"([\w-]*)(.*)", verb, re.DOTALL).groups()  # type: ignore[union-attr]
    irregular = {"be": ("are", "is"), "are": ("are", "is"), "have": ("have", "has"), "do": ("do", "does"), "were": ("were", "was")}
    if word in irregular:
        return irregular[word][0 if plural else 1] + tail
    if plural or word in UNCHANGED:
        return verb
    if word.endswith(("s", "sh", "ch", "x", "z", "o")):
        return f"{word}es{tail}"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies{tail}"
    return f"{word}s{tail}"


def _own(text: str, subject: str) -> str:
    mine = {"She": ("her", "herself"), "He": ("his", "himself"), "They": ("their", "themselves")}.get(subject, ("its", "itself"))
    return re.sub(r"\byour\b", mine[0], re.sub(r"\byourself\b", mine[1], text))


def _quirk_in_third_person(sentence: str, subject: str) -> str:
    verb, _, rest = sentence.removeprefix("You ").partition(" ")
    adverb = ""
    if verb in ADVERBS:
        adverb = f"{verb} "
        verb, _, rest = rest.partition(" ")
    if verb in UNCHANGED - {"were"}:
        return f"{subject} {adverb}{verb} {_own(rest, subject)}".rstrip()
    return f"{subject} {adverb}{conjugated(verb, subject == 'They')} {_own(rest, subject)}".rstrip()


@dataclass(frozen=True)
class Draft:
    """A prompt before it is laid out.

    Attributes:
        opening: the first sentence or two.
        body: (kind, sentence), in order.
        facts: what a form would ask for: name, role, organisation, audience and so on.
    """

    opening: str
    body: tuple[tuple[str, str], ...]
    facts: dict[str, str]

    def sections(self) -> dict[str, list[str]]:
        """The sentences by section, in the order in which sections first occur."""
        found: dict[str, list[str]] = {}
        for kind, sentence in self.body:
            found.setdefault(SECTION_OF[kind], []).append(sentence)
        return found


def _sentences(draft: Draft) -> list[str]:
    return [sentence for _, sentence in draft.body]


def prose(draft: Draft, rng: random.Random) -> str:
    """One paragraph; long ones are broken up now and then."""
    parts = [draft.opening, *_sentences(draft)]
    if len(parts) > 6 and rng.random() < 0.5:
        cut = rng.randint(2, len(parts) - 2)
        return " ".join(parts[:cut]) + "\n\n" + " ".join(parts[cut:])
    return " ".join(parts)


def lines(draft: Draft, rng: random.Random) -> str:
    """A sentence a line."""
    return "\n".join([draft.opening, *_sentences(draft)])


def bullets(draft: Draft, rng: random.Random) -> str:
    """An opening, a heading, a list."""
    mark = rng.choice(("- ", "* ", "• ", "– "))
    return f"{draft.opening}\n{rng.choice(LIST_HEADINGS)}\n" + "\n".join(mark + sentence for sentence in _sentences(draft))


def numbered(draft: Draft, rng: random.Random) -> str:
    """An opening and numbered rules, in lines or in one paragraph."""
    mark = rng.choice(("{}. ", "{}) ", "({}) ", "Rule {}: ", "#{} "))
    joint = " " if rng.random() < 0.2 else "\n"
    return draft.opening + joint + joint.join(mark.format(number) + text for number, text in enumerate(_sentences(draft), 1))


def markdown(draft: Draft, rng: random.Random) -> str:
    """Headings and lists."""
    level = rng.choice(("# ", "## ", "### "))
    first = level + rng.choice(("Role", "You", "Task", draft.facts["Role"], draft.facts["Name"])) + "\n" if rng.random() < 0.7 else ""
    mark = rng.choice(("- ", "* ", ""))
    parts = [
        f"{level}{rng.choice(HEADINGS[section])}\n" + "\n".join(mark + sentence for sentence in found)
        for section, found in draft.sections().items()
    ]
    return rng.choice(("\n\n", "\n")).join([first + draft.opening, *parts])


def xml(draft: Draft, rng: random.Random) -> str:
    """Tags around the sections."""
    nested = rng.random() < 0.4
    parts = [f"<role>{draft.opening}</role>"]
    for section, found in draft.sections().items():
        tag = rng.choice(HEADINGS[section]).lower().replace(" ", "_")
        inner = "\n".join(f"  <item>{sentence}</item>" for sentence in found) if nested else "\n".join(found)
        parts.append(f"<{tag}>\n{inner}\n</{tag}>" if nested or len(found) > 1 else f"<{tag}>{inner}</{tag}>")
    text = "\n".join(parts)
    return f"<{outer}>\n{text}\n</{outer}>" if (outer := rng.choice(("", "", "agent", "system", "instructions"))) else text


def form(draft: Draft, rng: random.Random) -> str:
    """``key: value`` lines, then the sentences by section."""
    upper = rng.random() < 0.25
    keys = [key for key in draft.facts if rng.random() < 0.6] or ["Role"]
    parts = [f"{key.upper() if upper else key}: {draft.facts[key]}" for key in keys]
    for section, found in draft.sections().items():
        heading = rng.choice(HEADINGS[section])
        parts.append(f"{heading.upper() if upper else heading}: " + " ".join(found))
    return "\n".join(parts)


def json_like(draft: Draft, rng: random.Random) -> str:
    """A JSON object, indented or in one line."""
    data: dict[str, str | list[str]] = {"role": draft.opening}
    data |= {key.lower(): draft.facts[key] for key in draft.facts if key != "Role" and rng.random() < 0.4}
    data.update(draft.sections())
    return json.dumps(data, ensure_ascii=False, indent=rng.choice((None, 1, 2)))


def capitals(draft: Draft, rng: random.Random) -> str:
    """Headings in capitals before each section, all in running text."""
    parts = [f"{rng.choice(HEADINGS[section]).upper()}: {' '.join(found)}" for section, found in draft.sections().items()]
    return rng.choice(("\n", " ", "\n\n")).join([draft.opening, *parts])


def fenced(draft: Draft, rng: random.Random) -> str:
    """Rules between two lines of signs, the opening before or after them."""
    fence = rng.choice(("---", "###", '"""', "=====", "***"))
    body = f"{fence}\n" + "\n".join(_sentences(draft)) + f"\n{fence}"
    return f"{draft.opening}\n{body}" if rng.random() < 0.7 else f"{body}\n{draft.opening}"


def backwards(draft: Draft, rng: random.Random) -> str:
    """The role at the end, as an afterthought."""
    return " ".join([*_sentences(draft), draft.opening])


Layout = Callable[[Draft, random.Random], str]
LAYOUTS: dict[str, tuple[Layout, float, float]] = {  # name -> (how, weight for medium texts, weight for long ones)
    "prose": (prose, 10, 6),
    "lines": (lines, 1.5, 1.5),
    "bullets": (bullets, 1.5, 2),
    "numbered": (numbered, 1.5, 2),
    "markdown": (markdown, 1.2, 3.5),
    "xml": (xml, 0.8, 2),
    "form": (form, 1, 1.5),
    "json": (json_like, 0.6, 1),
    "capitals": (capitals, 0.6, 1),
    "fenced": (fenced, 0.5, 0.7),
    "backwards": (backwards, 0.8, 0.4),
}


def lay_out(draft: Draft, long: bool, rng: random.Random) -> tuple[str, str]:
    """The text of a draft, and the name of its layout; a draft of fewer than two sentences is prose."""
    if len(draft.body) < 2:
        return prose(draft, rng), "prose"
    weights = [for_long if long else for_medium for _, for_medium, for_long in LAYOUTS.values()]
    name = rng.choices(list(LAYOUTS), weights=weights)[0]
    return LAYOUTS[name][0](draft, rng), name
