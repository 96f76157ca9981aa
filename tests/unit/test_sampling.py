"""The settings with which the evaluated model is sampled: what they mean in all back ends, and which are refused."""

import pytest

from lm_eval_inversion.sampling import LIMIT_NAMES, normalise_sampling, with_one_limit


# As command lines, YAML files and Python hand it over.
@pytest.mark.parametrize(("given", "samples"), [(0, False), ("false", False), ("False", False), ("0", False), (1, True), ("true", True)])
def test_do_sample_is_read_in_every_spelling(given, samples):
    found = normalise_sampling({"temperature": 0.7, "do_sample": given})
    assert found == {"temperature": 0.7 if samples else 0.0, "do_sample": samples}
    assert type(found["do_sample"]) is bool


@pytest.mark.parametrize("given", [2, -1, 0.5, None, "", "no", []])
def test_a_do_sample_that_is_neither_is_refused(given):
    with pytest.raises(ValueError, match="^do_sample=.* is neither true nor false; give one of them") as found:
        normalise_sampling({"temperature": 0.7, "do_sample": given})
    assert f"do_sample={given!r} " in str(found.value)


@pytest.mark.parametrize("name", ["n", "num_return_sequences"])
def test_several_answers_to_one_request_are_refused(name):
    for number in (2, 0, "2"):
        with pytest.raises(ValueError, match=f"^{name}={number!r}: a task reads one answer.*give {name}=1, or leave it out$"):
            normalise_sampling({name: number})
    for number in (1, None):
        assert normalise_sampling({name: number})[name] == number
    assert normalise_sampling({"best_of": 2, "num_beams": 4})["num_beams"] == 4  # these return one


@pytest.mark.parametrize("name", ["max_gen_toks", *LIMIT_NAMES])
def test_the_longest_answer_is_a_positive_whole_number(name):
    for given in (8, "8", 8.0):  # the harness takes each for 8
        for found in (with_one_limit({name: given}), normalise_sampling({name: given})):
            assert (found["max_gen_toks"], type(found["max_gen_toks"]), found.get("max_tokens")) == (8, int, None)
    for given in (None, 0, -5, -5.0, 8.5, float("inf"), float("nan"), True, "", "many", "-1", [8]):
        for check in (with_one_limit, normalise_sampling):
            with pytest.raises(ValueError, match="give a whole number of at least 1, or leave it out") as found:
                check({"max_gen_toks": 64, name: given})
            assert str(found.value).startswith(f"{name}={given!r}: ")  # the name that the user wrote
    assert "max_gen_toks" not in normalise_sampling({})


def test_stop_texts_are_a_list():
    for given, texts in ((None, []), ([], []), ("e", ["e"]), (["a", "b"], ["a", "b"]), (("a", "b"), ["a", "b"])):
        assert normalise_sampling({"until": given})["until"] == texts
    for given in (5, [None], {"a": 1}, True):
        with pytest.raises(ValueError, match="^until=.*: give a text or a list of texts"):
            normalise_sampling({"until": given})
    assert "until" not in normalise_sampling({})
