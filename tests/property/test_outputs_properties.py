from hypothesis import given
from hypothesis import strategies as st

from lm_eval_inversion.outputs import MAX_OUTPUTS, parse_outputs, split_list
from lm_eval_inversion.queries import load_query_set

words = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
sentences = st.lists(words, min_size=2, max_size=8).map(lambda parts: " ".join(parts).capitalize() + ".")
lists = st.lists(sentences, min_size=1, max_size=20, unique_by=str.lower)
markers = st.sampled_from(["{n}: ", "{n}. ", "{n}) ", "({n}) ", "- ", "* ", "**{n}:** ", "{n}.", "  {n}: "])
preambles = st.sampled_from(["", "Sure! Here are 16 short sentences:\n", "Of course.\n\n"])
closings = st.sampled_from(["", "\n\nLet me know if you need more!"])


@given(lists, markers, preambles, closings)
def test_any_common_style_gives_the_same_lines(items, marker, preamble, closing):
    text = preamble + "\n".join(marker.format(n=number) + item for number, item in enumerate(items, 1)) + closing
    assert split_list(text)[0] == items[:MAX_OUTPUTS]


@given(st.text(max_size=400))
def test_no_text_breaks_the_splitter(text):
    lines, counts = split_list(text)
    assert counts.lines == len(lines) <= MAX_OUTPUTS
    assert counts.refusals <= counts.lines
    assert all(line and line == line.strip() for line in lines)
    assert len({" ".join(line.lower().split()) for line in lines}) == len(lines)


@given(st.lists(st.text(max_size=200), max_size=4))
def test_counts_add_up(answers):
    outputs = parse_outputs(answers, load_query_set("intro4x16"))
    assert outputs.counts.lines == len(outputs.lines) <= MAX_OUTPUTS
    assert outputs.counts.answers == len(answers)
    assert 0 <= outputs.usable <= outputs.counts.lines
    assert 0 <= outputs.coverage <= 1


@given(lists)
def test_repeating_a_list_adds_nothing(items):
    text = "\n".join(f"{number}: {item}" for number, item in enumerate(items, 1))
    once = parse_outputs([text], load_query_set("intro4x16"))
    twice = parse_outputs([text, text], load_query_set("intro4x16"))
    assert once.lines == twice.lines
    assert twice.counts.repeats == once.counts.repeats + len(once.lines)
