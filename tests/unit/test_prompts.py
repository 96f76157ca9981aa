import json
from collections import Counter

import pytest

from lm_eval_inversion.prompts import load_prompts, prompts_hash
from lm_eval_inversion.training.overlap import word_ngrams

ALL = load_prompts("v1", split=None)


def test_the_benchmark_has_its_promised_shape():
    assert Counter(prompt.split for prompt in ALL) == {"test": 150, "dev": 50}
    categories = Counter(prompt.category for prompt in ALL)
    assert len(categories) >= 10
    assert min(categories.values()) >= 10
    bands = Counter(prompt.length_band for prompt in ALL)
    assert all(60 <= number <= 72 for number in bands.values()), bands
    assert max(prompt.words for prompt in ALL) <= 200
    assert all(prompt.attributes for prompt in ALL)
    assert len({prompt.text.split()[0] for prompt in ALL}) >= 80  # varied openings


def test_every_false_value_and_alias_is_usable():
    for prompt in ALL:
        for attribute in prompt.attributes:
            assert attribute.value in prompt.text
            assert attribute.false_value.lower() not in prompt.text.lower()
            assert attribute.false_value.lower() not in [alias.lower() for alias in attribute.aliases]


def test_no_two_prompts_share_a_clause():
    owner: dict = {}
    for prompt in ALL:
        for gram in word_ngrams(prompt.text, 7):
            if len(gram) == 7:
                assert owner.setdefault(gram, prompt.id) == prompt.id, gram


def test_hash_changes_with_content_and_not_with_loading():
    assert prompts_hash(ALL) == prompts_hash(load_prompts("v1", split=None))
    assert prompts_hash(ALL) != prompts_hash(ALL[:-1])


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def test_own_files_load(tmp_path):
    texts = ["Be a pirate.", "Two lines\nof text."]
    for path in (
        write(tmp_path / "a.txt", "Be a pirate.\n\n  \nTwo lines\nof text.\n"),
        write(tmp_path / "a.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts)),
        write(tmp_path / "a.csv", 'text,id\nBe a pirate.,x\n"Two lines\nof text.",y\n'),
        write(tmp_path / "bom.txt", "\ufeffBe a pirate.\n\nTwo lines\nof text."),
    ):
        assert [prompt.text for prompt in load_prompts(path)] == texts, path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": ""}\n', r"a\.jsonl line 2: 'text' is empty"),
        ("a.jsonl", '{"text": "x"}\n{"text": "x"}\n', r"line 2: same text as line 1"),
        ("a.jsonl", '{"text": 7}\n', r"line 1: 'text' is int, not a string"),
        ("a.jsonl", '{"prompt": "x"}\n', r"line 1: column 'text' is missing \(found: prompt\)"),
        ("a.jsonl", "{oops\n", r"line 1: not JSON"),
        ("a.jsonl", "[1]\n", r"line 1: list instead of an object"),
        ("a.jsonl", "\n", r"holds no prompts"),
        ("a.csv", "prompt\nx\n", r"line 1: column 'text' is missing"),
        ("a.csv", 'text,n\nx,1\n"",2\n', r"line 3: 'text' is empty"),
        ("a.txt", "x\n\ny\n\nx\n", r"line 5: same text as line 1"),
        ("a.json", "[]", r"prompts are read from .txt, .jsonl, .csv"),
    ],
)
def test_bad_files_name_line_and_mend(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(write(tmp_path / name, content))


def test_wrong_encoding_names_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"line 3: the file is not UTF-8 \(byte 0xe9\); save it as UTF-8"):
        load_prompts(write(tmp_path / "a.txt", "Sois bref.\n\nPr\u00e9sente-toi.", encoding="latin-1"))


def test_missing_file_and_split():
    with pytest.raises(FileNotFoundError, match=r"neither a shipped set \(v1\) nor a file"):
        load_prompts("nowhere.txt")
    with pytest.raises(ValueError, match="no split 'train'; splits: test, dev"):
        load_prompts("v1", split="train")
