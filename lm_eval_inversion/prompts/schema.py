"""What a benchmark prompt is, and the rules that its data must keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SLOTS = (
    "name", "role", "organisation", "domain", "audience", "tone", "language", "format", "limit", "refusal", "rule", "fact", "tool",
)  # fmt: skip
SPLITS = ("test", "dev")
REDACTED = re.compile(r"\[sha256:[0-9a-f]{12}, (\d+) characters, (\d+) words\]")  # what ``redaction`` puts in place of a text
_COLUMN_NAME = re.compile(r"[\w.-]{1,40}(?: [\w.-]{1,20})?")  # one word or two
SHORT_MAX_WORDS, MEDIUM_MAX_WORDS = 20, 70


@dataclass(frozen=True)
class Attribute:
    """A fact that a prompt states, mostly about its assistant.

    Attributes:
        slot: one of ``SLOTS``. A name or role may also be that of the user, a third person or a hero, a name also that of a game, a
            ship or a place: whatever the prompt would be recognised by.
        value: the words of the prompt's own text that state it.
        aliases: other wordings that count as having recovered it.
        false_value: a plausible value that is not true of the prompt; finding it in a reconstruction is a false claim.
    """

    slot: str
    value: str
    aliases: tuple[str, ...]
    false_value: str


@dataclass(frozen=True)
class SystemPrompt:
    """One system prompt of the benchmark, or of a user's file (then without attributes)."""

    id: str
    text: str
    category: str = "own"
    split: str = "test"
    attributes: tuple[Attribute, ...] = ()

    @property
    def words(self) -> int:
        """Words, split at white space; of a redacted prompt those of the text that its marker stands for."""
        found = REDACTED.fullmatch(self.text)
        return int(found[2]) if found else len(self.text.split())

    @property
    def length_band(self) -> str:
        """"short" (up to 20 words), "medium" (21-70), "long" (71 and more)."""
        if self.words <= SHORT_MAX_WORDS:
            return "short"
        return "medium" if self.words <= MEDIUM_MAX_WORDS else "long"

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in the JSONL file."""
        return {
            "id": self.id,
            "split": self.split,
            "category": self.category,
            "text": self.text,
            "attributes": [
                {"slot": a.slot, "value": a.value, "aliases": list(a.aliases), "false_value": a.false_value} for a in self.attributes
            ],
        }


def shown_names(names: Iterable[Any]) -> str:
    """Names of columns for an error; what looks like text is left out: in a file without a header it is a prompt, perhaps a private one."""
    shown = [str(name) if _COLUMN_NAME.fullmatch(str(name)) else "(text)" for name in names if str(name).strip()]
    return ", ".join(shown) or "nothing"


def prompt_from_row(row: Mapping[str, Any], default_id: str) -> SystemPrompt:
    """Build a prompt from a row with at least a ``text``.

    Raises:
        ValueError: a field has the wrong type, is empty, or an attribute breaks the schema; the text names the rule.
    """
    if "text" not in row:
        raise ValueError(f"column 'text' is missing (found: {shown_names(row)}); every row needs a 'text'")
    text = row["text"]
    if not isinstance(text, str):
        raise ValueError(f"'text' is {type(text).__name__}, not a string; write the system prompt as text in quotes")
    if not text.strip():
        raise ValueError("'text' is empty; every row needs a system prompt")
    defaults = {"id": default_id, "category": "own", "split": "test"}
    named = {key: str(default if row.get(key) in (None, "") else row[key]) for key, default in defaults.items()}
    raw_attributes = row.get("attributes") or ()
    if not isinstance(raw_attributes, (list, tuple)):
        raise ValueError(f"'attributes' is {type(raw_attributes).__name__}, not a list of objects")
    return SystemPrompt(
        text=text.strip(),
        **named,
        attributes=tuple(_attribute(raw, text, f"attribute {number}") for number, raw in enumerate(raw_attributes, 1)),
    )


def _attribute(raw: Any, text: str, name: str) -> Attribute:
    """One attribute; errors call it by ``name`` and do not quote it, because prompts may be private."""
    if not isinstance(raw, Mapping) or not all(isinstance(raw.get(key), str) and raw[key] for key in ("slot", "value", "false_value")):
        raise ValueError(f"{name} needs the strings 'slot', 'value' and 'false_value'")
    if raw["slot"] not in SLOTS:
        raise ValueError(f"the 'slot' of {name} is unknown; known: {', '.join(SLOTS)}")
    if raw["value"] not in text:
        raise ValueError(f"the 'value' of {name} does not stand in the text; quote the prompt's own words")
    if raw["false_value"].lower() in text.lower():
        raise ValueError(f"the 'false_value' of {name} stands in the text; choose one that is not true of this prompt")
    aliases = raw.get("aliases") or []
    if not isinstance(aliases, (list, tuple)) or not all(isinstance(alias, str) and alias for alias in aliases):
        raise ValueError(f"the 'aliases' of {name} must be a list of strings")
    return Attribute(raw["slot"], raw["value"], tuple(aliases), raw["false_value"])
