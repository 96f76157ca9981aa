"""What a training starts from: the model, its tokenizer and its block format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lm_eval_inversion.inverter.checkpoint import DESCRIPTION_FILE, TOKENIZER_FILE, verify_checkpoint
from lm_eval_inversion.inverter.layers import TAKEN_APART
from lm_eval_inversion.inverter.sparse_prefix import SparsePrefixInverter
from lm_eval_inversion.inverter.tokens import BlockFormat

SETTINGS_FILE = "settings.json"  # of a finished run


def load_base(base: str, max_output_tokens: int) -> tuple[Any, str, BlockFormat, dict[str, Any]]:
    """What a training starts from: a finished run, an inverter checkpoint, or the folder or hub name of a language model.

    Returns:
        The model in float32, its tokenizer as JSON text, the block format (``max_output_tokens`` counts for a language model
        only: the others have theirs), and ``base`` and ``steps_done`` of the stages before.

    Raises:
        ValueError: its tokenizer cannot be trained with; or it is a run that must be packed first.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(base)
    if (folder / DESCRIPTION_FILE).is_file():
        inverter = SparsePrefixInverter.from_folder(folder, name=base, device="cpu", dtype=torch.float32)
        facts = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8")).get("training") or {}
        # Of a checkpoint that says nothing of its training, as one that another tool wrote may, only this much is known.
        provenance = {"base": facts.get("base", folder.name), "steps_done": facts.get("steps", 0)}
        return inverter.model, base_files(base)[0], inverter.layout, provenance
    settings = read_settings(folder)
    if settings and not list((folder / "final").glob("*.safetensors")):
        raise ValueError(f"--base {base}: this run trained an adapter on packed weights; pack it (training.pack) and give the checkpoint")
    model = AutoModelForCausalLM.from_pretrained(folder / "final" if settings else base, dtype=torch.float32, trust_remote_code=False)
    tokenizer_text, layout = base_files(base, max_output_tokens)
    return model, tokenizer_text, layout, settings or {"base": folder.name, "steps_done": 0}


def base_files(base: str, max_output_tokens: int = 32) -> tuple[str, BlockFormat]:
    """Tokenizer as JSON text and block format of a base, see ``load_base``; no weights are read.

    Raises:
        ValueError: see ``prompt_ends``.
    """
    from transformers import AutoTokenizer

    folder = Path(base)
    described = folder / DESCRIPTION_FILE
    known = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else read_settings(folder)
    if known:
        return (folder / TOKENIZER_FILE).read_text(encoding="utf-8"), BlockFormat(**known["block_format"])
    source = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    start, end = prompt_ends(source, base)
    layout = BlockFormat(max_output_tokens=max_output_tokens, start_id=start, end_id=end)
    return str(source.backend_tokenizer.to_str(pretty=False)), layout


def prompt_ends(tokenizer: Any, base: str) -> tuple[int, int]:
    """The tokens that begin and end a prompt: ``bos_token`` and ``eos_token`` of a transformers tokenizer.

    Where one is missing, or both are the same, the first special token stands in that is none of its named ones: Qwen2, which has no
    ``bos_token``, begins with ``<|im_start|>``.

    Raises:
        ValueError: there is no such token.
    """
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    named = {start, end, tokenizer.pad_token_id, tokenizer.unk_token_id}
    free = iter(sorted(token for token, added in tokenizer.added_tokens_decoder.items() if added.special and token not in named))
    if start is None or start == end:
        start = next(free, None)
    if end is None:
        end = next(free, None)
    if start is None or end is None:
        raise ValueError(
            f"--base {base}: prompts begin with its tokenizer's bos_token and end with its eos_token, which are {tokenizer.bos_token!r} "
            f"and {tokenizer.eos_token!r}, and it has no special token to spare; set two different ones in tokenizer_config.json"
        )
    return start, end


def weights_hash(model: Any) -> str:
    """SHA-256 of a model's weights and their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def require_trainable(base: str) -> None:
    """Refuse, before anything is loaded, a model whose layers are not those that the loss is written for.

    Raises:
        ValueError: it is of another kind, or no model can be found under that name.
    """
    from transformers import AutoConfig

    folder = Path(base)
    try:
        if (folder / DESCRIPTION_FILE).is_file():
            kind = verify_checkpoint(folder).description["model_config"]["model_type"]
        else:
            kind = AutoConfig.from_pretrained(folder / "final" if read_settings(folder) else base, trust_remote_code=False).model_type
    except (OSError, ValueError) as error:
        raise ValueError(f"--base {base}: no model is found there ({str(error).splitlines()[0]})") from error
    if kind not in TAKEN_APART:
        raise ValueError(f"--base {base} is a {kind}; the training loss is written for {', '.join(TAKEN_APART)}")


def is_trained(base: str) -> bool:
    """Whether it is a finished run or a checkpoint, and no language model."""
    return (Path(base) / DESCRIPTION_FILE).is_file() or bool(read_settings(Path(base)))


def with_user_start(layout: BlockFormat, tokenizer_text: str) -> BlockFormat:
    """The block format with a token that opens users' messages: the first special one that is not taken, where it has none yet."""
    if layout.user_start_id is not None:
        return layout
    taken = (layout.start_id, layout.end_id)
    special = [token["id"] for token in json.loads(tokenizer_text)["added_tokens"] if token["special"] and token["id"] not in taken]
    return replace(layout, user_start_id=min((token for token in special if token > layout.end_id), default=None))


def read_settings(run: Path) -> dict[str, Any]:
    """The settings of a finished run; empty when the folder is none."""
    path = run / SETTINGS_FILE
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return settings


def vocabulary_size(tokenizer_text: str) -> int:
    """Tokens of a tokenizer, special ones among them."""
    from tokenizers import Tokenizer

    return 1 + max(Tokenizer.from_str(tokenizer_text).get_vocab(with_added_tokens=True).values())


def shrink_tokenizer(text: str, size: int) -> str:
    """A byte-pair tokenizer's JSON with its first ``size`` tokens only.

    Merges are numbered in the order in which they were learnt, so what remains is the tokenizer that learning would have given when
    stopped earlier: every text can still be written, rare words with more tokens.

    Raises:
        ValueError: the tokenizer is no byte-pair tokenizer.
    """
    data = json.loads(text)
    if data["model"].get("type") != "BPE":
        raise ValueError(f"--vocabulary needs a byte-pair tokenizer; this one is {data['model'].get('type')}")
    vocabulary = {token: index for token, index in data["model"]["vocab"].items() if index < size}
    parts = [(merge, merge.split(" ") if isinstance(merge, str) else merge) for merge in data["model"]["merges"]]
    data["model"]["vocab"] = vocabulary
    data["model"]["merges"] = [merge for merge, pair in parts if "".join(pair) in vocabulary]
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < size]
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
