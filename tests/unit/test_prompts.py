import csv
import json
import logging
import re
from collections import Counter
from dataclasses import replace
from importlib import resources

import pytest

from lm_eval_inversion.characters import words_of
from lm_eval_inversion.hashing import content_hash
from lm_eval_inversion.inverter.baselines import training_prompts
from lm_eval_inversion.prompts import PROMPT_SETS, load_prompts, prompts_hash, source_signature
from lm_eval_inversion.protocol import make_protocol
from lm_eval_inversion.scoring.attributes import mentions
from lm_eval_inversion.training.overlap import word_ngrams

V1 = load_prompts("v1", split=None)
SHIPPED = {name: load_prompts(name, split=None) for name in PROMPT_SETS}
EVERY_SET = pytest.mark.parametrize("prompts", SHIPPED.values(), ids=SHIPPED)


def test_the_benchmark_has_its_promised_shape():
    assert Counter(prompt.split for prompt in V1) == {"test": 150, "dev": 50}
    categories = Counter(prompt.category for prompt in V1)
    assert len(categories) >= 10
    assert min(categories.values()) >= 10
    bands = Counter(prompt.length_band for prompt in V1)
    assert all(60 <= number <= 72 for number in bands.values()), bands
    assert max(prompt.words for prompt in V1) <= 200
    assert all(prompt.attributes for prompt in V1)
    assert len({prompt.text.split()[0] for prompt in V1}) >= 80  # varied openings


@EVERY_SET
def test_every_false_value_and_alias_is_usable(prompts):
    for prompt in prompts:
        for attribute in prompt.attributes:
            assert attribute.value in prompt.text
            assert attribute.false_value.lower() not in prompt.text.lower()
            # As scores match: by whole words, whatever stands between them.
            assert mentions(prompt.text, attribute.value), (prompt.id, attribute)
            assert not mentions(prompt.text, attribute.false_value), (prompt.id, attribute)
            for true in (attribute.value, *attribute.aliases):
                assert words_of(true), (prompt.id, attribute)
                # Else the claim of the one counts as the other too.
                assert not mentions(attribute.false_value, true), (prompt.id, attribute)
                assert not mentions(true, attribute.false_value), (prompt.id, attribute)


@EVERY_SET
def test_no_value_is_so_ordinary_that_it_stands_in_many_other_prompts(prompts):
    texts = {prompt.id: f" {' '.join(words_of(prompt.text.lower()))} " for prompt in prompts}
    for prompt in prompts:
        for attribute in prompt.attributes:
            for value in (attribute.value, *attribute.aliases, attribute.false_value):
                words = f" {' '.join(words_of(value.lower()))} "
                others = [name for name, text in texts.items() if words in text and name != prompt.id]
                assert len(others) <= 8, (prompt.id, value, others)


# Numbers and hosts that nobody has: 555-0100 to 555-0199 (North America), Ofcom's free numbers for drama (United Kingdom), and RFC 2606.
TELEPHONE, RESERVED = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ()/.-]{0,2}\d){6,}"), re.compile(r"(?:\d{3}[ -])?555-01\d\d|08081 570 \d{3}")
HOST = re.compile(r"(?:@|//|www\.)[\w.-]+|\b[\w-]+\.(?:ca|ch|com|de|edu|es|eu|fr|gov|ie|info|io|it|net|nl|no|org|se|uk)\b")


def test_telephone_numbers_and_hosts_in_shipped_texts_are_reserved_ones():
    data = resources.files("lm_eval_inversion") / "prompts" / "data"
    texts = [json.dumps(prompt.to_dict(), ensure_ascii=False) for name in PROMPT_SETS for prompt in load_prompts(name, split=None)]
    texts.append((data / "canaries.yaml").read_text(encoding="utf-8"))
    numbers = [number for text in texts for number in TELEPHONE.findall(text)]
    assert {"555-0142", "08081 570 019"} <= set(numbers)
    assert [number for number in numbers if not RESERVED.fullmatch(number)] == []
    hosts = [host.rstrip(".") for text in texts for host in HOST.findall(text)]
    assert "@fjordsend.example" in hosts
    assert [host for host in hosts if not host.endswith(".example")] == []
    # The test can fail:
    for real in ("0800 555 019", "+44 20 7946 1234", "(0)30/1234567", "555-0200"):
        assert not RESERVED.fullmatch(TELEPHONE.search(f"Ring {real}.")[0])
    assert HOST.findall("Write to a@b.com or see shop.co.uk") == ["@b.com", "co.uk"]


def test_the_datasheet_says_how_many_names_stand_in_training_prompts_too():
    def words(text):
        return f" {' '.join(words_of(text))} "

    trained_on = "\n".join(words(text) for text in training_prompts())
    named = [a for prompt in V1 if prompt.split == "test" for a in prompt.attributes if a.slot in ("name", "organisation")]
    proper = [a.value for a in named if a.value != a.value.lower() and a.value != "Public library"]  # the others say of what kind it is
    both = [name for name in proper if words(name) in trained_on]
    data = resources.files("lm_eval_inversion") / "prompts" / "data"
    datasheet = " ".join((data / "DATASHEET.md").read_text(encoding="utf-8").split())
    assert f"of the {len(proper)} proper names of people, things and organisations in the attributes of `test`, {len(both)} " in datasheet


@EVERY_SET
def test_no_two_prompts_of_a_set_share_a_clause(prompts):
    owner: dict = {}
    for prompt in prompts:
        for gram in word_ngrams(prompt.text, 7):
            if len(gram) == 7:
                assert owner.setdefault(gram, prompt.id) == prompt.id, gram


def test_hash_changes_with_content_and_not_with_loading():
    assert prompts_hash(V1) == prompts_hash(load_prompts("v1", split=None))
    assert prompts_hash(V1) != prompts_hash(V1[:-1])
    assert prompts_hash(V1) == prompts_hash(V1[::-1])  # mixed or not, a shipped set is hashed in the order of its file
    own = [replace(prompt, id=f"own-{prompt.id}") for prompt in V1[:2]]
    assert prompts_hash(own) != prompts_hash(own[::-1])


@pytest.mark.parametrize(
    ("source", "split", "known"),
    [
        ("v1", "test", "dc2202b3dbf7"),
        ("v1", "dev", "adb767d717f5"),
        ("v1", None, "7db9bb711e0d"),
        ("user-v1", "test", "ab6e7929e98a"),
        ("user-v1", "dev", "a505dca7ecdd"),
    ],
)
def test_hashes_of_the_shipped_sets_stand_in_results_and_never_change(source, split, known):
    assert prompts_hash(load_prompts(source, split=split)) == known


@pytest.mark.parametrize("source", PROMPT_SETS)
@pytest.mark.parametrize("split", ["test", "dev"])
def test_the_first_prompts_of_a_shipped_set_are_mixed(source, split):
    prompts = load_prompts(source, split=split)
    assert [prompt.id for prompt in prompts] == sorted((prompt.id for prompt in prompts), key=content_hash)
    assert len({prompt.category for prompt in prompts[:8]}) >= 5
    assert list(make_protocol("prompt_inversion_ordinary", prompts=source, split=split).prompts) == prompts


def test_own_files_keep_their_order(tmp_path):
    rows = [{"id": f"p-{number}", "text": f"You bake bread number {number}."} for number in range(20)]
    path = write(tmp_path / "mine.jsonl", "\n".join(map(json.dumps, rows)))
    assert [prompt.id for prompt in load_prompts(path)] == [row["id"] for row in rows]


@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_source_is_no_shipped_set(nothing):
    with pytest.raises(ValueError, match=rf"prompts='{nothing}' names no prompts; give a shipped set \({', '.join(PROMPT_SETS)}\)"):
        make_protocol("prompt_inversion", prompts=nothing)
    assert make_protocol("prompt_inversion", prompts=None).source == "v1/test"


def test_both_splits_together_are_named_so():
    for split in (None, "dev+test", "test+dev"):
        protocol = make_protocol("prompt_inversion", split=split)
        assert len(protocol.prompts) == 200
        assert protocol.source == "v1/dev+test"
    assert source_signature("mine.txt", [V1[0]]) == f"mine.txt/{V1[0].split}"


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
        ("a.jsonl", '{"text": "x"}\n  {"text": x}\n', r"line 2: not JSON \(Expecting value at column 12\)"),
        ("a.jsonl", '{"text": "x"}\n{"text": "\\ud83d!"}\n', r"line 2: 'text' holds half a surrogate pair \(\\ud83d\)"),
        ("a.csv", "", r"line 1: column 'text' is missing \(found: nothing\)"),
        ("a.csv", 'text,n\n"x\nover\nthree lines",1\n\n"",2\n', r"a\.csv line 6: 'text' is empty"),
        ("a.csv", 'text,n\n"x\ny",1\n"x\ny",2\n', r"line 4: same text as line 2"),
        ("a.csv", "text\nBe a pirate.\nBe brief, please.\n", r"line 3: 2 fields, and the header has 1; put texts with commas into double"),
        ("a.csv", 'text,n\nx,1\n"never\nclosed,2\ny,3\n', r"line 3: not CSV"),
        ("a.csv", "text,n,text\nx,1,y\n", r"line 1: column 'text' stands there twice"),
        ("a.csv", "n,text\n1\n", r"line 2: 'text' is empty"),
        ("a.txt", "\n  \nx\ny\n\n \n\nz\n\nx\ny", r"line 10: same text as line 3"),
        ("a.txt", "x\n\n----\n\ny\n", r"a\.txt line 3: 'text' holds no letter or digit, .*; a separator .* is a line of exactly '---'$"),
        ("a.jsonl", '{"text": "x"}\n{"text": "__"}\n', r"a\.jsonl line 2: 'text' holds no letter or digit"),
        ("a.jsonl", '{"text": "\\ud83d"}\n', r"line 1: 'text' holds half a surrogate pair"),
    ],
)
def test_bad_files_name_line_and_mend(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"slot": "name", "value": "Vandersloot"}, "attribute 2 needs the strings 'slot', 'value' and 'false_value'"),
        ({"slot": "Vandersloot", "value": "Mira", "false_value": "Bo"}, "the 'slot' of attribute 2 is unknown"),
        ({"slot": "name", "value": "Vandersloot", "false_value": "Bo"}, "the 'value' of attribute 2 does not stand in the text"),
        ({"slot": "name", "value": "Mira", "false_value": "You are Mira"}, "the 'false_value' of attribute 2 stands in the text"),
        ({"slot": "name", "value": "Mira", "false_value": "Bo", "aliases": "Vandersloot"}, "the 'aliases' of attribute 2 must be a list"),
        ({"slot": "name", "value": ".", "false_value": "Bo"}, "'value' of attribute 2 holds no letter or digit"),
        ({"slot": "name", "value": "Mira", "false_value": "//"}, "'false_value' of attribute 2 holds no letter or digit"),
        ({"slot": "name", "value": "Mira", "false_value": "Bo", "aliases": ["//"]}, "one of the 'aliases' of attribute 2 holds no"),
    ],
)
def test_errors_name_the_line_and_quote_no_private_text(tmp_path, attribute, message):
    good = {"slot": "role", "value": "Mira", "false_value": "a sailor"}
    path = write(tmp_path / "mine.jsonl", json.dumps({"text": "You are Mira.", "attributes": [good, attribute]}))
    with pytest.raises(ValueError, match=rf"mine\.jsonl line 1: {message}") as found:
        load_prompts(path)
    assert not [private for private in ("Vandersloot", "Mira", "Bo") if private in str(found.value)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"id": "bot-0/plain", "text": "Hi.", "category": "canary"}'),
        ("a.csv", "id,text,category\nbot-0/plain,Hi.,canary"),
    ],
)
def test_own_prompts_cannot_pass_for_planted_secrets(tmp_path, name, content):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=r"a\.\w+ line \d: prompt 'bot-0/plain' has the category 'canary'.*give it another one"):
        load_prompts(path)


def test_a_prompt_in_the_place_of_the_header_is_not_quoted(tmp_path):
    path = write(tmp_path / "mine.csv", "You are Mira Vandersloot the baker,id,system prompt\nYou are Bo.,b,c\n")
    with pytest.raises(ValueError, match=r"line 1: column 'text' is missing \(found: \(text\), id, system prompt\)"):
        load_prompts(path)
    path = write(tmp_path / "mine.jsonl", json.dumps({"You are Mira Vandersloot the baker": 1}))
    with pytest.raises(ValueError, match=r"column 'text' is missing \(found: \(text\)\)"):
        load_prompts(path)


def test_wrong_encoding_names_the_line(tmp_path):
    with pytest.raises(ValueError, match=r"line 3: the file is not UTF-8 \(byte 0xe9\); save it as UTF-8"):
        load_prompts(write(tmp_path / "a.txt", "Sois bref.\n\nPr\u00e9sente-toi.", encoding="latin-1"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", "one\nmore\n\ntwo\n\none\nmore\n", 6),
        ("a.jsonl", '\n{"text": "one"}\n\n{"text": "one"}\n', 4),
        ("a.csv", 'n,text\n1,"one\nmore"\n2,two\n3,"one\nmore"\n', 5),
    ],
)
def test_line_numbers_are_those_of_an_editor_whatever_ends_a_line(tmp_path, name, content, line, mark, end):
    path = tmp_path / name
    path.write_bytes(mark + content.replace("\n", end).encode())
    with pytest.raises(ValueError, match=rf"{name} line {line}: same text as line"):
        load_prompts(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_wrong_bytes_right_behind_a_line_end_are_found_there(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"one{end}".encode() + b"\xff")
    with pytest.raises(ValueError, match="line 2: the file is not UTF-8"):
        load_prompts(path)


def test_line_ends_do_not_change_the_prompts(tmp_path):
    lines = 'text,id\n"Be a pirate.\nSing.",x\n'
    (tmp_path / "unix.csv").write_bytes(lines.encode())
    (tmp_path / "windows.csv").write_bytes(lines.replace("\n", "\r\n").encode())
    assert load_prompts(tmp_path / "unix.csv") == load_prompts(tmp_path / "windows.csv")
    assert load_prompts(tmp_path / "unix.csv")[0].text == "Be a pirate.\nSing."


def test_what_a_csv_writer_writes_is_read_back(tmp_path):
    texts = ['Say "hello", always.', "Two\n\nparagraphs, and a comma", "plain"]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "text", ""], *[[f"p{number}", text, ""] for number, text in enumerate(texts)]])
    assert [(prompt.id, prompt.text) for prompt in load_prompts(tmp_path / "a.csv")] == [(f"p{i}", text) for i, text in enumerate(texts)]


REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch):
    """A hub with the given splits; what was asked of it is kept."""
    datasets = pytest.importorskip("datasets")

    def serve(**splits):
        calls = []

        def load_dataset(path, split=None, revision=None):
            calls.append((path, split, revision))
            tables = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
            return datasets.DatasetDict(tables) if split is None else tables[split]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return serve


def test_a_dataset_on_the_hub_is_read_at_its_revision(hub):
    calls = hub(train={"label": [0, 1], "text": ["Be a pirate.", " Be brief.\n"]})
    prompts = load_prompts(f"hub:org/pirates@{REVISION}")
    assert [(prompt.id, prompt.text, prompt.category) for prompt in prompts] == [
        ("row-0001", "Be a pirate.", "own"),
        ("row-0002", "Be brief.", "own"),
    ]
    assert calls == [("org/pirates", None, REVISION)]


def test_split_and_column_of_a_hub_dataset(hub):
    calls = hub(
        train={"text": ["one"], "system_prompt": ["two"], "other": ["three"]},
        test={"text": ["four"], "system_prompt": ["five"], "other": ["six"]},
    )
    name = f"hub:org/p.i-r_ates@{REVISION}"
    assert [load_prompts(name + choice)[0].text for choice in ("", ":train", ":train:text", ":test:other")] == ["five", "two", "one", "six"]
    assert [split for _, split, _ in calls] == [None, "train", "train", "test"]


def test_rows_that_cannot_be_used_are_left_out_aloud(hub, caplog):
    hub(test={"prompt": ["one", "", "two", None, "one ", "three"]})
    with caplog.at_level(logging.WARNING, "lm_eval_inversion"):
        prompts = load_prompts(f"hub:org/pirates@{REVISION}")
    assert [(prompt.id, prompt.text) for prompt in prompts] == [("row-0001", "one"), ("row-0003", "two"), ("row-0006", "three")]
    assert "3 of 6 rows are empty or repeat an earlier one and are left out (the first is row 2)" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:org/pirates", r"needs the full commit hash of 40 hex digits \(there is none, or"),
        ("hub:org/pirates@main", r"needs the full commit hash of 40 hex digits \('main' is not one\).*branches and tags move"),
        (f"hub:org/pirates@{REVISION[:12]}", r"'0123456789ab' is not one"),
        (f"hub:pirates@{REVISION}", r"as in hub:org/name@REVISION\[:split\[:column\]\]"),
        (f"hub:org/pirates@{REVISION}:train:", r"as in hub:org/name@REVISION"),
        (f"hub:org/pirates@{REVISION}", r"has the splits train, validation; name one"),
        (f"hub:org/pirates@{REVISION}:train", r"none of the columns system_prompt, text, prompt, instruction \(found: number, nothing\)"),
        (f"hub:org/pirates@{REVISION}:train:prompts", r"has no column 'prompts' \(found: number, nothing\)"),
        (f"hub:org/pirates@{REVISION}:train:number", r"row 1: column 'number' holds int, not text"),
        (f"hub:org/pirates@{REVISION}:train:nothing", r"column 'nothing' holds no prompts"),
        (f"hub:org/pirates@{REVISION}:dev", r"could not be loaded \(KeyError: 'dev'\); check split and revision"),
    ],
)
def test_bad_hub_names_say_why(hub, name, message):
    hub(train={"number": [1, 2], "nothing": ["", " "]}, validation={"text": ["x"]})
    with pytest.raises(ValueError, match=message):
        load_prompts(name)


def test_an_unreachable_hub_and_an_unknown_dataset_say_what_to_do(monkeypatch):
    datasets = pytest.importorskip("datasets")
    from datasets.exceptions import DatasetNotFoundError

    def raising(error):
        def load_dataset(*_, **__):
            raise error

        return load_dataset

    monkeypatch.setattr(
        datasets, "load_dataset", raising(ConnectionError("Couldn't reach 'org/pirates' on the Hub (OfflineModeIsEnabled)"))
    )
    with pytest.raises(ValueError, match=r"the hub cannot be reached \(.*OfflineModeIsEnabled\)\); go online once"):
        load_prompts(f"hub:org/pirates@{REVISION}")
    monkeypatch.setattr(datasets, "load_dataset", raising(DatasetNotFoundError("Dataset 'org/pirates' doesn't exist")))
    with pytest.raises(ValueError, match="no dataset 'org/pirates' at this revision, or does not show it to you"):
        load_prompts(f"hub:org/pirates@{REVISION}")


def test_the_library_itself_answers_offline_with_the_same_error(tmp_path):
    pytest.importorskip("datasets")  # tests/conftest.py has switched the hub off
    with pytest.raises(ValueError, match="the hub cannot be reached"):
        load_prompts(f"hub:org/pirates@{REVISION}:test")


def test_missing_file_and_split():
    with pytest.raises(FileNotFoundError, match=rf"neither a shipped set \({', '.join(PROMPT_SETS)}\) nor a file"):
        load_prompts("nowhere.txt")
    with pytest.raises(ValueError, match="no split 'train'; splits: test, dev"):
        load_prompts("v1", split="train")


def test_prompts_with_blank_lines_stand_between_separators(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("You are Mira.\n\nNever give a recipe.\n---\n\nYou are Bo.\n --- \n---\n")
    assert [prompt.text for prompt in load_prompts(str(path))] == ["You are Mira.\n\nNever give a recipe.", "You are Bo."]
    path.write_text("You are Mira.\n\nYou are Bo -- a sailor.\n")
    assert len(load_prompts(str(path))) == 2
