"""A corpus of system prompts to collect answers under: hand-written ones first, then the grammar's.

Command::

    python -m lm_eval_inversion.training.corpus --output corpus.jsonl --number 20000 --seed 1 [--source FILE ...]

One object a line, all texts distinct, 3 to 250 words::

    {"text": "Act as a lighthouse keeper.", "source": "handwritten_2", "category": "character"}

No prompt shares a run of eight words with a prompt of any benchmark split; those that do are left out and counted. Beside the corpus
stands a manifest, ``corpus.manifest.json``, that says what it was made from and what it was held against, by hash: with it, the claim can
be checked again. The corpus is a function of the arguments, the files named and the package's version.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_inversion.hashing import content_hash, file_sha256
from lm_eval_inversion.prompts import load_prompts
from lm_eval_inversion.training.grammar import MAX_WORDS, MIN_WORDS, HandWritten, generate, handwritten, load_banks
from lm_eval_inversion.training.overlap import NGRAM, benchmark_splits, ngrams_of, word_ngrams
from lm_eval_inversion.training.rows import read_pairs

BANDS = ((3, 7), (8, 20), (21, 70), (71, 200), (201, 250))  # words; counted in the manifest
LARGEST_INDEX = 100  # times the number wanted: a grammar that repeats itself so often has nothing more to say


@dataclass(frozen=True)
class Entry:
    """A prompt of the corpus.

    Attributes:
        text: the prompt.
        source: "handwritten_1" and so on, the name of a user's file, "grammar" or "recombined".
        category: of a hand-written prompt, or the layout of a generated one.
    """

    text: str
    source: str
    category: str


@dataclass(frozen=True)
class Corpus:
    """What ``build_corpus`` returns.

    Attributes:
        entries: in order, hand-written ones first.
        left_out: reason ("overlap", "repeat", "length") -> how many prompts.
        splits: benchmark split -> its texts, none of which overlaps.
    """

    entries: tuple[Entry, ...]
    left_out: dict[str, int]
    splits: dict[str, list[str]]


def build_corpus(number: int, seed: int = 0, sources: Sequence[Path] = (), exclude: Sequence[Path] = ()) -> Corpus:
    """``number`` distinct prompts.

    Args:
        number: how many; hand-written ones beyond it are cut off.
        seed: of the grammar.
        sources: files of hand-written prompts of your own (``prompts.load_prompts``); they come before those that ship here.
        exclude: JSONL files whose "text" or "prompt" must not overlap either, such as prompts that are only evaluated on.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is malformed, or the grammar cannot write so many distinct prompts.
    """
    splits = benchmark_splits()
    for path in exclude:
        texts = [text for row in _rows(path) if isinstance(row, dict) and (text := row.get("text") or row.get("prompt"))]
        if not texts:
            raise ValueError(f"--exclude {path}: no row has a 'text' or 'prompt', so nothing would be excluded; rename the key")
        splits[path.name if path.name not in splits else str(path)] = texts
    known = ngrams_of(text for texts in splits.values() for text in texts)
    own = [HandWritten(prompt.text, path.name, prompt.category) for path in sources for prompt in load_prompts(path, split=None)]
    entries: list[Entry] = []
    seen: set[str] = set()
    left_out = Counter({"overlap": 0, "repeat": 0, "length": 0})
    for entry in _candidates([*own, *handwritten()], own, seed, LARGEST_INDEX * number):
        if len(entries) == number:
            break
        key = " ".join(entry.text.lower().split())
        if key in seen:
            left_out["repeat"] += 1
        elif not MIN_WORDS <= len(key.split()) <= MAX_WORDS:
            left_out["length"] += 1
        elif word_ngrams(entry.text) & known:
            left_out["overlap"] += 1
        else:
            seen.add(key)
            entries.append(entry)
    if len(entries) < number:
        raise ValueError(f"--number {number}: only {len(entries)} distinct prompts could be written; give more --source files")
    return Corpus(tuple(entries), dict(left_out), splits)


def _candidates(by_hand: Sequence[HandWritten], extra: Sequence[HandWritten], seed: int, most: int) -> Iterator[Entry]:
    for prompt in by_hand:
        yield Entry(prompt.text, prompt.source, prompt.category)
    banks = load_banks(extra)
    for index in range(most):
        found = generate(banks, seed, index)
        yield Entry(found.text, found.source, found.layout)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"--exclude {path}: no such file")
    return read_pairs(path)


def write_corpus(corpus: Corpus, output: Path) -> None:
    """Write the entries as JSONL."""
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"text": entry.text, "source": entry.source, "category": entry.category} for entry in corpus.entries)
    output.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def manifest(corpus: Corpus, output: Path, seed: int) -> dict[str, Any]:
    """What the corpus in the file ``output`` was made from and held against.

    Hashes of splits are ``content_hash`` of their texts in order. ``overlap`` is counted again on what was written.
    """
    lengths = [len(entry.text.split()) for entry in corpus.entries]
    known = ngrams_of(text for texts in corpus.splits.values() for text in texts)
    return {
        "corpus": output.name,
        "sha256": file_sha256(output),
        "number": len(corpus.entries),
        "seed": seed,
        "sources": dict(Counter(entry.source for entry in corpus.entries)),
        "layouts": dict(Counter(entry.category for entry in corpus.entries if entry.source in ("grammar", "recombined"))),
        "words": {
            "fewest": min(lengths),
            "most": max(lengths),
            "total": sum(lengths),
            "prompts": {f"{low}-{high}": sum(low <= length <= high for length in lengths) for low, high in BANDS},
        },
        "benchmark_splits": {name: {"prompts": len(texts), "hash": content_hash(texts)} for name, texts in sorted(corpus.splits.items())},
        "overlap_words": NGRAM,
        "overlap": sum(bool(word_ngrams(entry.text) & known) for entry in corpus.entries),
        "left_out": corpus.left_out,
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m lm_eval_inversion.training.corpus", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", required=True, type=Path, help=".jsonl file, written anew; the manifest is written beside it")
    parser.add_argument("--number", type=int, default=20_000, help="how many prompts (default 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", type=Path, nargs="+", default=[], help=".txt, .jsonl or .csv files of your own prompts")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help=".jsonl files of prompts that must not overlap either")
    options = parser.parse_args(arguments)
    if options.number < 1:
        parser.error(f"--number {options.number}: give at least 1")
    if options.output.suffix != ".jsonl":
        parser.error(f"--output {options.output}: the name must end in .jsonl")
    try:
        corpus = build_corpus(options.number, options.seed, options.source, options.exclude)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    write_corpus(corpus, options.output)
    found = manifest(corpus, options.output, options.seed)
    options.output.with_suffix(".manifest.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    by_hand = sum(entry.source not in ("grammar", "recombined") for entry in corpus.entries)
    print(
        f"{options.output}: {found['number']} prompts ({by_hand} by hand), {found['words']['fewest']} to {found['words']['most']} words; "
        f"overlap with {len(corpus.splits)} benchmark splits: {found['overlap']}; left out: {corpus.left_out}"
    )


if __name__ == "__main__":
    main()
