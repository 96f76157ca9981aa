"""Raw answers -> ``Outputs``: what the inverter reads, and honest counts of what it could not read.

Example: the answer ``"Sure!\\n1: I am a baker.\\n2) I wake at four.\\n2) I wake at four."`` to a list query gives the
two lines ``"I am a baker."`` and ``"I wake at four."`` and counts one repeat.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os.path import commonprefix

from lm_eval_inversion.characters import count_unspaced
from lm_eval_inversion.queries import QuerySet

MAX_OUTPUTS = 64  # Zhang et al. 2024: four questions of 16 lines
MAX_ANSWER_CHARACTERS = 20_000  # far beyond 64 outputs of 64 tokens; keeps a runaway answer cheap
# A longer answer that starts by refusing says something about its role as well; in scripts without spaces, twice as many characters.
REFUSAL_MAX_WORDS = 30
REFUSAL_MAX_CHARACTERS = 600

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
MOST_REMARKS = 1  # lines below a single item that may go on with it, or close the answer; more are items without numbers
QUOTED_LETTERS = 24  # around a tag that equal those around one of the system prompt's: then it is quoted, and marks no thought
_QUOTE_REACH = 160  # characters around a tag that are looked at
_LINE_ESCAPE = re.compile(r"\\[nrt]")  # of a quote in JSON
_UNMARKED = "\ufdd0"  # a noncharacter: stands in no text, and parts the characters of a tag so that it is read as none
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
# A refusal opens in one of these ways, and says that something which can be asked for will not be done: an assistant that says what it
# does not do ("I can't give medical advice."), is eager ("I can't wait") or stresses something declines nothing.
_CANNOT = (
    r"(?:can(?:no|')?t(?! wait)|can not|won't|will not|unable to|not (?:able|allowed|permitted|at liberty|going) to|"
    r"(?:must |(?:going to )?have to |respectfully |politely )(?:\w+ly )?decline(?: to)?|"
    r"rather not|prefer not to|not (?:feel )?comfortable|don't feel comfortable|"
    r"(?:don't|do not) have (?:permission|the ability) to|(?:don't|do not)(?= (?:share|disclose|reveal|discuss) (?:my|the|that|this)\b))"
)
# "That" points to a request, unless it opens a clause: "I can't promise that it will work".
_THAT = r"that(?! (?:it|you|they|he|she|we|there|the|your|an?|i(?!(?:'m| am) (?:afraid|sorry)))\b)"
_TIME = r"(?:week(?:end)?|month|year|morning|afternoon|evening|(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
_ASKED_ANYWHERE = (
    r"(?:help(?:ing)?(?! but)|assist|shar(?:e|ing)|reveal|disclos(?:e|ing)|comply|repeat|output|quot(?:e|ing)|"
    # A cinema that shows no films on Mondays keeps nothing back.
    r"(?:print|display|show)(?=\s*(?:[.,;!]|$)| (?:you|it|that|this|those|these|my|the|any|its|system|internal|hidden|confidential)\b)|"
    rf"fulfill?|do (?:it|so)|{_THAT}|this(?! enough| {_TIME}\b)|those|these|"
    r"(?:\w+ ){0,4}(?:my|the|your) (?:\w+ )?(?:instructions|prompt|guidelines|rules|configuration|setup|request))\b"
)
_GIVE = r"(?:answer|provid(?:e|ing)|discuss(?:ing)?)"
# Behind an apology whatever is not given was asked for. Without one the request must be meant: nothing else is named, or a word points to
# it. Another object is a subject that the assistant keeps away from ("I can't provide medical advice", "I can't answer in English").
_ASKED = rf"(?:{_ASKED_ANYWHERE}|{_GIVE}\b)"
_ASKED_POINTEDLY = (
    rf"(?:{_ASKED_ANYWHERE}|{_GIVE}(?: (?:you|with|to|any|the|an?|for|about|on|of|regarding|further|more|specific|exact|answers?|"
    r"questions?|contents?|details?|information))*?"
    r"(?:\s*(?:[.;!]|$)| (?:that|this|it|those|these|my|your (?:request|question)|(?:confidential|internal|private|sensitive) \w+)\b))"
)
_BETWEEN = r"(?:[^\w.!?;:,]+[\w']+){0,3}?[^\w.!?;:,]+"
_SECRETS = r"(?:instructions?|prompt|guidelines|rules|configuration|setup|information|details)"
_THEM = rf"(?:my|the|that|this|these|those) (?:\w+ )?{_SECRETS}"
_PRIVATE = r"private(?=\s*(?:[.,;!–—-]|$)| (?:and|so|but|to)\b)"  # and no private garden
_KEPT = (
    rf"(?:(?:that|this|it|{_THEM})(?: is| are|'s) (?:strictly )?confidential\b|(?:that|{_THEM})(?: is| are|'s) {_PRIVATE}|"
    r"(?:i|we)(?:'ll| will| must| have to| need to| should|(?:'d| would)? (?:like|prefer) to|'d rather)? keep "
    rf"(?:that|this|it|those|these|{_THEM}) (?:confidential|private|secret|to myself)\b)"
)
_APOLOGY = (
    r"(?:i(?:'m| am) (?:really |very |so )?sorry|sorry|(?:my )?apologies|i apologi[sz]e|unfortunately|as an ai\b|"
    r"(?:thank|i (?:appreciate|understand))\b[^.!?]{0,80}\bbut\b|i(?:'m| am) (?:really )?afraid\b)"
)
_NO = r"(?:no[,.!]?\s(?:[-–—]\s)?)?"
# Who needs to know more before doing something asks for it.
_NOT_YET = (
    r"[^.!?]{0,40}?\b(?:without (?:first )?(?:knowing|seeing|hearing|(?:(?:some|a few|a bit|a little) )?more)|"
    r"(?:until|unless|before) (?:i|we) (?:know|see|hear))\b"
)
_I_CANNOT = rf"i(?:'m| am|'d| would|'ll| will)?\s(?:really )?{_CANNOT}"
_FIRST_PERSON = r"\b(?:i|we|sorry)\b(?:(?!you)[^.!?;:]){0,30}?\b"


def _refusal(asked: str) -> str:
    """A pattern of English that says that what is asked for will not be done."""
    return (
        rf"{_FIRST_PERSON}{_CANNOT}(?! \w+(?:[ ]\w+){{0,2}} (?:enough|favou?rite)\b)"
        rf"(?:{_BETWEEN}{asked}(?!{_NOT_YET})|(?: (?:tell|say)(?: you)?)?\s*(?:[.;!]|$))|"
        rf"not something (?:i|we) (?:can|may|am able to|are able to){_BETWEEN}{asked}|(?:\b(?:is|are)|'s) confidential\b|{_KEPT}"
    )


# Behind something else ("Nice try! I can't share that."), where less would be a remark on the way, what is kept back is something to say.
_LED_TO = r"(?:[^.!?\n]{1,80}?(?:[.!?]\s+|\bbut\s))"
_TOLD = (
    r"(?:shar(?:e|ing)|reveal(?:ing)?|disclos(?:e|ing)|discuss(?:ing)?|repeat(?:ing)?|print|output|display|quot(?:e|ing)|show|tell|say|"
    r"provid(?:e|ing)|giv(?:e|ing)|answer|go into)(?: (?:you|out|to you|any of|details (?:of|about)))? "
    r"(?:(?:that|this|it|those|these)(?=\s*(?:[.,;:!–—-]|$)| (?:with|here|either|information)\b)|"
    r"(?:my|the|those|these) (?:\w+ )?(?:instructions?|prompt|guidelines|rules|configuration|setup)\b)"
)

_REFUSALS = tuple(
    re.compile(rf"^(?:{opening}).*?(?:{refusal})", re.IGNORECASE | re.DOTALL)
    for opening, refusal in (
        (rf"{_NO}(?={_APOLOGY})", _refusal(_ASKED)),
        (rf"{_NO}(?={_KEPT}|{_I_CANNOT})", _refusal(_ASKED_POINTEDLY)),
        (rf"{_LED_TO}(?={_I_CANNOT}{_BETWEEN}{_TOLD})", _refusal(_TOLD)),
        (
            r"(?:es )?tut mir (?:sehr |wirklich )?leid|leider|entschuldig|verzeih|bedaure|(?=(?:ich|das) (?:kann|darf|möchte|werde)\b)",
            r"\bdas (?:kann|darf|möchte|werde) ich (?:\w+ ){0,2}nicht"
            r"(?: (?:tun|machen|sagen|teilen|verraten|weitergeben|preisgeben|offenlegen|beantworten))?\s*(?:[.,;!]|$)|"
            r"\b(?:kann|darf|möchte|werde)\b(?=[^.!?,]{0,80}\bnicht\b)[^.!?]{0,80}?"
            r"\b(?:das|dies\w*|dabei|damit|darüber|darauf|meine\w*|helfen|weitergeben|teilen|preisgeben|offenlegen|verraten|beantworten)\b",
        ),
        (
            r"(?:je suis )?(?:vraiment )?désolée?|malheureusement|(?:toutes )?mes excuses|je regrette|(?=je ne\b)",
            r"\bje ne (?:peux|puis|vais|souhaite|suis)\b[^.!?]{0,60}?\b(?:partager|aider|répondre(?! qu)|révéler|divulguer|fournir|"
            r"communiquer|cela|ça|cette|mes)\b",
        ),
        (
            r"lo siento|lo lamento|perdón|disculp|lamentablemente|desafortunadamente|"
            r"(?=(?:est?o )?no (?:(?:te |se )?l[oa]s? )?(?:puedo|podré|estoy|me es)\b)",
            r"\bno (?:(?:te |se )?l[oa]s? )?(?:puedo|podré|estoy autorizad[oa]|me es posible)\b[^.!?]{0,60}?"
            r"\b(?:compartir\w*|ayudar\w*|responder\w*|revelar\w*|"
            r"divulgar\w*|proporcionar\w*|mostrar\w*|hacerlo|eso|esto|esa|mis)\b",
        ),
        (
            r"(?:非常|很|十分)?抱歉|对不起|對不起|不好意思|(?=(?:[这這那][个個]?)?我(?:无法|無法|不能|不会|不會))",
            r"(?:无法|無法|不能|不会|不會|不便)[^。！？]{0,12}?(?:分享|提供|透露|回答|帮|幫|协助|協助|展示|公开|公開|泄露|洩露|告诉|告訴|满足|滿足|复述|输出|輸出|这|這|[说說](?=[。！，,.!]|$))",
        ),
    )
)
_WRAPPED = " \t\r\n*_`>#\"'“”„‘«»"  # what a message may stand in
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


def is_refusal(text: str) -> bool:
    """Whether a short message only declines: it opens with a refusal, and says that it cannot or will not do what is asked.

    English, German, French, Spanish and Chinese, the languages of the attacks. Not meant for the items of a list, which tell what an
    assistant does and does not do.
    """
    text = text.replace("’", "'").strip(_WRAPPED)
    if len(text) > REFUSAL_MAX_CHARACTERS or len(text.split()) > REFUSAL_MAX_WORDS or count_unspaced(text) > 2 * REFUSAL_MAX_WORDS:
        return False
    return any(refusal.search(text) for refusal in _REFUSALS)


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
    if len(plain) > MOST_REMARKS + 1 and plain[0].rstrip(_WRAPPED).endswith((":", "：")):
        plain = plain[1:]
    return [" ".join(item) for item in items], plain


def _is_heading(item: Sequence[str]) -> bool:
    """Whether an item does not end as a statement does: a name or a question, which a paragraph may explain."""
    return not ends_properly(" ".join(item).rstrip(_WRAPPED + ":：?？)]"))


def _is_title(line: str) -> bool:
    """Whether a line announces what follows: a heading that is drawn as one ("**More**") or ends in a colon."""
    return _is_heading([line]) and (line.lstrip().startswith(("#", "*", "_")) or line.rstrip(_WRAPPED).endswith((":", "：")))


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
