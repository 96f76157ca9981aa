"""Text -> blocks of tokens, the same for training, inversion and likelihoods.

A block is ``[start] + tokens of one output``; a prompt is ``[start] + tokens + [end]``. Special tokens that stand in a
text ("<|im_end|>") are read as plain characters, so no output can forge a control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer


@dataclass(frozen=True)
class BlockFormat:
    """The numbers that training and inference must share; stored in the checkpoint.

    Attributes:
        max_outputs: outputs read per prompt; the rest is left out (after sorting, so order still does not matter).
        max_output_tokens: tokens read per output.
        max_prompt_tokens: longest prompt in training.
        start_id: token that opens every block and every prompt.
        end_id: token that ends a prompt.
    """

    max_outputs: int = 64
    max_output_tokens: int = 32
    max_prompt_tokens: int = 288
    start_id: int = 1
    end_id: int = 2

    @property
    def prompt_position(self) -> int:
        """Position of a prompt's first token: just after the longest block."""
        return self.max_output_tokens + 1

    def to_dict(self) -> dict[str, int]:
        """As stored in ``inverter.json``."""
        return asdict(self)


class BlockTokenizer:
    """A ``tokenizers`` file read with special tokens switched off inside texts."""

    def __init__(self, path: Path, layout: BlockFormat) -> None:
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.encode_special_tokens = True
        self.layout = layout

    def blocks(self, outputs: Sequence[str]) -> list[list[int]]:
        """Token ids of the outputs, one block each, empty outputs left out, in an order that does not depend on theirs."""
        texts = sorted(text.strip() for text in outputs if text.strip())[: self.layout.max_outputs]
        # A token is at least one byte, so this many characters always hold enough tokens... of ordinary text; it bounds the work.
        texts = [text[: self.layout.max_output_tokens * 32] for text in texts]
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [[self.layout.start_id, *encoding.ids[: self.layout.max_output_tokens]] for encoding in encoded]

    def prompt(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Token ids of a prompt with its start and end; cut to ``max_tokens`` tokens of text."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids[:max_tokens]
        return [self.layout.start_id, *ids, self.layout.end_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids."""
        return str(self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)).strip()
