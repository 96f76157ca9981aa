from dataclasses import asdict

import pytest

from lm_eval_inversion.outputs import parse_outputs, split_list
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.queries.sets import Query, QuerySet


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("1: I bake.\n2: I sing.", ["I bake.", "I sing."]),
        ("1. I bake.\n2) I sing.\n(3) I read.", ["I bake.", "I sing.", "I read."]),
        ("- I bake.\n* I sing.\n• I read.", ["I bake.", "I sing.", "I read."]),
        ("**1:** I bake.\n**2:** **I sing.**", ["I bake.", "I sing."]),
        ("Sure! Here are 16 sentences:\n\n1: I bake.\n2: I sing.\n\nLet me know if you want more!", ["I bake.", "I sing."]),
        ("I bake.\nI sing.\n\nI read.", ["I bake.", "I sing.", "I read."]),
        ("1: I bake.\nAnd I like it.\n2: I sing.", ["I bake. And I like it.", "I sing."]),
        ('1: "I bake."\n2: “I sing.”', ["I bake.", "I sing."]),
        ("1: I bake. 2: I sing. 3: I read.", ["I bake.", "I sing.", "I read."]),
        ("Sure: 1: I bake. 2: I sing.", ["I bake.", "I sing."]),
        ("I said 1: I bake. 2: I sing.", ["I said 1: I bake. 2: I sing."]),
        ("1: See page 7: it says so. 2: I sing.", ["See page 7: it says so.", "I sing."]),
        ("Line 1: I bake.\nLine 2: I sing.", ["I bake.", "I sing."]),
        ("1) Sentence 1: I bake.\n2) Sentence 2: I sing.", ["I bake.", "I sing."]),
        ("- **Line 1:** I bake.\n- **Line 2:** I sing.", ["I bake.", "I sing."]),
        ("1) Line 1 - I bake.\n2) Line 2 – I sing.", ["I bake.", "I sing."]),
        ("- I offer two things: 1. cake 2. bread", ["I offer two things: 1. cake 2. bread"]),
        ("1. Item 4 of the menu is bread.\n2. Line 9 is the tram.", ["Item 4 of the menu is bread.", "Line 9 is the tram."]),
        ("16. I bake 24-hour bread at 4:30.", ["I bake 24-hour bread at 4:30."]),
        ("3.5 litres of milk\n2.5 litres of oil", ["3.5 litres of milk", "2.5 litres of oil"]),
        ("1. I bake.\n   - bread\n   - rolls\n2. I sing.", ["I bake. bread rolls", "I sing."]),
        ("1. I bake.\n\n   * bread\n\n2. I sing.", ["I bake. bread", "I sing."]),
        ("1. I bake.\n\n   * bread\nand rolls.\n\nEnjoy!", ["I bake. bread and rolls."]),
        ("1:\n\nI bake.\nAnd I like it.\n\n2: I sing.\n\nEnjoy!", ["I bake. And I like it.", "I sing."]),
        ("1. I bake.\n- I sing.", ["I bake.", "I sing."]),
        ("- I bake.\n  - I sing.", ["I bake.", "I sing."]),
        ("Sure, as you asked:\n“1: I bake.”\n“2: I sing.”", ["I bake.", "I sing."]),
        ('Sure:\n"1: I bake."\n"2: I sing."', ["I bake.", "I sing."]),
        ('"1": I bake.\n"2": I sing.', ["I bake.", "I sing."]),
        ("“1:” I bake.\n“2:” I sing.", ["I bake.", "I sing."]),
        ('**"1: I bake."**\n**"2: I sing."**', ["I bake.", "I sing."]),
        ('1: I say "bread."\n2: I sing.', ['I say "bread."', "I sing."]),
        ('paths:\n"201": created', ["paths:", '"201": created']),
        ("Scenario 1: I bake.\n**Question 2:** I sing.\n### Example 3 - I read.", ["I bake.", "I sing.", "I read."]),
        ("Comparison 1) I bake.\nComparison 2) I sing.", ["I bake.", "I sing."]),
        ("No. 1: I bake.\nNo.2: I sing.\n№ 3: I read.", ["I bake.", "I sing.", "I read."]),
        ("**Scenario 1**\nI bake.\n\n**Scenario 2**\n\nI sing.", ["I bake.", "I sing."]),
        ("Line 9 is the tram.\nNo. 7 is the bus.", ["Line 9 is the tram.", "No. 7 is the bus."]),
        ("1、我烤面包。\n２：我唱歌。\n3．我看书。", ["我烤面包。", "我唱歌。", "我看书。"]),
        ("1\ufe0f\u20e3 I bake.\n\U0001f51f I sing.\n1\ufe0f\u20e31\ufe0f\u20e3 I read.", ["I bake.", "I sing.", "I read."]),
        ("#1 I bake.\n#2: I sing.", ["I bake.", "I sing."]),
        ("# 1 thing I bake\n# 2 things I sing", ["# 1 thing I bake", "# 2 things I sing"]),
        ("Sure! Here are 16 scenarios:\nI bake.\nI sing.", ["I bake.", "I sing."]),
        ("I bake.\nI love:\nbread", ["I bake.", "I love:", "bread"]),
        ("| Job | Thing |\n|---|:-:|\n| Baking | bread |\n| Singing | songs |", ["Baking: bread", "Singing: songs"]),
        ("| # | Job |\n|--|--|\n| 1 | I bake. |\n| 2 | I sing. |", ["I bake.", "I sing."]),
        ("Jobs:\n\nJob | Thing\n--- | ---\nBaking | bread\nSinging | songs", ["Baking | bread", "Singing | songs"]),
        ("I bake.\n---\nI sing.\n* * *\n()\n\U0001f35e", ["I bake.", "I sing.", "\U0001f35e"]),
        ("1: I bake.\n---\n2: I sing.\n***\nEnjoy!", ["I bake.", "I sing."]),
        ("1: []\n2: I sing.", ["[]", "I sing."]),
        ("1. **Bread**\n\n   I bake it.\n\n2. **Songs**\n\n   I sing them.\n\nEnjoy!", ["Bread I bake it.", "Songs I sing them."]),
        ("- Bread\n\n  I bake it.\n\n- Songs\n\nEnjoy!", ["Bread I bake it.", "Songs"]),
        ("1: I bake.\n\nI sing.\n\nI read.\n\nI never sleep.", ["I bake.", "I sing.", "I read.", "I never sleep."]),
        ("Sure:\n1: I bake.\nI sing.\nI read.", ["I bake.", "I sing.", "I read."]),
        ("1:\nI bake.\nI sing.\nI read.", ["I bake.", "I sing.", "I read."]),
        ("1: I bake.\nAnd I like it.", ["I bake. And I like it."]),
        ("1: I bake.\n\nEnjoy!", ["I bake."]),
        ("2: I bake.\nAnd sing.\nAnd read.", ["I bake. And sing. And read."]),
        ("- I bake.\nAnd sing.\nAnd read.", ["I bake. And sing. And read."]),
        ("1. I bake\n   - bread\nand\nrolls.", ["I bake bread and rolls."]),
        ("### 1. Focus\n\nI bake bread.\n\n### 2. Tone\n\nI am warm.", ["Focus I bake bread.", "Tone I am warm."]),
        ("1. **Focus:**\n\nI bake\nbread.\n\nOften.\nYes.\n\n2. *Tone*\n\nI sing.\n\nBye!", ["Focus: I bake bread.", "*Tone* I sing."]),
        ("**1. Focus**\n\nI bake.\n---\n**2. Who am I?**\n\nMira.", ["Focus I bake.", "Who am I? Mira."]),
        ("1. Focus\n\nI bake.\n\n2. Tone", ["Focus I bake.", "Tone"]),
        ("1. I bake.\n2. I sing.\n\n**More**\n\n3. I read.\n\nBye!", ["I bake.", "I sing.", "I read."]),
        ("1. bread\n2. rolls\n\nAnd later\n\n3. cake\n\nBye!", ["bread", "rolls", "cake"]),
        ("- bread\n\nBye!", ["bread"]),
        ("**Baked**\n- bread\n\n**Sung**\n- songs\n\n**Read**\n- books", ["bread", "songs", "books"]),
        ("- bread\n\n**Sung**\n\n- songs\n\nAnd read:\n\n- books", ["bread", "songs", "books"]),
        ("- bread\n\nSung\n- songs\n\nRead\n- books", ["bread", "songs", "books"]),
        ("", []),
    ],
)
def test_split_list(text, lines):
    assert split_list(text)[0] == lines


def test_labelled_repeats_are_repeats():
    lines, counts = split_list("Scenario 1: I bake.\nScenario 2: I bake.\n1) Scenario 3: I bake.")
    assert (lines, counts.repeats) == (["I bake."], 2)


def test_outputs_without_numbers_behind_the_first_are_counted():
    outputs = parse_outputs(["1: I am Mira.\n\nI live in Ghent.\n\nI love bread.\n\nI love bread."], load_query_set("intro4x16"))
    assert outputs.lines == ("I am Mira.", "I live in Ghent.", "I love bread.")
    assert outputs.counts.repeats == 1


def test_repeats_and_empties_are_counted_not_kept():
    lines, counts = split_list("1: I bake.\n2: i  BAKE.\n3:\n4: I sing.")
    assert lines == ["I bake.", "I sing."]
    assert (counts.repeats, counts.empty, counts.lines) == (1, 1, 2)


@pytest.mark.parametrize(
    ("kind", "answers", "counted"),
    [
        ("message", ["Hello."], {"lines": 1}),
        ("message", ["Hello, I am Mi"], {"lines": 1, "truncated": 1}),
        ("message", ["Hello.", "", "<think>hm"], {"lines": 1, "empty": 2}),
        ("message", ["Hello.", "hello. "], {"lines": 1, "repeats": 1}),
        ("message", ["I can't share that.", "Bread."], {"lines": 2, "refusals": 1}),
        ("list", ["1: I bake.\n2: I sing."], {"lines": 2}),
        ("list", ["1: I bake.\n2: I sing.\n3: I wake up at fo"], {"lines": 3, "truncated": 1}),
        ("list", ["1: I bake.\n2: singing\n3: I read.\n4: I wake up at fo"], {"lines": 4, "truncated": 1}),  # most lines end properly
        ("list", ["1: I bake.\n2: singing\n3: I wake up at fo"], {"lines": 3}),  # half of them do
        ("list", ["1: baking\n2: singing\n3: reading"], {"lines": 3}),
        ("list", ["", "1: I bake."], {"lines": 1, "empty": 1}),
        ("list", ["1: I bake.\n2:\n3: I sing."], {"lines": 2, "empty": 1}),
        ("list", ["1:\n2:\n3:"], {"empty": 3}),  # the lines, and not the answer once more
        ("list", ["1: I bake.\n2: i  BAKE.", "1: I bake."], {"lines": 1, "repeats": 2}),
        ("list", ["\n".join(f"{number}: I am number {number}." for number in range(1, 18))], {"lines": 16}),
    ],
)
def test_what_becomes_of_answers_is_counted(kind, answers, counted):
    queries = load_query_set({"message": "ordinary16", "list": "intro4x16"}[kind])
    counts = asdict(parse_outputs(answers, queries).counts)
    requested = sum(query.items for query in queries.queries)
    assert {name: count for name, count in counts.items() if count} == {"answers": len(answers), "requested": requested, **counted}


def test_no_model_has_more_outputs_than_the_inverter_reads():
    queries = QuerySet("own", "list", (Query("a", "40 lines, please.", 40), Query("b", "And 40 others.", 40)))
    answers = ["\n".join(f"- {name} {number}." for number in range(40)) for name in ("Loaf", "Song")]
    outputs = parse_outputs(answers, queries)
    assert outputs.counts.lines == len(outputs.lines) == 64
    assert outputs.lines[39:41] == ("Loaf 39.", "Song 0.")


@pytest.mark.parametrize("sign", ["\n", "\r\n", "\r"], ids=["unix", "windows", "mac"])
def test_any_line_break_parts_lines(sign):
    answer = sign.join(["- I bake.", "And I like it.", "- I sing."])
    assert parse_outputs([answer], load_query_set("intro4x16")).lines == ("I bake. And I like it.", "I sing.")


def test_reasoning_of_any_length_is_left_out_before_an_answer_is_cut():
    queries = load_query_set("ordinary16").first(2)
    thought = "I must not say that I am Mira. " * 1000
    found = parse_outputs([f"{thought}</think>The real answer.", f"<think>{thought}</think>Another."], queries)
    assert found.lines == ("The real answer.", "Another.")


def test_a_model_that_answers_nothing_has_coverage_zero():
    queries = load_query_set("intro4x16")
    outputs = parse_outputs(["", " \n", "<think>hm", "1:\n2:"], queries)
    assert outputs.lines == ()
    assert outputs.coverage == 0
    assert outputs.usable == 0
    assert outputs.counts.answers == 4
    assert outputs.counts.requested == 64


def test_refusals_are_kept_but_do_not_count_as_usable():
    queries = load_query_set("ordinary16").first(3)
    outputs = parse_outputs(["I'm sorry, I can't do that."] * 2 + ["Bread helps."], queries)
    assert outputs.counts.lines == 2
    assert outputs.counts.repeats == 1
    assert outputs.usable == 1
    assert outputs.coverage == pytest.approx(1 / 3)


def test_one_item_among_others_refuses_nothing():
    assert split_list("1: I bake.\n2: I can't help with taxes.\n3: I won't share that recipe.")[1].refusals == 0
    assert split_list("1: I'm sorry, I can't help with that.\n2: I won't share that.")[1].refusals == 2
    assert split_list("1: I'm sorry, I can't help with that.")[1].refusals == 1
    assert split_list("I'm sorry, I can't help with that.\n\nAsk me about bread.")[1].refusals == 1
    lists = ["1: I bake.\n2: I can't help with taxes.", "1: I'm sorry, I can't help with that."]
    outputs = parse_outputs([*lists, *lists], load_query_set("intro4x16"))
    assert (outputs.counts.lines, outputs.counts.refusals, outputs.counts.repeats) == (3, 1, 3)


def test_more_answers_than_queries_is_an_error():
    with pytest.raises(ValueError, match="3 answers to the 2 queries"):
        parse_outputs(["a", "b", "c"], load_query_set("ordinary16").first(2))
