"""Hashes that identify data and files in every result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SHORT_HASH_DIGITS = 12
CHUNK_BYTES = 1 << 20


def content_hash(value: Any) -> str:
    """Twelve hex digits of SHA-256 over the canonical JSON of ``value``."""
    canonical = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:SHORT_HASH_DIGITS]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
