"""What a model thinks and what it says: its thoughts are split off its answers, however its family marks them.

Example: ``"<think>They want my rules.</think>I only bake."`` says ``"I only bake."``, and ``"They want my rules."`` was thought for it.
"""

from __future__ import annotations

import re
from os.path import commonprefix

# How models mark what they think: <think> (DeepSeek, Qwen, ...), [THINK] (Magistral), <seed:think>, <thought>, ◁think▷ (Kimi),
# <|START_THINKING|> (Command A), and the channels of gpt-oss.
_THINK_START = (
    r"(?i:<(?:seed:)?think(?:ing)?>|<thought>)|\[THINK\]|◁think▷|<\|START_THINKING\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^\n]{0,80}?<\|message\|>"
)
_THINK_END = (
    r"(?i:</(?:seed:)?think(?:ing)?>|</thought>)|\[/THINK\]|◁/think▷|<\|END_THINKING\|>"
    r"|<\|channel\|>final[^\n]{0,80}?<\|message\|>"
)
_THINK_TAG = re.compile(f"(?P<start>{_THINK_START})|(?P<end>{_THINK_END})")
_THINK_OPENED = re.compile(rf"(?:{_THINK_START})\s*\Z")
# gpt-oss where the host has dropped its special tokens: nothing else begins so.
_BARE_ANALYSIS, _BARE_FINAL = re.compile(r"\s*analysis(?=[A-Z])"), "assistantfinal"
# Where a model begins to think: at the start of a line, perhaps behind invisible characters, special tokens or its role, or of a sentence.
_NOTHING = r"(?:[\s\ufeff\u200b]|<[^<>\s]{1,30}>|(?i:assistant|ai|model)\s?:)*"
_THINKING_BEGINS = re.compile(rf"(?:\A|\n|[.!?:…][\"')\]]?\s){_NOTHING}\Z")
_SAID_NOTHING = re.compile(_NOTHING)
QUOTED_LETTERS = 24  # around a tag that equal those around one of the system prompt's: then it is quoted, and marks no thought
_QUOTE_REACH = 160  # characters around a tag that are looked at
_LINE_ESCAPE = re.compile(r"\\[nrt]")  # of a quote in JSON
_UNMARKED = "\ufdd0"  # a noncharacter: stands in no text, and parts the characters of a tag so that it is read as none


def split_thinking(text: str, prompt: str = "") -> tuple[str, str]:
    """What an answer says, and what was thought for it.

    Thought are blocks between tags, wherever they stand; what comes before an end tag that was never opened, because the chat template
    opened it; and what follows a start tag that is never closed, if it begins a line or a sentence: a tag that is only talked about, in
    the middle of a sentence, cuts nothing off. Nor do tags that are quoted from the system prompt, which may hold some itself.

    Args:
        text: the answer.
        prompt: the system prompt that it was made under, where that is known.
    """
    if prompt and (known := _tag_surroundings(prompt)):
        answer, reasoning = split_thinking(_unmark_quoted_tags(text, known))
        return answer.replace(_UNMARKED, ""), reasoning.replace(_UNMARKED, "")
    if bare := _BARE_ANALYSIS.match(text):
        text = "<think>" + text[bare.end() :].replace(_BARE_FINAL, "</think>", 1)
    tags = list(_THINK_TAG.finditer(text))
    last_end = max((tag.start() for tag in tags if tag["end"]), default=-1)
    said: list[str] = []
    thought: list[str] = []
    place, opened = 0, False
    for tag in tags:
        if tag["start"] and not opened:
            if tag.start() > last_end and not _THINKING_BEGINS.search(text, max(0, tag.start() - 80), tag.start()):
                continue
            said.append(text[place : tag.start()])
            place, opened = tag.end(), True
        elif tag["end"]:
            thought += [text[place : tag.start()]] if opened else [*said, text[place : tag.start()]]
            said = said if opened else []
            place, opened = tag.end(), False
    (thought if opened else said).append(text[place:])
    answer = "".join(said)
    # What stood around a block may join to an end tag.
    if ends := [tag for tag in _THINK_TAG.finditer(answer) if tag["end"]]:
        thought.append(answer[: ends[-1].start()])
        answer = answer[ends[-1].end() :]
    if thought and _SAID_NOTHING.fullmatch(answer):
        answer = ""
    return answer.strip(), " ".join(part.strip() for part in thought if part.strip())


def strip_thinking(text: str, prompt: str = "") -> str:
    """What an answer says, without what was thought for it: see ``split_thinking``."""
    return split_thinking(text, prompt)[0]


def _unmark_quoted_tags(text: str, known: set[tuple[str, str, str]]) -> str:
    """The text, its tags that are quoted from a system prompt made unreadable by ``_UNMARKED``.

    Args:
        known: ``_tag_surroundings`` of the system prompt.
    """

    def unmarked(tag: re.Match[str]) -> str:
        sign, before, after = _surroundings(tag)
        quoted = any(
            sign == name and _common_start(before[::-1], first[::-1]) + _common_start(after, last) >= min(QUOTED_LETTERS, len(first + last))
            for name, first, last in known
        )
        return _UNMARKED.join(tag.group()) if quoted else tag.group()

    return _THINK_TAG.sub(unmarked, text)


def _tag_surroundings(prompt: str) -> set[tuple[str, str, str]]:
    """``_surroundings`` of every think tag in a system prompt; empty for most."""
    return {_surroundings(tag) for tag in _THINK_TAG.finditer(prompt)}


def _surroundings(tag: re.Match[str]) -> tuple[str, str, str]:
    """(the tag, the last letters before it, the first letters behind it), without what a quote adds: quotation and list signs, numbers."""
    text = tag.string
    before, after = text[max(0, tag.start() - _QUOTE_REACH) : tag.start()], text[tag.end() : tag.end() + _QUOTE_REACH]
    return tag.group().lower(), _letters(before)[-QUOTED_LETTERS:], _letters(after)[:QUOTED_LETTERS]


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, _LINE_ESCAPE.sub(" ", text).lower()))


def _common_start(one: str, other: str) -> int:
    return len(commonprefix((one, other)))


def opens_thinking(request: str) -> bool:
    """Whether a rendered request ends in a think tag: some chat templates write it for the model."""
    return _THINK_OPENED.search(request) is not None


def with_opened_thinking(request: str, answer: str) -> str:
    """An answer behind the think tag that its rendered request ends in, if it does.

    Without it an answer that is cut while the model still thinks would be read as what it said.
    """
    return f"<think>{answer}" if opens_thinking(request) else answer
