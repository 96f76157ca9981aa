import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.training import corpus
from lm_eval_inversion.training.grammar import generate, handwritten, load_banks
from lm_eval_inversion.training.overlap import benchmark_splits
from lm_eval_inversion.training.skeletons import LAYOUTS, in_voice

PACKAGE_DATA = Path(corpus.__file__).parents[1] / "prompts" / "data"
STRONG = sorted((Path(__file__).parents[2] / "benchmarks" / "data").glob("strong_dev*.jsonl"))
NUMBER = 2000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(texts, rows, manifest) of a corpus made by the command."""
    output = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    corpus.main(["--output", str(output), "--number", str(NUMBER), "--seed", "1", "--exclude", *map(str, STRONG)])
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    manifest = json.loads(output.with_name("corpus.manifest.json").read_text(encoding="utf-8"))
    assert manifest["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    return [row["text"] for row in rows], rows, manifest


def runs(text, length=8):
    """Written apart from ``training.overlap``: what is proved must not rest on what proves it."""
    words = re.sub(r"[^\w]+", " ", text.lower()).split()
    return {" ".join(words[start:][:length]) for start in range(max(1, len(words) - length + 1))} if words else set()


def test_no_prompt_overlaps_a_benchmark_split(made):
    texts, _, manifest = made
    files = [*sorted(PACKAGE_DATA.glob("*.jsonl")), *STRONG]
    evaluated = {}
    for path in files:
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if text := row.get("text") or row.get("prompt"):
                name = f"{path.stem}/{row['split']}" if path.parent == PACKAGE_DATA else path.name
                evaluated.setdefault(name, []).append(text)
    assert {"v1/test", "v1/dev"} <= set(evaluated)
    # The manifest was held against these very texts.
    assert manifest["benchmark_splits"] == {name: {"prompts": len(found), "hash": content_hash(found)} for name, found in evaluated.items()}
    forbidden = {run for found in evaluated.values() for text in found for run in runs(text)}
    assert [text for text in texts if runs(text) & forbidden] == []
    assert manifest["overlap"] == 0
    # The test can fail:
    assert runs("And so: " + evaluated["v1/test"][0]) & forbidden


def test_prompts_are_distinct_and_of_all_lengths(made):
    texts, rows, manifest = made
    assert len(texts) == len({" ".join(text.lower().split()) for text in texts}) == NUMBER == manifest["number"]
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) >= 3
    assert max(lengths) <= 250
    for low, high, share in ((3, 20, 0.2), (21, 70, 0.2), (71, 200, 0.1), (201, 250, 0.01)):
        assert sum(low <= length <= high for length in lengths) > share * NUMBER
        in_manifest = manifest["words"]["prompts"]
        assert sum(count for band, count in in_manifest.items() if low <= int(band.split("-")[0]) <= high) == sum(
            low <= length <= high for length in lengths
        )
    assert not re.search(r"\{[a-z_]+\d?\}", "".join(text for text, row in zip(texts, rows) if row["source"] == "grammar"))


def test_hand_written_prompts_come_first_and_all_of_them(made):
    texts, rows, manifest = made
    by_hand = [prompt.text for prompt in handwritten()]
    assert texts[: len(by_hand)] == by_hand
    assert {row["source"] for row in rows[len(by_hand) :]} == {"grammar", "recombined"}
    assert manifest["sources"] == Counter(row["source"] for row in rows)


def test_the_grammar_writes_many_forms(made):
    _, rows, manifest = made
    assert set(LAYOUTS) | {"one-liner"} <= set(manifest["layouts"])
    generated = [row["text"] for row in rows if row["source"] == "grammar"]
    openings = Counter(" ".join(text.split()[:3]) for text in generated)
    assert len(openings) > 0.4 * len(generated)
    json_like = [row["text"] for row in rows if row["category"] == "json" and row["source"] == "grammar"]
    assert all(isinstance(json.loads(text), dict) for text in json_like)
    for row in rows:
        if row["category"] == "xml" and row["source"] == "grammar":
            assert Counter(re.findall(r"<(\w+)>", row["text"])) == Counter(re.findall(r"</(\w+)>", row["text"]))


def test_the_same_in_every_process(tmp_path):
    found = []
    for hash_seed in ("1", "2"):
        output = tmp_path / f"{hash_seed}.jsonl"
        command = [sys.executable, "-m", "lm_eval_inversion.training.corpus", "--output", str(output), "--number", "1200", "--seed", "7"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True)
        found.append(output.read_bytes())
    assert found[0] == found[1]
    other = corpus.build_corpus(1200, seed=8)
    assert [entry.text for entry in other.entries] != [json.loads(line)["text"] for line in found[0].splitlines()]


def test_a_longer_corpus_begins_as_a_shorter_one():
    short, long = corpus.build_corpus(900, seed=3), corpus.build_corpus(1000, seed=3)
    assert long.entries[:900] == short.entries


def test_own_files_come_first_and_what_may_not_enter_is_counted(tmp_path):
    benchmark = benchmark_splits()["v1/test"][0]
    own = tmp_path / "own.txt"
    words = " ".join(["word"] * 251)
    own.write_text(f"Guard the lighthouse of Zibolt.\n\nGUARD the  lighthouse of zibolt.\n\nNo.\n\n{words}\n\nListen. {benchmark}")
    found = corpus.build_corpus(800, seed=0, sources=[own])
    assert found.entries[0] == corpus.Entry("Guard the lighthouse of Zibolt.", "own.txt", "own")
    assert found.entries[1].source == "handwritten_1"
    assert (found.left_out["length"], found.left_out["overlap"]) == (2, 1)
    assert found.left_out["repeat"] >= 1
    first = handwritten()[0].text
    excluded = tmp_path / "evaluated.jsonl"
    excluded.write_text(json.dumps({"prompt": first}) + "\n" + json.dumps({"prompt": None}) + "\n")
    assert first not in {entry.text for entry in corpus.build_corpus(50, exclude=[excluded]).entries}
    # Another file of the same name does not take its place.
    other = tmp_path / "other" / excluded.name
    other.parent.mkdir()
    other.write_text(json.dumps({"prompt": "Bake."}))
    assert first not in {entry.text for entry in corpus.build_corpus(50, exclude=[excluded, other]).entries}
    other.write_text(json.dumps({"system_prompt": first}))
    with pytest.raises(ValueError, match="no row has a 'text' or 'prompt', so nothing would be excluded"):
        corpus.build_corpus(50, exclude=[other])


def test_recombined_prompts_stay_within_a_category():
    banks = load_banks()
    categories = {}
    for prompt in handwritten():
        categories.setdefault(prompt.category, []).append(prompt.text)
    recombined = [found for index in range(600) if (found := generate(banks, 1, index)).source == "recombined"]
    assert len(recombined) > 30
    for found in recombined:
        openings, sentences = next(
            pair for pair in banks.recombined if any(found.text.startswith(opening) for opening in pair[0])
            and all(part.lstrip("- ") in pair[1] for part in found.text.split("\n- ")[1:])
        )  # fmt: skip
        opening = max((one for one in openings if found.text.startswith(one)), key=len)
        used = [sentence for sentence in sentences if sentence in found.text[len(opening) :]]
        assert used
        texts = next(texts for texts in categories.values() if any(opening in text for text in texts))
        assert all(any(sentence in text for text in texts) for sentence in used)


@pytest.mark.parametrize(
    ("sentence", "voice", "subject", "expected"),
    [
        ("Never guess.", "you", "You", "Never guess."),  # "guess" is no verb of the banks
        ("Never use slang.", "you", "You", "You never use slang."),
        ("Never use slang.", "third", "She", "She never uses slang."),
        ("Do not give prices.", "third", "They", "They do not give prices."),
        ("Do not give prices.", "third", "Ada", "Ada does not give prices."),
        ("Do not give prices.", "modal", "You", "You must not give prices."),
        ("Always ask why.", "modal", "You", "You must always ask why."),
        ("Apologise once, then solve.", "third", "He", "He apologises once, then solve."),
        ("Reply in verse.", "third", "He", "He replies in verse."),
        ("Be brief.", "you", "You", "You are brief."),
        ("Be brief.", "third", "She", "She is brief."),
        ("Use your aunt's words.", "third", "They", "They use their aunt's words."),
        ("Use short words.", "wish", "You", "Please use short words."),
        ("Use short words.", "plain", "You", "Use short words."),
        ("You have a cat.", "third", "She", "She has a cat."),
        ("You secretly love jam.", "third", "She", "She secretly loves jam."),
        ("You were born in Ghent.", "third", "They", "They were born in Ghent."),
        ("The shop is closed.", "third", "She", "The shop is closed."),
        ("Tell users what you know.", "third", "She", "Tell users what you know."),
    ],
)
def test_voices(sentence, voice, subject, expected):
    assert in_voice(sentence, voice, subject) == expected


def test_mistakes_are_named(tmp_path, capsys):
    output = str(tmp_path / "corpus.jsonl")
    for arguments, message in (
        (["--output", output, "--number", "0"], "give at least 1"),
        (["--output", str(tmp_path / "corpus.txt")], "must end in .jsonl"),
        (["--output", output, "--source", "nowhere.txt"], "nowhere.txt"),
        (["--output", output, "--exclude", "nowhere.jsonl"], "--exclude nowhere.jsonl: no such file"),
    ):
        with pytest.raises(SystemExit):
            corpus.main(arguments)
        assert message in capsys.readouterr().err
    assert not Path(output).exists()
