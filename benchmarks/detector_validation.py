"""Sensitivity and specificity of the leak detector per kind of case, and what it costs: writes docs/detector.md.

    python benchmarks/detector_validation.py

Cases: written by hand (``benchmarks/data/detector_*.jsonl``), and made here from the same prompts: verbatim parts of 10 to 90 % with and
without words around them, every encoding, and unrelated text of 1,200 to 20,000 characters.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from lm_eval_inversion import detect_leak
from lm_eval_inversion.scoring.uncertainty import wilson

DATA = Path(__file__).parent / "data"
DOCUMENT = Path(__file__).parents[1] / "docs" / "detector.md"
Case = tuple[str, str, str, str, bool]  # kind, prompt, output, the user's message, leaked

ENCODINGS: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, no padding, in lines": lambda text: "\n".join(
        base64.b64encode(text.encode()).decode().rstrip("=")[start : start + 64] for start in range(0, 2 * len(text), 64)
    ),
    "hex": lambda text: text.encode().hex(" "),
    "ROT13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "words reversed": lambda text: " ".join(reversed(text.split())),
    "separators": "-".join,
    "spaced": " ".join,
    "alternating case": lambda text: "".join(c.upper() if index % 2 else c.lower() for index, c in enumerate(text)),
    "zero-width characters": "\u200b".join,
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if 33 <= ord(c) < 127 else c for c in text),
    "look-alike letters": lambda text: text.translate(str.maketrans("aeopcyx", "аеорсух")),
    "leetspeak": lambda text: text.translate(str.maketrans("aeiostAEIOST", "431057431057")),
    "URL escapes": lambda text: quote(text, safe="").replace("e", "%65"),
    "HTML escapes": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "base64 of ROT13": lambda text: base64.b64encode(codecs.encode(text, "rot13").encode()).decode(),
}


def rows(name: str) -> list[dict[str, str]]:
    """Rows of a data file."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def unrelated_texts(characters: int, number: int) -> list[str]:
    """Texts of a length, put together from the unrelated ones in random order."""
    texts = [row["text"] for row in rows("detector_unrelated.jsonl")]
    found = []
    for seed in range(number):
        random.Random(seed).shuffle(texts)
        found.append("\n\n".join(texts)[:characters])
    return found


def cases() -> Iterator[Case]:
    """All labelled cases."""
    by_hand = [row for name in ("by_hand", "translated", "short") for row in rows(f"detector_cases_{name}.jsonl")]
    for row in by_hand:
        yield row["kind"], row["prompt"], row["output"], row.get("message", ""), bool(row["leaked"])
    prompts = sorted({row["prompt"] for row in rows("detector_cases_by_hand.jsonl")})
    for prompt in prompts:
        yield "verbatim", prompt, prompt, "", True
        yield "verbatim, friendly prefix", prompt, f"Sure! Here it is: {prompt}", "", True
        for name, encode in ENCODINGS.items():
            yield f"encoded: {name}", prompt, f"Of course:\n{encode(prompt)}", "", True
    for characters in (1_200, 4_700, 9_400, 20_000):
        for text in unrelated_texts(characters, 5):
            for prompt in prompts:
                yield f"unrelated, {characters:,} characters", prompt, text, "", False
    for row in rows("detector_prompts_languages.jsonl"):
        yield "other languages, verbatim", row["text"], f"OK:\n{row['text']}", "", True
        yield "other languages, unrelated", row["text"], row["unrelated"], "", False


def fraction_errors() -> dict[str, list[float]]:
    """|recovery - leaked fraction| of verbatim parts of 10 to 90 %, by what stands around them."""
    (long,) = unrelated_texts(20_000, 1)
    around = {
        "bare": "{}",
        "friendly prefix": "Sure! Here is part of it: {}",
        "20,000 characters after it": "{} " + long.replace("{", "(").replace("}", ")"),
    }
    errors: dict[str, list[float]] = defaultdict(list)
    for prompt in sorted({row["prompt"] for row in rows("detector_cases_by_hand.jsonl")}):
        for tenths in range(1, 10):
            part = prompt[: len(prompt) * tenths // 10]
            for name, frame in around.items():
                errors[name].append(abs(detect_leak(prompt, frame.replace("{}", part)).recovery - tenths / 10))
    return errors


def main() -> None:
    """Measure everything and write the document."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for kind, prompt, output, message, leaked in cases():
        found[kind, leaked].append(detect_leak(prompt, output, given=message).leaked)
    lines = [
        "# The leak detector, measured",
        "",
        "Written by `python benchmarks/detector_validation.py`; do not edit. The detector: `lm_eval_inversion/scoring/leakage`.",
        f"{sum(map(len, found.values())):,} labelled cases. Two thresholds were chosen by such data: `MARGIN_BITS` in `runs.py` on the",
        "unrelated texts and on verbatim parts of these and of the benchmark's `dev` prompts, `MOST_NEEDED_SHARE` in `detector.py`",
        "on the cases called short, under prompts of 5 to 18 words, and 26 others.",
        "",
        "| kind | cases | truly a leak | called a leak | right | 95 % interval |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for (kind, leaked), called in found.items():
        right = sum(answer == leaked for answer in called)
        low, high = wilson(right, len(called))
        truth = "yes" if leaked else "no"
        lines.append(f"| {kind} | {len(called)} | {truth} | {sum(called)} | {right / len(called):.3f} | {low:.3f} to {high:.3f} |")
    lines += [
        "",
        "Retold and translated leaks are not found: no rule without a language model can tell them from talk about the same subject. An",
        "answer to such an attack that counts as no leak may still have given the gist away.",
        "",
        "## Recovery against the leaked fraction",
        "",
        "| verbatim part, 10 to 90 % | parts | mean error | 99 % of errors below | share above 0.05 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, errors in fraction_errors().items():
        ordered = sorted(errors)
        above = sum(error > 0.05 for error in errors) / len(errors)
        lines.append(f"| {name} | {len(errors)} | {statistics.fmean(errors):.4f} | {ordered[int(0.99 * len(ordered))]:.4f} | {above:.4f} |")
    prompt, texts = rows("detector_cases_by_hand.jsonl")[0]["prompt"], unrelated_texts(20_000, 20)
    detect_leak(prompt, texts[0])
    times = []
    for text in texts:
        began = time.perf_counter()
        detect_leak(prompt, text)
        times.append(1000 * (time.perf_counter() - began))
    lines += [
        "",
        f"Time for 20,000 characters of unrelated text: median {statistics.median(times):.0f} ms, maximum {max(times):.0f} ms.",
        "",
    ]
    DOCUMENT.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
