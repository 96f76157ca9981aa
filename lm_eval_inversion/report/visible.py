"""Text from a model made safe to look at: what is invisible, or turns its neighbours around, is shown by name."""

from __future__ import annotations

import re

# What hides or reorders text: C0 and C1 controls (ANSI escapes and null bytes among them; tab and newline stay), soft hyphen,
# zero-width space and word joiners, direction marks, line and paragraph separators, lone surrogates, tag characters and the second
# block of variation selectors (both can carry hidden text). Joiners (U+200C, U+200D) stay: emoji and several scripts need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""The text with every control, direction mark and lone surrogate replaced by a visible name; plain text is unchanged.

    Example: ``"\x1b[31mred\u202e"`` becomes ``"␛[31mred⟨U+202E⟩"``. The result can always be written as UTF-8.
    """
    return _HIDDEN.sub(lambda match: _name(ord(match[0])), text.replace("\r\n", "\n"))


def _name(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of the control characters
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
