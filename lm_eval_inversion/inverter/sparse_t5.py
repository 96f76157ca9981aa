"""The paper's architecture: a T5 that encodes every output by itself and decodes over all of them.

Zhang, Morris, Shmatikov 2024, section 4 ("sparse encoder"): self-attention inside one output only, the hidden states are laid
end to end, and the decoder's cross-attention, which knows no positions, reads them all. Memory is linear in the number of outputs.
Special tokens that stand in a text ("</s>") are read as plain characters, so that no output can forge a control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lm_eval_inversion.characters import whole_characters
from lm_eval_inversion.hashing import SHORT_HASH_DIGITS, content_hash, file_sha256
from lm_eval_inversion.inverter.base import DEFAULT_MAX_NEW_TOKENS, Inverter, OutputSets, check_pairs
from lm_eval_inversion.inverter.model_folder import config_and_tokenizer, require_vocabulary, require_whole_model, whole_model
from lm_eval_inversion.inverter.recent import Recent
from lm_eval_inversion.inverter.tokens import plain_ids, special_ids
from lm_eval_inversion.outputs import MAX_OUTPUTS

DEFAULT_BATCH_SIZE = 8
MAX_OUTPUT_TOKENS = 64  # the paper's outputs are sampled to 64 tokens
LENGTH_KEY, PADDED_KEY = "max_output_tokens", "padded_output_tokens"  # of config.json
KEPT_ENCODINGS = 4  # a prompt's outputs, and those of the null conditions
ENCODER_ROWS = 256  # outputs encoded at once; bounds memory


def text_ids(tokenizer: Any, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
    """Token ids of texts with whatever the tokenizer puts around one; special tokens inside of a text are read as plain characters.

    Args:
        tokenizer: a T5's. One without a ``tokenizers`` file (ByT5's) keeps special tokens out by itself.
        texts: outputs or prompts.
        max_tokens: longer ones are cut, what stands behind the text apart; None cuts nothing.
    """
    whole = [whole_characters(text) for text in texts]
    found = tokenizer(whole, truncation=max_tokens is not None, max_length=max_tokens, split_special_tokens=True)
    if not found.encodings:
        return list(found["input_ids"])
    backend = tokenizer.backend_tokenizer
    control_ids = frozenset(special_ids(backend))
    rows = [plain_ids(backend, control_ids, text, encoding) for text, encoding in zip(whole, found.encodings)]
    # What was spelt out may be longer than what was cut.
    return [row if max_tokens is None or len(row) <= max_tokens else [*row[: max_tokens - 1], row[-1]] for row in rows]


def read_width(config: Any) -> tuple[int, bool]:
    """How many tokens of an output a T5 reads, at most, and whether every output is padded to so many and the padding read too.

    Args:
        config: of the model; two of its keys, if there, say how it was trained. See ``encode_outputs``.
    """
    padded: int = getattr(config, PADDED_KEY, None) or 0
    return padded or getattr(config, LENGTH_KEY, MAX_OUTPUT_TOKENS), padded > 0


def encode_outputs(model: Any, tokenizer: Any, outputs: OutputSets) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the encoder on every output by itself and lay the hidden states end to end; training and inference both do.

    Args:
        model: a ``T5ForConditionalGeneration``. Two keys of its config, if there, say how it was trained: ``max_output_tokens``, how much
            of an output it reads; and ``padded_output_tokens``, that every output is padded to so many tokens and the padding is read
            too, as by the released output2prompt weights. Without the second padding is masked, and nothing depends on it.
        tokenizer: its tokenizer.
        outputs: for each prompt its outputs.

    Returns:
        Hidden states (prompts, width, model width), and their mask (prompts, width); gradients flow through the states.
    """
    device = model.device
    width, padded = read_width(model.config)
    flat: list[str] = []
    owners: list[int] = []
    for index, lines in enumerate(outputs):
        # No output at all reads as one empty output: the decoder needs something to attend to.
        texts = sorted(line.strip() for line in lines if line.strip())[:MAX_OUTPUTS] or [""]
        flat += texts
        owners += [index] * len(texts)
    states: list[list[torch.Tensor]] = [[] for _ in outputs]
    for start in range(0, len(flat), ENCODER_ROWS):
        ids = text_ids(tokenizer, flat[start : start + ENCODER_ROWS], width)
        batch = tokenizer.pad(
            {"input_ids": [row or [tokenizer.eos_token_id] for row in ids]},
            padding="max_length" if padded else "longest",
            max_length=width,
            return_tensors="pt",
        ).to(device)
        mask = torch.ones_like(batch["attention_mask"]) if padded else batch["attention_mask"]
        hidden = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        for row, (vectors, kept) in enumerate(zip(hidden, mask.bool())):
            states[owners[start + row]].append(vectors[kept])
    joined = [torch.cat(parts) for parts in states]
    lengths = torch.tensor([len(part) for part in joined], device=device)
    hidden = torch.nn.utils.rnn.pad_sequence(joined, batch_first=True)
    return hidden, (torch.arange(hidden.shape[1], device=device)[None] < lengths[:, None]).long()


def check_t5(folder: Path, name: str) -> None:
    """Read the small files of a T5's folder and the names of its weights, so that what cannot be loaded is found before a run.

    Raises:
        ValueError: see ``check_small_files``; or the weights are a part of the model's.
    """
    from transformers import T5ForConditionalGeneration

    config, _ = check_small_files(folder, name)
    require_whole_model(T5ForConditionalGeneration, folder, name, config)


def check_small_files(folder: Path, name: str) -> tuple[Any, Any]:
    """Read the small files of a T5's folder; returns configuration and tokenizer.

    Raises:
        ValueError: transformers cannot read them, they are another model's, or model and tokenizer do not fit each other.
    """
    config, tokenizer = config_and_tokenizer(folder, name)
    if config.model_type != "t5":
        raise ValueError(f"inverter={name!r}: {folder} holds a {config.model_type}; give the folder of a T5ForConditionalGeneration")
    for key in (LENGTH_KEY, PADDED_KEY):
        most = getattr(config, key, MAX_OUTPUT_TOKENS)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"inverter={name!r}: {key} of its config.json is {str(most)[:40]!r}; give a whole number from 1 on")
    ends = {"eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    if missing := next((end for end, token in ends.items() if token is None), None):
        raise ValueError(f"inverter={name!r}: its tokenizer has no {missing} token; put the model's own tokenizer into the folder")
    require_vocabulary(tokenizer, config, name, ends.values())
    return config, tokenizer


class SparseT5Inverter(Inverter):
    """A ``T5ForConditionalGeneration`` read as the paper reads it.

    Args:
        model: the T5; see ``encode_outputs`` for what its config may say.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, hash: str) -> None:
        self.model, self.tokenizer, self.name, self.hash = model, tokenizer, name, hash
        # Of one set of outputs many prompts are asked about, one after the other.
        self._encoded: Recent[tuple[str, ...], tuple[torch.Tensor, torch.Tensor]] = Recent(KEPT_ENCODINGS)

    @classmethod
    def from_folder(cls, folder: Path, *, name: str, device: str, dtype: torch.dtype) -> SparseT5Inverter:
        """Load any T5 folder (config, safetensors weights, tokenizer); nothing is fetched.

        Raises:
            OSError: transformers cannot read the folder.
            ValueError: see ``check_small_files``, or weights are missing.
        """
        from transformers import T5ForConditionalGeneration

        tokenizer = check_small_files(folder, name)[1]
        model = whole_model(T5ForConditionalGeneration, folder, f"inverter={name!r}", dtype=dtype)
        files = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".json"})
        digest = content_hash([[path.name, file_sha256(path)] for path in files])[:SHORT_HASH_DIGITS]
        return cls(model.to(device).eval(), tokenizer, name=name, hash=digest)

    @torch.inference_mode()
    def invert(self, outputs: OutputSets, max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS, batch_size: int | None = None) -> list[str]:
        """See ``Inverter.invert``; greedy, as in the paper."""
        from transformers.modeling_outputs import BaseModelOutput

        texts: list[str] = []
        size = batch_size or DEFAULT_BATCH_SIZE
        for start in range(0, len(outputs), size):
            hidden, mask = encode_outputs(self.model, self.tokenizer, outputs[start : start + size])
            ids = self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                attention_mask=mask,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
            )
            texts += [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return texts

    @torch.inference_mode()
    def token_nll(self, outputs: OutputSets, prompts: Sequence[str]) -> list[list[float]]:
        """See ``Inverter.token_nll``."""
        from transformers.modeling_outputs import BaseModelOutput

        check_pairs(outputs, prompts)
        result = []
        for lines, prompt in zip(outputs, prompts):
            hidden, mask = self._encoded.get(tuple(lines), lambda own: encode_outputs(self.model, self.tokenizer, [own]))
            labels = torch.tensor(text_ids(self.tokenizer, [prompt]), device=self.model.device)
            logits = self.model(encoder_outputs=BaseModelOutput(last_hidden_state=hidden), attention_mask=mask, labels=labels).logits
            losses = torch.nn.functional.cross_entropy(logits[0].float(), labels[0], reduction="none")
            result.append(losses.tolist())
        return result
