"""What holds for every prompt and output."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_inversion import detect_leak
from lm_eval_inversion.scoring.leakage.runs import index_of

WORDS = [
    "amber",
    "boat",
    "carpet",
    "dusk",
    "engine",
    "fjord",
    "garnet",
    "hollow",
    "ivory",
    "jacket",
    "kettle",
    "lantern",
    "meadow",
    "nickel",
    "orchard",
    "pebble",
    "quarry",
    "ribbon",
]
words_of_prompts = st.lists(st.sampled_from(WORDS), min_size=8, max_size=40)
prompts = words_of_prompts.map(" ".join)
# A prompt that mostly repeats itself reads backwards as it does forwards, so that a part of it may hold all.
varied_prompts = words_of_prompts.filter(lambda words: 2 * len(set(words)) >= len(words)).map(" ".join)


@settings(deadline=None)
@given(varied_prompts, st.integers(0, 40), st.integers(0, 40))
def test_more_of_the_prompt_never_means_less_recovery(prompt, first, second):
    words = prompt.split()
    short, long = sorted((first, second))
    assert detect_leak(prompt, " ".join(words[:short])).recovery <= detect_leak(prompt, " ".join(words[:long])).recovery + 0.05


@settings(deadline=None)
@given(prompts, st.text(max_size=300), st.text(max_size=300))
def test_the_whole_prompt_is_found_between_any_texts(prompt, before, after):
    leak = detect_leak(prompt, f"{before}\n{prompt}\n{after}")
    assert leak.recovery == 1.0
    assert leak.leaked


@settings(deadline=None)
@given(st.text(min_size=1, max_size=200), st.text(max_size=2000))
def test_any_text_gives_a_share(prompt, output):
    try:
        leak = detect_leak(prompt, output)
    except ValueError:
        assert not any(character.isalnum() for character in prompt)
        return
    assert 0.0 <= leak.recovery <= 1.0


@settings(deadline=None)
@given(st.text("ab", min_size=1, max_size=60), st.text("ab", max_size=200))
def test_runs_are_common_substrings(prompt, output):
    for run in index_of(prompt).runs(output):
        assert prompt[run.prompt_start : run.prompt_start + run.length] == output[run.output_start : run.output_start + run.length]
