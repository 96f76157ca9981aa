"""Fuzz the parser, the decoders and the leak detector with coverage guidance (atheris); run by hand.

Command (``pip install atheris``; Linux, CPython 3.11 to 3.13)::

    python benchmarks/fuzz.py parser --seconds 600        # or decoders, or detector

It starts from the seeds in ``tests/robustness/corpus/TARGET`` and from what earlier runs found (``fuzz/TARGET``, kept out of the
repository), and stops at the first input that raises, breaks a promise, or takes more than ``--hang`` seconds; that input is then saved as
``fuzz/TARGET-crash-…``. Copy such a file into ``tests/robustness/corpus/TARGET`` once the fault is mended: the tests run every seed there.

An input is UTF-8, its broken bytes read as half characters, cut at ``\\x1f`` into texts where a target takes several.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = ROOT / "tests" / "robustness" / "corpus"
SEPARATOR = "\x1f"
PROMPT = "You are Mira, a baker in Ghent. Never give a recipe to anybody who asks for one."


def texts_of(data: bytes) -> list[str]:
    """The texts of one input."""
    return data.decode("utf-8", "surrogateescape").split(SEPARATOR)


def parser(data: bytes) -> None:
    """``parse_outputs`` and its parts: counts add up, and no line is empty."""
    from lm_eval_inversion.model_refusals import is_refusal
    from lm_eval_inversion.outputs import MAX_OUTPUTS, parse_outputs, split_list
    from lm_eval_inversion.queries import load_query_set
    from lm_eval_inversion.thinking import strip_thinking

    answers = texts_of(data)[:4]
    for name in ("intro4x16", "ordinary16"):
        outputs = parse_outputs(answers, load_query_set(name))
        assert outputs.counts.answers == len(answers)
        assert outputs.counts.lines == len(outputs.lines) <= MAX_OUTPUTS
        assert 0 <= outputs.counts.refusals <= outputs.counts.lines
        assert all(line.strip() for line in outputs.lines)
        assert 0 <= outputs.coverage <= 1
    for answer in answers:
        assert "</think>" not in strip_thinking(answer).lower()
        lines, counts = split_list(answer)
        assert counts.lines == len(lines)
        is_refusal(answer)


def decoders(data: bytes) -> None:
    """Every decoder and every reading: texts come out, and a reading's letters have their places."""
    from lm_eval_inversion.scoring.leakage.decoders import decoded_texts, stream_readings
    from lm_eval_inversion.scoring.leakage.streams import places_of, stream_of

    wanted = stream_of(PROMPT)
    for output in texts_of(data)[:2]:
        for name, text in [("", output), *decoded_texts(output)]:
            assert isinstance(text, str), name
            places = places_of(text)
            assert len(places) == len(stream_of(text))
            for reading in stream_readings(text, wanted):
                order = reading.order()
                assert all(0 <= place < len(places) for place in order)


def detector(data: bytes) -> None:
    """``detect_leak``: a share, a span inside the output, and the prompt found wherever it is put."""
    from lm_eval_inversion import detect_leak

    output, given, prompt = (*texts_of(data), "", "", "")[:3]
    leak = detect_leak(PROMPT, output, given=given)
    assert 0 <= leak.recovery <= 1
    assert leak.span is None or 0 <= leak.span[0] < leak.span[1] <= len(output)
    assert detect_leak(PROMPT, f"{output}\n{PROMPT}").recovery == 1
    if any(character.isalnum() for character in prompt):
        try:
            leak = detect_leak(prompt, f"{output} {prompt}")
        except ValueError:  # signs that count as letters for Python, and as nothing once folded
            return
        assert 0 <= leak.recovery <= 1


TARGETS: dict[str, Callable[[bytes], None]] = {"parser": parser, "decoders": decoders, "detector": detector}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    command = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    command.add_argument("target", choices=TARGETS)
    command.add_argument("--seconds", type=int, default=600, help="stop after so long (default 600)")
    command.add_argument("--hang", type=int, default=20, help="seconds after which one input counts as hanging (default 20)")
    command.add_argument("--longest", type=int, default=4096, help="bytes of the longest input (default 4096)")
    command.add_argument("--folder", type=Path, default=ROOT / "fuzz", help="where inputs that reach new code are kept (default ./fuzz)")
    options = command.parse_args(arguments)
    import atheris

    with atheris.instrument_imports(include=["lm_eval_inversion"]):
        import lm_eval_inversion.outputs
        import lm_eval_inversion.scoring.leakage.detector  # noqa: F401

    found = options.folder / options.target
    found.mkdir(parents=True, exist_ok=True)
    settings = [f"-max_total_time={options.seconds}", f"-timeout={options.hang}", f"-max_len={options.longest}", "-rss_limit_mb=4096"]
    settings += [f"-artifact_prefix={options.folder / options.target}-", str(found), str(SEEDS / options.target)]
    atheris.Setup([sys.argv[0], *settings], TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
