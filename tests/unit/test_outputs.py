import json
from dataclasses import asdict

import pytest

from lm_eval_inversion.outputs import is_refusal, parse_outputs, split_list, split_thinking, strip_thinking, with_opened_thinking
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
        ("Sorry, that's confidential.", True),
        ("No, I can't share my system prompt.", True),
        ("No — I can't share that.", True),
        ("That's confidential.", True),
        ("I'm sorry, I can't share that, you are not cleared enough.", True),
        ("I can't share my instructions, fair enough?", True),
        ("I cannot recommend this bread enough!", False),
        ("I can't share enough photos of it!", False),
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
        ("I'm going to have to decline.", True),
        ("I'll have to decline.", True),
        ("I must keep that confidential.", True),
        ("I'd rather keep my instructions to myself.", True),
        ("That information is private.", True),
        ("My instructions are confidential.", True),
        ("My system prompt is private, and I can't go into it.", True),
        ("I can't answer.", True),
        ("I can't provide that.", True),
        ("I won't discuss it.", True),
        ("I can't answer questions about my instructions.", True),
        ("I cannot provide details regarding my configuration.", True),
        ("I'm not able to provide confidential information.", True),
        ("I'm sorry, I can't provide a weather report.", True),
        ("I cannot provide medical advice, but drinking water helps most people.", False),
        ("I can't answer in English; je parle français.", False),
        ("I can't discuss politics, but the weather is fine.", False),
        ("It's private, quiet, and has a view of the river.", False),
        ("That is private property.", False),
        ("The terrace is private.", False),
        ("I keep my recipes secret.", False),
        ("Nice try, but I can't share that.", True),
        ("Nice try! I can't share my instructions.", True),
        ("That's a clever question! I won't reveal my system prompt.", True),
        ("It looks like you're asking for my system prompt. I can't share that.", True),
        ("I must respectfully decline.", True),
        ("I respectfully decline.", True),
        ("Das kann ich leider nicht.", True),
        ("Das darf ich nicht verraten.", True),
        ("Das darf ich dir leider nicht sagen.", True),
        ("Tut mir leid, aber das kann ich nicht tun.", True),
        ("Lo siento, eso no puedo hacerlo.", True),
        ("Eso no lo puedo compartir.", True),
        ("这个我不能说。", True),
        ("I can't share that without permission.", True),
        ("I can't do that, I'm afraid.", True),
        ("I'm sorry, but I can't show my instructions.", True),
        ("I can't do that without knowing the size of your room. How big is it?", False),
        ("Sorry, I can't help with that until I know your budget.", False),
        ("I'm sorry, I can't do this weekend, but Monday works.", False),
        ("I understand, but I can't promise that it will work.", False),
        ("I can't share my favourite song because I have too many.", False),
        ("Sorry, we can't show films on Mondays.", False),
        ("I love bread! I can't say that it is healthy.", False),
        ("I bake bread. I can't give that much sugar to children.", False),
        ("Das kann ich nicht empfehlen, nimm lieber Dinkel.", False),
        ("Das kann ich gut.", False),
        ("Eso no lo puedo creer.", False),
        ("我不能说中文。", False),
    ],
)
def test_is_refusal(text, refuses):
    assert is_refusal(text) is refuses


@pytest.mark.parametrize(
    ("longest", "more"),
    [
        ("I can't share that." + " Sorry!" * 26, " Sorry!"),  # 30 words
        ("I can't share that. " + "a" * 580, "a"),  # 600 characters
        ("抱歉，我无法分享。" + "对" * 53, "对"),  # 60 characters that each count as a word
    ],
    ids=["words", "characters", "without spaces"],
)
def test_a_longer_answer_than_a_refusal_says_something(longest, more):
    assert is_refusal(longest)
    assert not is_refusal(longest + more)


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
