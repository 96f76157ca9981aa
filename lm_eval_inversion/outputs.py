"""Raw answers -> ``Outputs``: what the inverter reads, and honest counts of what it could not read.

Example: the answer ``"Sure!\\n1: I am a baker.\\n2) I wake at four.\\n2) I wake at four."`` to a list query gives the
two lines ``"I am a baker."`` and ``"I wake at four."`` and counts one repeat.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from lm_eval_inversion.queries import QuerySet

MAX_OUTPUTS = 64  # Zhang et al. 2024: four questions of 16 lines
MAX_ANSWER_CHARACTERS = 20_000  # far beyond 64 outputs of 64 tokens; keeps a runaway answer cheap
REFUSAL_MAX_WORDS = 30  # a longer answer that starts by refusing says something about its role as well

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
_MARKER = re.compile(r"^[\s>#*_`]{0,12}(?:[\[(]?\d{1,3}[\])]?[*_`]{0,3}\s{0,2}(?:[.):\]](?!\d)|-(?=\s)|[–—])|[-*+•·‣▪](?=\s))[*_`]{0,3}\s*")
_INLINE_NUMBER = re.compile(r"(?:(?<=\s)|^)[*_]{0,2}(\d{1,3})[*_]{0,2}[.):](?=\s|[*_\"“]|[A-Za-z])")
_REFUSAL = re.compile(
    r"^(?:i(?:['’]?m| am) (?:really |very |so )?sorry|sorry|(?:my )?apologies|i apologi[sz]e|unfortunately|"
    r"i (?:really )?(?:can(?:no|['’])?t|can not|won['’]?t|must decline|(?:do not|don['’]?t) feel comfortable)|"
    r"i(?:['’]?m| am) (?:not able|unable|not allowed|not permitted|afraid (?:i|that|not)\b)|"
    r"as an ai\b(?: \w+){0,3},? i(?: can| do| won|['’]m not|['’]m unable| am not| am unable))",
    re.IGNORECASE,
)
_REFUSAL_VERB = re.compile(
    r"\b(?:can(?:no|['’])?t|can not|won['’]?t|unable|not able|decline|not allowed|not permitted|do not|don['’]t)\b", re.IGNORECASE
)
_EAGER = re.compile(r"\b(?:can(?:no|['’])?t|can not) wait\b", re.IGNORECASE)
_TERMINAL = (".", "!", "?", "…", '"', "”", "’", "'", ")", "]", "。", "！", "？", ":", ";", "*", "`")


@dataclass(frozen=True)
class OutputCounts:
    """What became of the answers. Counts add up over answers.

    Attributes:
        answers: answers received, one per query.
        requested: outputs that the queries asked for.
        lines: outputs kept (distinct, not empty), refusals among them.
        empty: answers without any text, or lines with a number and nothing else.
        refusals: kept outputs that only refuse.
        repeats: outputs dropped because an equal one came before.
        truncated: answers whose last line breaks off.
        defended: answers that a defence withheld or replaced before they were handed out.
    """

    answers: int = 0
    requested: int = 0
    lines: int = 0
    empty: int = 0
    refusals: int = 0
    repeats: int = 0
    truncated: int = 0
    defended: int = 0

    def __add__(self, other: OutputCounts) -> OutputCounts:
        return OutputCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Outputs:
    """The outputs of one model under one system prompt, in order, with their counts."""

    lines: tuple[str, ...]
    counts: OutputCounts

    @property
    def usable(self) -> int:
        """Outputs that say something: distinct, not empty, not a bare refusal."""
        return self.counts.lines - self.counts.refusals

    @property
    def coverage(self) -> float:
        """Usable outputs over requested outputs, in [0, 1]; 0 means that nothing can be scored."""
        return min(1.0, self.usable / self.counts.requested) if self.counts.requested else 0.0


def split_thinking(text: str) -> tuple[str, str]:
    """What an answer says, and what was thought for it.

    Thought are blocks between tags, wherever they stand; what comes before an end tag that was never opened, because the chat template
    opened it; and what follows a start tag that is never closed, if it begins a line or a sentence: a tag that is only talked about, in
    the middle of a sentence, cuts nothing off.
    """
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


def strip_thinking(text: str) -> str:
    """What an answer says, without what was thought for it: see ``split_thinking``."""
    return split_thinking(text)[0]


def opens_thinking(request: str) -> bool:
    """Whether a rendered request ends in a think tag: some chat templates write it for the model."""
    return _THINK_OPENED.search(request) is not None


def with_opened_thinking(request: str, answer: str) -> str:
    """An answer behind the think tag that its rendered request ends in, if it does.

    Without it an answer that is cut while the model still thinks would be read as what it said.
    """
    return f"<think>{answer}" if opens_thinking(request) else answer


def is_refusal(text: str) -> bool:
    """Whether a short text only declines: it opens with a refusal, and says that it cannot or will not."""
    text = _EAGER.sub("", text.strip())
    return len(text.split()) <= REFUSAL_MAX_WORDS and bool(_REFUSAL.match(text)) and bool(_REFUSAL_VERB.search(text))


def ends_properly(text: str) -> bool:
    """Whether a text ends as sentences do; else it probably broke off at the token limit (hosts do not always say)."""
    return text.endswith(_TERMINAL)


def split_list(text: str, limit: int = MAX_OUTPUTS) -> tuple[list[str], OutputCounts]:
    """Split a numbered or bulleted answer into its lines.

    Preamble ("Sure, here are 16 sentences:") and what follows the list after a blank line are left out; an unmarked line
    right below an item belongs to it. An answer without any marker gives its non-empty lines.

    Args:
        text: the answer, thinking already stripped.
        limit: the most lines to return.

    Returns:
        The lines, repeats dropped, and their counts (``answers`` and ``requested`` are left to the caller).
    """
    items: list[list[str]] = []
    plain: list[str] = []
    after_blank = False
    marked = False
    for line in _break_inline_lists(text).split("\n"):
        match = _MARKER.match(line)
        if match:
            items.append([line[match.end() :]])
            marked, after_blank = True, False
        elif not line.strip():
            after_blank = True
        elif not marked:
            plain.append(line)
        elif not after_blank or not "".join(items[-1]).strip():
            items[-1].append(line.strip())
            after_blank = False
    candidates = [_clean(" ".join(item)) for item in items] if marked else [_clean(line) for line in plain]
    kept: list[str] = []
    seen: set[str] = set()
    empty = repeats = 0
    for candidate in candidates:
        key = " ".join(candidate.lower().split())
        if not key:
            empty += 1
        elif key in seen:
            repeats += 1
        elif len(kept) < limit:
            seen.add(key)
            kept.append(candidate)
    truncated = int(len(candidates) > 1 and _breaks_off(candidates))
    refusals = sum(map(is_refusal, kept))
    return kept, OutputCounts(lines=len(kept), empty=empty, refusals=refusals, repeats=repeats, truncated=truncated)


def parse_outputs(answers: Sequence[str], queries: QuerySet) -> Outputs:
    """The outputs of one conversation per query.

    Args:
        answers: raw answers in the order of ``queries``; fewer are allowed when some conversations failed.
        queries: says whether an answer is a list and how many lines it was asked for.

    Raises:
        ValueError: more answers than queries.
    """
    if len(answers) > len(queries.queries):
        raise ValueError(f"{len(answers)} answers to the {len(queries.queries)} queries of {queries.name!r}; one answer per query")
    lines: list[str] = []
    seen: set[str] = set()
    counts = OutputCounts(requested=sum(query.items for query in queries.queries))
    for answer, query in zip(answers, queries.queries):
        # Cut once the reasoning is gone, which may be far longer than what was said.
        text = strip_thinking(answer)[:MAX_ANSWER_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n")
        if queries.kind == "list":
            found, found_counts = split_list(text, query.items)
        else:
            found = [text] if text else []
            truncated = int(bool(text) and not ends_properly(text))
            found_counts = OutputCounts(lines=len(found), refusals=sum(map(is_refusal, found)), truncated=truncated)
        if not found:
            found_counts += OutputCounts(empty=1)
        for line in found:
            key = " ".join(line.lower().split())
            if key in seen or len(lines) >= MAX_OUTPUTS:
                found_counts += OutputCounts(lines=-1, refusals=-int(is_refusal(line)), repeats=1)
            else:
                seen.add(key)
                lines.append(line)
        counts += found_counts + OutputCounts(answers=1)
    return Outputs(tuple(lines), counts)


def _break_inline_lists(text: str) -> str:
    """Put the items of "1: one 2: two 3: three" on lines of their own, where the numbers count up by one."""
    lines = []
    for line in text.split("\n"):
        numbers = list(_INLINE_NUMBER.finditer(line))
        cuts, expected = [], None
        for match in numbers:
            value = int(match.group(1))
            if expected is None and line[: match.start()].strip():
                break  # the line does not start with an item
            if expected is None or value == expected:
                cuts.append(match.start())
                expected = value + 1
        if len(cuts) >= 2:
            lines += [line[start:end].rstrip() for start, end in zip(cuts, [*cuts[1:], len(line)])]
        else:
            lines.append(line)
    return "\n".join(lines)


def _clean(line: str) -> str:
    line = line.strip().replace("**", "").replace("__", "").strip("`").strip()
    if len(line) > 1 and line[0] in "\"“'" and line[-1] in "\"”'":
        line = line[1:-1].strip()
    return line


def _breaks_off(candidates: Sequence[str]) -> bool:
    """Whether the last line alone lacks the final punctuation that most lines have."""
    *rest, last = candidates
    finished = sum(map(ends_properly, rest))
    return 2 * finished > len(rest) and not ends_properly(last)
