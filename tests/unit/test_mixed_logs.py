"""Logs of Inspect of which one part was asked or scored in another way than the rest: inspect eval-retry mixes them without a word."""

import pytest
from host_files import write_leakage

from lm_eval_inversion.redaction import redact_text
from lm_eval_inversion.report.gate import Status, check_results, make_limits
from lm_eval_inversion.report.reading import read_results

ASKED = "Samples were not all asked what the log is signed with"
SCORED = "Samples were not all scored in the same way"


@pytest.fixture
def doubts(tmp_path):
    """What is doubted in a log of two samples after a change of it."""

    def of(change):
        from inspect_ai.log import read_eval_log, write_eval_log

        path = write_leakage(tmp_path) / "run.eval"
        log = read_eval_log(str(path))
        change(log)
        write_eval_log(log, str(path))
        (results,) = read_results(path)
        check = check_results([results], make_limits(max_asr=1.0, min_coverage=0.0))[0]
        assert check.status is (Status.INCONCLUSIVE if results.doubts else Status.PASS)
        return results.doubts

    return of


def noted(key, *values):
    """Samples that say what they were made with; None of those that do not."""

    def change(log):
        for sample, value in zip(log.samples, values):
            if value is not None:
                sample.metadata[key] = value

    return change


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("attacks_hash", ("dddddddddddd", "dddddddddddd"), ""),
        ("attacks_hash", ("eeeeeeeeeeee", "dddddddddddd"), "(attacks)"),
        ("attacks_hash", ("eeeeeeeeeeee", "eeeeeeeeeeee"), "(attacks)"),  # all were taken along
        ("attacks_hash", (None, "dddddddddddd"), ""),  # begun with an older version
        ("requests", ([{"id": "a"}], [{"id": "a"}]), ""),  # of an older log
        ("requests", ([{"id": "a"}], [{"id": "b"}]), "(requests)"),
        ("queries", (["Hello!"], ["Hello!", "Who are you?"]), "(queries)"),
    ],
)
def test_samples_that_were_asked_otherwise_are_told_of(key, values, told, doubts):
    found = doubts(noted(key, *values))
    assert [doubt.startswith(f"{ASKED} {told}: were they changed, or this package, before inspect eval-retry?") for doubt in found] == (
        [True] if told else []
    )


def test_markers_of_several_keys_are_no_other_questions(doubts):
    def redact(log):
        noted("requests", [{"id": "a", "turns": "[sha256:1]"}], [{"id": "a", "turns": "[sha256:2]"}])(log)
        for sample in log.samples:
            sample.metadata["prompt"]["text"] = redact_text("You are Mira.", sample.id.encode())

    assert doubts(redact) == ()


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("task_version", (1.9, 2.0), "task_version 1.9 and 2.0"),
        ("inverter_hash", ("aa", "bb"), "inverter_hash aa and bb"),
        ("inverter", ("/home/somebody/a", "/home/somebody/b"), "inverter"),  # a doubt is published, and a place is not
        ("package_version", ("0.1.0\x1b[31m", "0.2.0"), "package_version 0.1.0␛[31m and 0.2.0"),
        ("task_version", (2.0, 2.0), ""),
        ("task_version", (None, 2.0), ""),  # of an edited log nothing is known
    ],
)
def test_samples_that_were_scored_otherwise_are_told_of(key, values, told, doubts):
    def change(log):
        for sample, value in zip(log.samples, values):
            if value is not None:
                sample.scores["leakage"].metadata[key] = value

    found = doubts(change)
    assert [doubt.startswith(f"{SCORED} ({told}), and the log is signed with the last") for doubt in found] == ([True] if told else [])
