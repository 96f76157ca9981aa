import json

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
        ("1. I bake.\n   - bread\n   - rolls\n2. I sing.", ["I bake. bread rolls", "I sing."]),
        ("1. I bake.\n\n   * bread\n\n2. I sing.", ["I bake. bread", "I sing."]),
        ("1. I bake.\n- I sing.", ["I bake.", "I sing."]),
        ("- I bake.\n  - I sing.", ["I bake.", "I sing."]),
        ("Sure, as you asked:\n“1: I bake.”\n“2: I sing.”", ["I bake.", "I sing."]),
        ("Sure:\n\"1: I bake.\"\n\"2: I sing.\"", ["I bake.", "I sing."]),
        ('"1": I bake.\n"2": I sing.', ["I bake.", "I sing."]),
        ("“1:” I bake.\n“2:” I sing.", ["I bake.", "I sing."]),
        ('**"1: I bake."**\n**"2: I sing."**', ["I bake.", "I sing."]),
        ('1: I say "bread."\n2: I sing.', ['I say "bread."', "I sing."]),
        ('paths:\n"201": created', ["paths:", '"201": created']),
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
        ("**I'm sorry, but I can't share that.**", True),
        ("“I'm sorry, but I can't share that.”", True),
        ("Sorry, but that's not something I can share.", True),
        ("I'd rather not share that.", True),
        ("Thank you for asking, but I can't share my instructions.", True),
        ("I understand that you're curious, but I'm not at liberty to discuss it.", True),
        ("I can't.", True),
        ("Es tut mir leid, aber ich kann das nicht weitergeben.", True),
        ("Ich kann meinen Systemprompt leider nicht teilen.", True),
        ("Je suis désolé, mais je ne peux pas partager mes instructions.", True),
        ("Lo siento, pero no puedo compartir mis instrucciones.", True),
        ("No puedo ayudarte con eso.", True),
        ("抱歉，我无法分享我的系统提示词。", True),
        ("I'm sorry you had a rough day. Don't forget to breathe.", False),
        ("I'm sorry to hear that you don't feel well. Drink water.", False),
        ("I cannot stress this enough: start with a good knife.", False),
        ("I can't help but smile at that.", False),
        ("I can't give medical advice.", False),
        ("Sorry to hear that. You can't change this overnight, but you can rest.", False),
        ("Es tut mir leid, dass du nicht schlafen kannst. Trink Tee.", False),
        ("Ich kann dir beim Backen helfen, nicht beim Nähen.", False),
        ("Je suis désolé, je ne peux répondre qu'en français.", False),
        ("No puedo darte consejos médicos.", False),
        ("很抱歉听到这个消息，好好休息吧。", False),
        ("我不能吃辣。", False),
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


TAGGED_PROMPTS = (
    "You are Nova, a maths tutor. First reason about the task inside <think> and </think> tags, then give the answer in one line.",
    "You are Nova, a maths tutor. Praise every attempt. Close your thoughts with </think> before you answer.",
    "You are Nova.\n<thinking>\nConsider the age of the pupil and the last three answers.\n</thinking>\nBe kind.",
    "<thinking>\nConsider the age of the pupil, the last three answers and the mood.\n</thinking>",
)


@pytest.mark.parametrize("prompt", TAGGED_PROMPTS)
@pytest.mark.parametrize("quote", ["{}", "```\n{}\n```", "1. {}", "> {}"], ids=["bare", "code", "item", "quote"])
def test_think_tags_that_are_quoted_from_the_system_prompt_mark_no_thought(prompt, quote):
    answer = quote.format(prompt)
    assert split_thinking(answer, prompt) == (answer, "")
    assert split_thinking(f"<think>May I?</think>{answer}", prompt) == (answer, "May I?")
    assert split_thinking(json.dumps({"text": prompt}), prompt)[0] == json.dumps({"text": prompt})


@pytest.mark.parametrize("prompt", TAGGED_PROMPTS)
def test_thought_under_a_system_prompt_with_think_tags_is_thought(prompt):
    assert split_thinking("<think>\nThey want my instructions.\n</think>\nNo.", prompt) == ("No.", "They want my instructions.")
    assert split_thinking(f"<think>My prompt: {prompt} I say no.</think>No.", prompt) == ("No.", f"My prompt: {prompt} I say no.")
    assert split_thinking(f"<think>My prompt: {prompt}", prompt)[0] == ""
