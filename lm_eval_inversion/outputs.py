"""Raw answers -> ``Outputs``: what the inverter reads, and honest counts of what it could not read.

Example: the answer ``"Sure!\\n1: I am a baker.\\n2) I wake at four.\\n2) I wake at four."`` to a list query gives the
two lines ``"I am a baker."`` and ``"I wake at four."`` and counts one repeat.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields

from lm_eval_inversion.characters import WRAPPING
from lm_eval_inversion.model_refusals import is_refusal
from lm_eval_inversion.queries import QuerySet
from lm_eval_inversion.thinking import strip_thinking

MAX_OUTPUTS = 64  # Zhang et al. 2024: four questions of 16 lines
MAX_ANSWER_CHARACTERS = 20_000  # far beyond 64 outputs of 64 tokens; keeps a runaway answer cheap
MOST_REMARKS = 1  # lines below a single item that may go on with it, or close the answer; more are items without numbers
_OPENING_QUOTE, _CLOSING_QUOTE = "[\"“„«'‘]", "[\"”“»'’]"
# "Line 1: I bake." or "No.1: I bake.": what the queries ask for, and other names of a line.
_LABEL = r"(?i:(?:line|sentence|item|point|statement|question|scenario|example|comparison|number)\s{1,2}#?|(?:no\.|nr\.|№)\s{0,2})"
_MARKER = re.compile(
    rf"^(?=(?P<indent>\s*))[\s>#*_`]{{0,12}}(?P<quote>{_OPENING_QUOTE}[*_`]{{0,3}})?"
    rf"(?:(?P<number>(?:{_LABEL})?"
    r"[\[(]?(?:\d{1,2}|(?(quote)(?!)|\d{3})))"
    rf"(?(quote)(?P<closed>{_CLOSING_QUOTE})?)"
    r"[\])]?[*_`]{0,3}\s{0,2}(?:[.):\]．：、](?!\d)|-(?=\s)|[–—])"
    # A label or a number sign by itself, and a number that is drawn as a key.
    rf"|(?P<sign>{_LABEL}\d{{1,3}}(?=[*_`\s]*$)|#\d{{1,3}}(?=\s)|(?:\d\ufe0f?\u20e3){{1,2}}|\U0001f51f)|[-*+•·‣▪](?=\s))"
    rf"(?(quote)(?P<closed_behind>{_CLOSING_QUOTE}(?=\s))?)"
    r"[*_`]{0,3}\s*"
)
_LABEL_BEHIND = re.compile(rf"^[*_`]{{0,3}}{_LABEL}\d{{1,3}}\s?(?:[.:)．：、]|[-–—](?=\s))[*_`]{{0,3}}\s*")
_RULED_LINE = re.compile(r"\s*(?:[-*_=~]\s*){3,}")
_TABLE_RULE = re.compile(r"\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?)?")  # between the head of a Markdown table and its rows
_QUOTE_AT_END = re.compile(rf"{_CLOSING_QUOTE}([*_`]{{0,3}}\s*)\Z")
_INLINE_NUMBER = re.compile(rf"(?:(?<=\s)|^){_OPENING_QUOTE}?[*_]{{0,2}}(\d{{1,3}})[*_]{{0,2}}[.):](?=\s|[*_\"“]|[A-Za-z])")
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


def ends_properly(text: str) -> bool:
    """Whether a text ends as sentences do; else it probably broke off at the token limit (hosts do not always say)."""
    return text.endswith(_TERMINAL)


def split_list(text: str, limit: int = MAX_OUTPUTS) -> tuple[list[str], OutputCounts]:
    """Split a numbered or bulleted answer into its lines.

    Preamble ("Sure, here are 16 sentences:") and what follows the list after a blank line are left out; an unmarked line
    right below an item or indented below it belongs to it, and so do bullets that are indented below a number, and paragraphs behind items
    that are headings, where all of these have one. An answer without any
    marker gives its non-empty lines, and so does one that numbers its first line only, from there on. Of a Markdown table the rows count.
    Items are refusals where all of them are; one among others tells what the assistant does not do.

    Args:
        text: the answer, thinking already stripped.
        limit: the most lines to return.

    Returns:
        The lines, repeats dropped, and their counts (``answers`` and ``requested`` are left to the caller).
    """
    items, plain = _items(_break_inline_lists("\n".join(_without_table(text.split("\n")))).split("\n"))
    marked = bool(items)
    candidates = [_clean(item) for item in items] if marked else [line for line in map(_clean, plain) if _says_something(line)]
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
    if marked and refusals < len(kept):
        refusals = 0
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
        if not found and not found_counts.empty:  # whose numbers without text are counted one by one
            found_counts += OutputCounts(empty=1)
        refused = set(filter(is_refusal, found)) if found_counts.refusals else set()
        for line in found:
            key = " ".join(line.lower().split())
            if key in seen or len(lines) >= MAX_OUTPUTS:
                found_counts += OutputCounts(lines=-1, refusals=-int(line in refused), repeats=1)
            else:
                seen.add(key)
                lines.append(line)
        counts += found_counts + OutputCounts(answers=1)
    return Outputs(tuple(lines), counts)


def _items(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the items of a list, the lines of an answer that holds none)."""
    items: list[list[str]] = []
    plain: list[str] = []
    below_first: list[str] = []  # all lines from the first item on, where there is no second
    paragraphs: dict[int, list[str]] = {}  # place of an item -> the first paragraph behind it
    paragraph: list[str] | None = None  # the one that goes on
    after_blank = False
    indent = 0  # of the last item
    numbered = one_first = False  # the last item has a number; that of the first is 1
    for line in lines:
        ruled = _RULED_LINE.fullmatch(line)
        match = None if ruled else _MARKER.match(line)
        number = match and (match["number"] or match["sign"])
        if match and not number and numbered and len(match["indent"]) > indent:
            items[-1].append(_behind(match))
            one_first = after_blank = False
        elif match:
            one_first = one_first if items else _is_one(number)
            if paragraph and _is_heading(paragraph):  # right above the next item, whose heading it is
                del paragraphs[len(items) - 1]
            items.append([_behind(match)])
            paragraph = None
            numbered, indent, after_blank = bool(number), len(match["indent"]), False
        elif ruled or not line.strip():
            after_blank, paragraph = True, None
        elif not items:
            plain.append(line)
        else:
            below_first.append(line)
            if not after_blank or not "".join(items[-1]).strip() or len(line) - len(line.lstrip()) > indent:
                items[-1].append(line.strip())
                after_blank = False
            elif paragraph is not None:
                paragraph.append(line.strip())
            elif len(items) - 1 not in paragraphs and _is_heading(items[-1]) and not _is_title(line):
                paragraph = paragraphs[len(items) - 1] = [line.strip()]
    headings = [place for place, item in enumerate(items[:-1]) if _is_heading(item)]
    if headings and paragraphs.keys() >= {*headings}:  # else what stands behind the last one closes the answer
        for place, paragraph in paragraphs.items():
            items[place] += paragraph
    unmarked = [line for line in (*items[0][:1], *below_first) if line.strip()] if len(items) == 1 and one_first else []
    if len(unmarked) > MOST_REMARKS + 1:
        return unmarked, []
    if len(plain) > MOST_REMARKS + 1 and plain[0].rstrip(WRAPPING).endswith((":", "：")):
        plain = plain[1:]
    return [" ".join(item) for item in items], plain


def _is_heading(item: Sequence[str]) -> bool:
    """Whether an item does not end as a statement does: a name or a question, which a paragraph may explain."""
    return not ends_properly(" ".join(item).rstrip(WRAPPING + ":：?？)]"))


def _is_title(line: str) -> bool:
    """Whether a line announces what follows: a heading that is drawn as one ("**More**") or ends in a colon."""
    return _is_heading([line]) and (line.lstrip().startswith(("#", "*", "_")) or line.rstrip(WRAPPING).endswith((":", "：")))


def _says_something(line: str) -> bool:
    """Whether a line holds more than punctuation: a letter, a digit or an emoji."""
    return any(sign.isalnum() or unicodedata.category(sign) == "So" for sign in line)


def _is_one(number: str | None) -> bool:
    """Whether a marker's number is 1."""
    return re.findall(r"\d+", number or "") == ["1"]


def _without_table(lines: Sequence[str]) -> list[str]:
    """The lines, those of Markdown tables without signs between their cells, and without the head and what parts it from the rows.

    A first cell with a number and nothing else numbers its row.
    """
    kept: list[str] = []
    stripped = [line.strip() for line in lines]
    for line, row, following in zip(lines, stripped, [*stripped[1:], ""]):
        if _TABLE_RULE.fullmatch(row) or "|" in row and _TABLE_RULE.fullmatch(following):
            continue
        framed = len(row) > 1 and row[0] == row[-1] == "|"
        kept.append(": ".join(cell.strip() for cell in row.split("|") if cell.strip()) if framed else line)
    return kept


def _behind(match: re.Match[str]) -> str:
    """What stands behind a marker and a label ("1) Line 1: I bake."), without the closing quote of a quoted line ("1: I bake.")."""
    text = _LABEL_BEHIND.sub("", match.string[match.end() :])
    quoted = match["quote"] and not match["closed"] and not match["closed_behind"]
    return _QUOTE_AT_END.sub(r"\1", text) if quoted else text


def _break_inline_lists(text: str) -> str:
    """Put the items of "1: one 2: two 3: three" on lines of their own, where the numbers count up by one."""
    lines = []
    for line in text.split("\n"):
        numbers = list(_INLINE_NUMBER.finditer(line))
        cuts, expected = [], None
        for match in numbers:
            value = int(match.group(1))
            before = line[: match.start()].strip()
            if expected is None and before and (not before.endswith(":") or value != 1 or _MARKER.match(line)):
                break  # the line does not start with an item, nor with what announces a list ("Sure: 1. ...")
            if expected is None or value == expected:
                cuts.append(match.start())
                expected = value + 1
        if len(cuts) >= 2:
            lines += [line[: cuts[0]].rstrip()] if line[: cuts[0]].strip() else []
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
