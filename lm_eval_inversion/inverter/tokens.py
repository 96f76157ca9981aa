"""Text -> blocks of tokens, the same for training, inversion and likelihoods.

A block is ``[start] + tokens of one output``, or of a part of it; a prompt is ``[start] + tokens + [end]``. Special tokens that stand in
a text ("<|im_end|>") are read as plain characters, so no output can forge a control token, whatever the tokenizer makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from lm_eval_inversion.characters import whole_characters
from lm_eval_inversion.inverter.base import Secret

NO_CHARACTER = "\U0010fffd"  # for private use: no tokenizer knows it


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """Everything that a tokenizer calls special, the token of unknown characters apart."""
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    return special.difference(tokenizer.encode(NO_CHARACTER, add_special_tokens=False).ids)


def plain_ids(tokenizer: Tokenizer, control_ids: frozenset[int], text: str, encoding: Encoding) -> list[int]:
    """The ids of an encoding, control tokens of the text spelt out letter by letter; those that the tokenizer puts around it stay.

    ``encode_special_tokens`` does not reach all of them: unigram vocabularies hold "</s>" as an ordinary piece, and a start or end
    token may be added without being called special.
    """
    ids: list[int] = encoding.ids
    if control_ids.isdisjoint(ids):
        return ids
    found: list[int] = []
    for token, (start, end), around in zip(ids, encoding.offsets, encoding.special_tokens_mask):
        if token in control_ids and not around:
            letters = tokenizer.encode_batch(list(text[start:end]), add_special_tokens=False)
            found += [part for letter in letters for part in letter.ids if part not in control_ids]
        else:
            found.append(token)
    return found


def listed_ids(value: int | Sequence[int] | None) -> list[int]:
    """Token ids of a setting of a model that holds one, several or none."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


@dataclass(frozen=True)
class BlockFormat:
    """The numbers that training and inference must share; stored in the checkpoint.

    Attributes:
        max_outputs: outputs read per prompt, and blocks; the rest is left out (after sorting, so order still does not matter).
        max_output_tokens: tokens of a block.
        max_prompt_tokens: longest prompt in training.
        start_id: token that opens every block and every system prompt.
        end_id: token that ends a prompt.
        user_start_id: token that opens a prompt that is a user's message; None where the checkpoint was not trained on any: they
            open like system prompts.
        blocks_per_output: into how many blocks a long output is cut, as long as all outputs together have no more than ``max_outputs``.
        output_layers: layers of the model that outputs run through, see ``layers``; None: all.
    """

    max_outputs: int = 64
    max_output_tokens: int = 32
    max_prompt_tokens: int = 288
    start_id: int = 1
    end_id: int = 2
    user_start_id: int | None = None
    blocks_per_output: int = 1
    output_layers: int | None = None

    @property
    def prompt_position(self) -> int:
        """Position of a prompt's first token: just after the longest block."""
        return self.max_output_tokens + 1

    def opening(self, secret: Secret) -> int:
        """The token that opens a prompt of a kind."""
        return self.start_id if secret == "system" or self.user_start_id is None else self.user_start_id

    def to_dict(self) -> dict[str, int | None]:
        """As stored in ``inverter.json``."""
        return asdict(self)


class BlockTokenizer:
    """A ``tokenizers`` file read with special tokens switched off inside texts.

    Attributes:
        control_ids: tokens that no text may become: the start, the end, and everything that the tokenizer calls special, the token of
            unknown characters apart.
    """

    def __init__(self, path: Path, layout: BlockFormat) -> None:
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.encode_special_tokens = True
        self.layout = layout
        self.control_ids = frozenset({layout.start_id, layout.opening("user"), layout.end_id, *special_ids(self.tokenizer)})

    def blocks(self, outputs: Sequence[str]) -> list[list[int]]:
        """Token ids of the outputs, empty ones left out, in an order that does not depend on theirs.

        The beginning of every output comes first; what follows it is read as further blocks while there is room.
        """
        width, most = self.layout.max_output_tokens, self.layout.max_outputs
        texts = sorted(text.strip() for text in outputs if text.strip())[:most]
        # A token is at least one byte, so this many characters always hold enough tokens... of ordinary text; it bounds the work.
        texts = [whole_characters(text[: width * self.layout.blocks_per_output * 32]) for text in texts]
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = [self._plain(text, encoding) for text, encoding in zip(texts, encoded)]
        starts = range(0, width * self.layout.blocks_per_output, width)
        parts = [own[start : start + width] for start in starts for own in ids if start == 0 or len(own) > start]
        return [[self.layout.start_id, *part] for part in parts[:most]]

    def prompt(self, text: str, max_tokens: int | None = None, secret: Secret = "system") -> list[int]:
        """Token ids of a prompt of a kind, with its start and end; cut to ``max_tokens`` tokens of text."""
        text = whole_characters(text)
        ids = self._plain(text, self.tokenizer.encode(text, add_special_tokens=False))[:max_tokens]
        return [self.layout.opening(secret), *ids, self.layout.end_id]

    def _plain(self, text: str, encoding: Encoding) -> list[int]:
        return plain_ids(self.tokenizer, self.control_ids, text, encoding)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids."""
        return str(self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)).strip()
