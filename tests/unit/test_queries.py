import logging

import pytest
from conftest import TEMPLATE, TEMPLATE_DROPS_SYSTEM, TEMPLATE_REFUSES_SYSTEM, make_tokenizer

from lm_eval_inversion.queries import (
    conversation,
    detect_system_role,
    load_query_set,
    query_set_names,
    require_prompt_in_request,
    require_room,
)


def renderer(template):
    tokenizer = make_tokenizer(template)
    return lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_query_sets_have_the_papers_sizes():
    for name in ("intro4x16", "intro4x16-paper"):
        assert [query.items for query in load_query_set(name).queries] == [16] * 4
    assert len(load_query_set("ordinary16").queries) == 16
    assert len({load_query_set(name).hash for name in query_set_names()}) == len(query_set_names())


def test_ordinary_messages_do_not_ask_about_the_assistant():
    for query in load_query_set("ordinary16").queries:
        words = query.text.lower()
        assert not any(word in words for word in ("yourself", "assistant", "instruction", "prompt", "who are you", "your name"))


@pytest.mark.parametrize("number", [0, -1, 17, True, 2.0, "3"])
def test_num_queries_out_of_range(number):
    with pytest.raises(ValueError, match="give a whole number from 1 to 16"):
        load_query_set("ordinary16").first(number)


def test_unknown_query_set():
    with pytest.raises(ValueError, match="'nope' does not exist; known: intro4x16"):
        load_query_set("nope")


def test_a_template_with_a_system_role_is_used():
    assert detect_system_role(renderer(TEMPLATE)) == "system"


@pytest.mark.parametrize("template", [TEMPLATE_DROPS_SYSTEM, TEMPLATE_REFUSES_SYSTEM])
def test_without_system_role_the_prompt_is_folded_into_the_user_turn(template, caplog):
    render = renderer(template)
    with caplog.at_level(logging.WARNING):
        assert detect_system_role(render) == "user"
    assert len(caplog.records) == 1
    assert "system_role=user" in caplog.text
    require_prompt_in_request("Be a pirate.", render(conversation("Be a pirate.", "Hello!", "user")))


@pytest.mark.parametrize(
    ("template", "role"),
    [
        ("{% if messages[0]['role'] == 'system' %}<sys>{{ messages[0]['content'] }}</sys>{% endif %}" + TEMPLATE, "system"),
        ("{{ messages[-1]['content'] }}" + TEMPLATE_DROPS_SYSTEM, "user"),
    ],
)
def test_a_template_that_writes_the_system_prompt_twice_is_told(template, role, caplog):
    with caplog.at_level(logging.WARNING):
        assert detect_system_role(renderer(template)) == role
    assert caplog.text.count("writes the system prompt 2 times into every request") == 1
    caplog.clear()
    detect_system_role(renderer(TEMPLATE))
    assert not caplog.records


def test_a_template_that_drops_everything_is_refused():
    with pytest.raises(ValueError, match="no system prompt can reach the model"):
        detect_system_role(lambda messages: "<s>")


def test_a_request_without_its_prompt_is_refused():
    for named, text in (((), "of 12 characters"), (("mine-07",), "'mine-07'")):
        with pytest.raises(ValueError, match=f"changed or dropped the system prompt {text}") as found:
            require_prompt_in_request("Be a pirate.", "user: Hello!", *named)
        assert "pirate" not in str(found.value)  # prompts may be private
    require_prompt_in_request('Say "ahoy"\nand é.', r'[{"role": "system", "content": "Say \"ahoy\"\nand \u00e9."}]')


def test_a_request_that_would_be_cut_is_refused():
    require_room("p", 90, 10, 100, "shorten it")
    with pytest.raises(ValueError, match="'p' has 91 tokens.*context of 100.*shorten it"):
        require_room("p", 91, 10, 100, "shorten it")
