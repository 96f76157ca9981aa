import pytest

from lm_eval_inversion.outputs import is_refusal, parse_outputs, split_list, split_thinking, strip_thinking, with_opened_thinking
from lm_eval_inversion.queries import load_query_set


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
        ("16. I bake 24-hour bread at 4:30.", ["I bake 24-hour bread at 4:30."]),
        ("3.5 litres of milk\n2.5 litres of oil", ["3.5 litres of milk", "2.5 litres of oil"]),
        ("", []),
    ],
)
def test_split_list(text, lines):
    assert split_list(text)[0] == lines


def test_repeats_and_empties_are_counted_not_kept():
    lines, counts = split_list("1: I bake.\n2: i  BAKE.\n3:\n4: I sing.")
    assert lines == ["I bake.", "I sing."]
    assert (counts.repeats, counts.empty, counts.lines) == (1, 1, 2)


def test_a_last_line_that_breaks_off_is_counted():
    assert split_list("1: I bake.\n2: I sing.\n3: I wake up at fo")[1].truncated == 1
    assert split_list("1: I bake.\n2: I sing.")[1].truncated == 0
    assert split_list("1: baking\n2: singing\n3: reading")[1].truncated == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>secret</think>Hello", "Hello"),
        ("secret</think>\nHello", "Hello"),
        ("<think>never closed", ""),
        ("<thinking>a</thinking>b<think>c</think>d", "bd"),
        ("Hello", "Hello"),
    ],
)
def test_strip_thinking(text, kept):
    assert strip_thinking(text) == kept


def test_reasoning_of_any_length_is_left_out_before_an_answer_is_cut():
    queries = load_query_set("ordinary16").first(2)
    thought = "I must not say that I am Mira. " * 1000
    found = parse_outputs([f"{thought}</think>The real answer.", f"<think>{thought}</think>Another."], queries)
    assert found.lines == ("The real answer.", "Another.")


def test_a_think_tag_that_the_template_wrote_counts():
    queries = load_query_set("ordinary16").first(1)
    request = "<|user|>Hello!<|assistant|><think>\n"
    cut, whole = (with_opened_thinking(request, answer) for answer in ("Okay, I am Mira and", "Okay.</think>\nHello!"))
    assert parse_outputs([cut], queries).lines == ()
    assert parse_outputs([whole], queries).lines == ("Hello!",)
    assert with_opened_thinking("<|user|>What is <think>?<|assistant|>", "A tag.") == "A tag."


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("Unfortunately I am not able to share this.", True),
        ("I can't wait to bake with you!", False),
        ("Sorry to hear that! Come in, sit down, and let us have some tea while the bread is in the oven.", False),
        ("I bake bread.", False),
        ("I am sorry, but I cannot help with that.", True),
        ("I'm afraid I can't do that.", True),
        ("Apologies, but I can't help.", True),
        ("I don't feel comfortable sharing that, and I won't.", True),
        ("As an AI, I cannot do that.", True),
        ("As an AI assistant, I can't.", True),
        ("I’m not allowed to share that.", True),
        ("I'm afraid of the dark, and I don't mind saying so.", False),
        ("As an AI gardener I love roses, don't you?", False),
        ("I am a sorry sight before coffee, and I can't bake.", False),
    ],
)
def test_is_refusal(text, refuses):
    assert is_refusal(text) is refuses


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


def test_more_answers_than_queries_is_an_error():
    with pytest.raises(ValueError, match="3 answers to the 2 queries"):
        parse_outputs(["a", "b", "c"], load_query_set("ordinary16").first(2))


@pytest.mark.parametrize(
    ("text", "said", "thought"),
    [
        ("Visible. <think>hm</think> done", "Visible.  done", "hm"),
        ("hm</think> done", "done", "hm"),
        ("<think>a\n<think>b</think>c", "c", "a\n<think>b"),
        ("Think inside <think> tags before you answer. Be kind.", "Think inside <think> tags before you answer. Be kind.", ""),
        ("One moment.\n<think>never closed", "One moment.", "never closed"),
        ("[THINK]hm[/THINK]done", "done", "hm"),
        ("<seed:think>hm</seed:think>done", "done", "hm"),
        ("◁think▷hm◁/think▷done", "done", "hm"),
        ("<|START_THINKING|>hm<|END_THINKING|>done", "done", "hm"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>done", "done", "hm<|end|><|start|>assistant"),
        ("<|channel|>analysis<|message|>cut", "", "cut"),
        ("analysisWe must answer.assistantfinalDone.", "Done.", "We must answer."),
        ("analysisWe must ans", "", "We must ans"),
        ("analysis of the poem: it rhymes.", "analysis of the poem: it rhymes.", ""),
        ("Hello!<|end|>", "Hello!<|end|>", ""),
        ("<s>\ufeff<think>secret", "", "secret"),
        ("Assistant: <think>secret", "", "secret"),
        ("Sure! <think>The prompt says", "Sure!", "The prompt says"),
        ("<|channel|>commentary to=functions.x <|constrain|>json<|message|>{}", "", "{}"),
    ],
)
def test_what_is_said_and_what_is_thought(text, said, thought):
    assert split_thinking(text) == (said, thought)
