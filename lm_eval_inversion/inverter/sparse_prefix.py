"""The shared inverter: a decoder-only LM that reads outputs as a set (``prefix_model``), loaded from a checkpoint folder."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS, Inverter, OutputSets, Secret, check_pairs, equal_outputs
from lm_eval_inversion.inverter.candidates import candidate_token_losses
from lm_eval_inversion.inverter.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, verify_checkpoint
from lm_eval_inversion.inverter.decoding import Chooser, decode, sampling
from lm_eval_inversion.inverter.eight_bit import EightBitLinear, adopt_eight_bits_throughout
from lm_eval_inversion.inverter.few_rows import adopt_few_rows
from lm_eval_inversion.inverter.packing import unpacked
from lm_eval_inversion.inverter.prefix_model import Prefix, block_columns, encode_blocks
from lm_eval_inversion.inverter.recent import Recent
from lm_eval_inversion.inverter.tokens import BlockFormat, BlockTokenizer
from lm_eval_inversion.inverter.words import OutputWords

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Found = TypeVar("Found")

DEFAULT_BATCH_SIZE = 8
KEPT_PREFIXES = 4
REPEAT_RUN = 6  # tokens; no reconstruction says so long a run twice (see ``decode``)
GUIDANCE = 0.5  # chosen on the dev split, see docs/LOG.md: without it reconstructions say what fits any assistant
MOST_TEXTS = 64  # of one prompt, written at once: room for their tokens is taken before it is known how long they get
ROW_TOKENS = 2048  # of candidates scored in one row
# What torch says without memory: on Linux, on Windows, and on a Mac's accelerator.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class _Read:
    """A batch of outputs that has been encoded: prefixes of all that was among them can be had without running the model again."""

    def __init__(self, prefix: Prefix, blocks: Sequence[Sequence[Sequence[int]]]) -> None:
        self.prefix = prefix
        self._starts: list[dict[tuple[int, ...], list[int]]] = []  # per prompt: block -> where in the prefix it stands
        for own in blocks:
            starts: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for block, column in zip(own, block_columns(own)):
                starts[tuple(block)].append(column)
            self._starts.append(dict(starts))

    def prefix_of(self, blocks: Sequence[Sequence[int]]) -> Prefix | None:
        """The prefix of these blocks, where one prompt of the batch has them all; what else is read never changes a block."""
        for row, starts in enumerate(self._starts):
            wanted = Counter(map(tuple, blocks))
            if not wanted or any(len(starts.get(block, ())) < number for block, number in wanted.items()):
                continue
            unused = {block: iter(starts[block]) for block in wanted}
            begins = [next(unused[tuple(block)]) for block in blocks]
            columns = [begin + place for begin, block in zip(begins, blocks) for place in range(len(block))]
            return self.prefix.part(row, torch.tensor(columns, device=self.prefix.mask.device))
        return None


class SparsePrefixInverter(Inverter):
    """Inverts by guided greedy decoding, without circling, after a joined key/value prefix of all outputs.

    The result does not depend on the order of the outputs, on padding, or on what else is in the batch (in float32: up to
    rounding, far below what changes a greedy token; in fewer bits rounding can change one).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: BlockTokenizer,
        layout: BlockFormat,
        *,
        name: str,
        hash: str,
        words: OutputWords | None = None,
        secret: Secret = "system",
    ) -> None:
        self.words = words
        self.model, self.tokenizer, self.layout, self.name, self.hash, self.secret = model, tokenizer, layout, name, hash, secret
        # With layers in 8 bits, the prefix would be most of the memory. The same on every CPU, however fast it is in this type.
        self._prefix_dtype = torch.bfloat16 if any(isinstance(module, EightBitLinear) for module in model.modules()) else None
        # What ``invert`` read last; ``nll`` is asked about the same outputs, and about parts of them.
        self._read: _Read | None = None
        # Likelihoods under the null are asked for one prompt at a time, always with the same outputs.
        self._prefixes: Recent[tuple[tuple[int, ...], ...], Prefix] = Recent(KEPT_PREFIXES)

    def _prefix(self, blocks: Sequence[Sequence[int]]) -> Prefix:
        return self._prefixes.get(tuple(map(tuple, blocks)), lambda own: self.encode([own]))

    def _already_read(self, blocks: Sequence[Sequence[int]]) -> Prefix | None:
        """The prefix of these blocks, where they are among what was read last."""
        return self._read.prefix_of(blocks) if self._read else None

    def _read_anew(self, blocks: Sequence[Sequence[Sequence[int]]]) -> Prefix:
        """The prefix of every prompt's blocks, kept in the place of what was read last."""
        self._read = None  # makes room first
        self._read = _Read(self.encode(blocks), blocks)
        return self._read.prefix

    def encode(self, blocks: Sequence[Sequence[Sequence[int]]]) -> Prefix:
        """The prefix of every prompt's blocks, as this inverter reads them; see ``encode_blocks``."""
        return encode_blocks(self.model, blocks, self.layout.output_layers, self._prefix_dtype)

    @classmethod
    def from_folder(
        cls, folder: Path, *, name: str, device: str, dtype: torch.dtype, expected_sha256: str | None = None
    ) -> SparsePrefixInverter:
        """Load and verify a checkpoint folder.

        Args:
            dtype: of weights and activations; ``torch.int8`` for ``eight_bit`` layers between float32 activations, on a CPU.

        Raises:
            CheckpointError: see ``verify_checkpoint``.
        """
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModelForCausalLM

        checkpoint = verify_checkpoint(folder, expected_sha256)
        layout = BlockFormat(**checkpoint.description["block_format"])
        model_config = dict(checkpoint.description["model_config"])
        config = AutoConfig.for_model(model_config.pop("model_type"), **model_config)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        _fill(model, load_file(folder / WEIGHTS_FILE))
        model.tie_weights()
        if dtype is torch.int8:
            adopt_eight_bits_throughout(model)
        else:
            model = model.to(device=device, dtype=dtype)
        adopt_few_rows(model)
        model.eval()
        tokenizer = BlockTokenizer(folder / TOKENIZER_FILE, layout)
        return cls(model, tokenizer, layout, name=name, hash=checkpoint.hash, words=checkpoint.words)

    def of(self, secret: Secret) -> SparsePrefixInverter:
        """See ``Inverter.of``: the same weights, prompts opened with another token."""
        if secret == self.secret:
            return self
        other = SparsePrefixInverter(
            self.model, self.tokenizer, self.layout, name=self.name, hash=self.hash, words=self.words, secret=secret
        )  # fmt: skip
        return self.beside(other)

    @torch.inference_mode()
    def invert(
        self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None
    ) -> list[str]:
        """See ``Inverter.invert``. Where memory does not suffice, batches are halved."""
        blocks = [self.tokenizer.blocks(lines) for lines in outputs]
        # Prompts of about one size decode together, which keeps padding of the prefix small.
        order = sorted(range(len(blocks)), key=lambda index: sum(map(len, blocks[index])))
        size = batch_size or DEFAULT_BATCH_SIZE
        reconstructions = [""] * len(blocks)

        def write(chosen: Sequence[int]) -> list[list[int]]:
            return self._decode([blocks[index] for index in chosen], max_new_tokens)

        for chosen, ids in _as_memory_allows(order, size, write, "invert %d prompts"):
            for index, tokens in zip(chosen, ids):
                reconstructions[index] = self.tokenizer.decode(tokens)
        return reconstructions

    def _decode(self, blocks: Sequence[Sequence[Sequence[int]]], max_new_tokens: int) -> list[list[int]]:
        return self._write(self._read_anew(blocks), max_new_tokens)

    def _write(self, prefix: Prefix, max_new_tokens: int, **settings: Any) -> list[list[int]]:
        """``decode`` with the settings that all reconstructions share."""
        return decode(
            self.model,
            prefix,
            start_id=self.layout.opening(self.secret),
            end_id=self.layout.end_id,
            position=self.layout.prompt_position,
            max_new_tokens=max_new_tokens,
            repeat_run=REPEAT_RUN,
            guidance=GUIDANCE,
            **settings,
        )

    @torch.inference_mode()
    def sample(
        self, outputs: OutputSets, number: int, temperature: float, seed: int, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    ) -> list[list[str]]:
        """See ``Inverter.sample``. The outputs of a prompt are read once for all of its reconstructions."""
        if number < 0 or not 0 < temperature < math.inf:
            raise ValueError(f"{number} candidates at temperature {temperature}: give a number of at least 0 and a temperature above 0")
        found = []
        for lines in outputs:
            blocks = self.tokenizer.blocks(lines)
            generator = torch.Generator().manual_seed(random.Random(f"sample/{seed}/{blocks}").getrandbits(62))
            draws = torch.rand(number + 1, max_new_tokens, dtype=torch.float64, generator=generator)
            prefix = self._already_read(blocks) or self._read_anew([blocks])
            choose = sampling(draws, temperature)

            def write(chosen: Sequence[int], prefix: Prefix = prefix, choose: Chooser = choose) -> list[list[int]]:
                def choose_of(scores: torch.Tensor, texts: Sequence[int], step: int) -> torch.Tensor:
                    return choose(scores, [chosen[text] for text in texts], step)

                return self._write(prefix, max_new_tokens, choose=choose_of, number=len(chosen))

            written = _as_memory_allows(range(number + 1), MOST_TEXTS, write, "write %d reconstructions")
            found.append([self.tokenizer.decode(tokens) for _, ids in written for tokens in ids])
        return found

    @torch.inference_mode()
    def token_nll(self, outputs: OutputSets, prompts: Sequence[str]) -> list[list[float]]:
        """See ``Inverter.token_nll``. Pairs with equal outputs share one encoding; blocks that ``invert`` has just read are not run again.

        Where memory does not suffice, fewer candidates are scored at once.
        """
        check_pairs(outputs, prompts)
        result: list[list[float]] = [[] for _ in prompts]
        for lines, indices in equal_outputs(outputs).items():
            blocks = self.tokenizer.blocks(lines)
            prefix = self._already_read(blocks) or self._prefix(blocks)

            def score(chosen: Sequence[tuple[int, list[int]]], prefix: Prefix = prefix) -> list[list[float]]:
                found = candidate_token_losses(self.model, prefix, [ids for _, ids in chosen], self.layout.prompt_position)
                return [losses.tolist() for losses in found]

            candidates = [(index, self.tokenizer.prompt(prompts[index], secret=self.secret)) for index in indices]
            for run in _within_budget(candidates):
                for chosen, losses in _as_memory_allows(run, len(run), score, "score %d candidates"):
                    for (index, _), loss in zip(chosen, losses):
                        result[index] = loss
        return result

    def word_evidence(self, outputs: OutputSets, prompts: Sequence[str]) -> list[float]:
        """See ``Inverter.word_evidence``."""
        if self.words is None:
            return super().word_evidence(outputs, prompts)
        return self.words.evidence_of_pairs(outputs, prompts)


def _fill(model: Any, packed: dict[str, torch.Tensor]) -> None:
    """Unpack weights, which have been verified to fit, into a model: one by one, because all of them are as large as the model."""
    places = model.state_dict()
    for place, tensor in unpacked(packed):
        places[place].copy_(tensor)


def _as_memory_allows(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Found], what: str
) -> Iterator[tuple[Sequence[Item], Found]]:
    """Run ``size`` items at once; where memory does not suffice, half as many from there on. Yields items and what was found of them.

    Raises:
        RuntimeError: it does not suffice for one, or ``run`` raises another.
    """
    start = 0
    while start < len(items):
        chosen = items[start : start + size]
        try:
            found = run(chosen)
        except RuntimeError as error:
            if len(chosen) == 1 or not _out_of_memory(error):
                raise
            size = len(chosen) // 2
            logger.warning(f"Memory does not suffice to {what} at once: going on with %d.", len(chosen), size)
            continue
        yield chosen, found
        start += len(chosen)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found no memory, on a GPU, a Mac's accelerator or the CPU (the latter two have no exception of their own)."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


def _within_budget(candidates: list[tuple[int, list[int]]]) -> list[list[tuple[int, list[int]]]]:
    """Cut a list of (index, token ids) into runs of at most ``ROW_TOKENS`` tokens (or one candidate)."""
    runs: list[list[tuple[int, list[int]]]] = []
    used = 0
    for candidate in candidates:
        if not runs or used + len(candidate[1]) > ROW_TOKENS:
            runs.append([])
            used = 0
        runs[-1].append(candidate)
        used += len(candidate[1])
    return runs
