"""Every seed of the fuzzers, and every input that once broke something, through the functions that are fuzzed."""

import importlib.util
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
CORPUS = Path(__file__).with_name("corpus")
SEEDS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def fuzz():
    if not HARNESS.is_file():
        pytest.skip("benchmarks/fuzz.py is not part of the source distribution")
    spec = importlib.util.spec_from_file_location("fuzz", HARNESS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_seeds_for_every_target(fuzz):
    assert {path.parent.name for path in SEEDS} == set(fuzz.TARGETS)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_seed_breaks_nothing(fuzz, watchdog, seed):
    with watchdog(60):
        fuzz.TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.parametrize(
    ("seed", "decoder"),
    [("base64", "base64"), ("base64_lines", "base64"), ("hex", "hex"), ("percent", "url"), ("html", "html"), ("morse", "morse")]
    + [("unicode_escapes", "backslash"), ("twice", "base64+caesar_13"), ("caesar", "caesar_13"), ("reversed", "reversed")]
    + [("leet", "leetspeak"), ("words_reversed", "reversed_words"), ("mirrored", "mirrored_words")],
)
def test_the_seeds_are_what_their_names_say(fuzz, seed, decoder):
    """So that a fuzzer starts behind every decoder, and not in front of it."""
    from lm_eval_inversion import detect_leak

    leak = detect_leak(fuzz.PROMPT, fuzz.texts_of((CORPUS / "decoders" / seed).read_bytes())[0])
    assert leak.decoder == decoder
    assert leak.leaked
