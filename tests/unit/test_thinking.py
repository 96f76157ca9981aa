import json

import pytest

from lm_eval_inversion.outputs import parse_outputs
from lm_eval_inversion.queries import load_query_set
from lm_eval_inversion.thinking import split_thinking, strip_thinking, with_opened_thinking


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


def test_a_think_tag_that_the_template_wrote_counts():
    queries = load_query_set("ordinary16").first(1)
    request = "<|user|>Hello!<|assistant|><think>\n"
    cut, whole = (with_opened_thinking(request, answer) for answer in ("Okay, I am Mira and", "Okay.</think>\nHello!"))
    assert parse_outputs([cut], queries).lines == ()
    assert parse_outputs([whole], queries).lines == ("Hello!",)
    assert with_opened_thinking("<|user|>What is <think>?<|assistant|>", "A tag.") == "A tag."


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
        ("analysisIt is a word.assistantfinalThe word is assistantfinal.", "The word is assistantfinal.", "It is a word."),
        ("analysisWe must ans", "", "We must ans"),
        ("analysis of the poem: it rhymes.", "analysis of the poem: it rhymes.", ""),
        ("Hello!<|end|>", "Hello!<|end|>", ""),
        ("AI:", "AI:", ""),
        ("<think>hm</think>AI: <br>", "", "hm"),
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
    "<think>Be kind.</think>",  # fewer letters around a tag than are compared elsewhere
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
