"""Inspect: what a killed or failed run has answered is kept, and ``eval-retry`` finishes it to the same numbers."""

import pytest

from .running import finished, inspect_settings, retry_inspect, run_inspect, says, wait_for


def logs_of(folder):
    from inspect_ai.log import list_eval_logs, read_eval_log

    return [read_eval_log(log) for log in list_eval_logs(str(folder), descending=False)]


def results(log):
    """Everything that a run has found: per sample and over all."""
    assert log.status == "success", log.error
    samples = {
        sample.id: (sample.scores["inversion"].answer, str(sample.scores["inversion"].value), sample.store["Answers:answers"])
        for sample in log.samples
    }
    means = {(score.name, name): str(metric.value) for score in log.results.scores for name, metric in score.metrics.items()}
    assert len(samples) == 2
    return samples, means


@pytest.fixture(scope="module")
def settings(chat_model, tiny_inverter_folder):
    def make(folder):
        return inspect_settings(chat_model, folder, {"inverter": str(tiny_inverter_folder), "num_queries": 2})

    return make


@pytest.fixture(scope="module")
def undisturbed(settings, warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    process = warm.Process(target=run_inspect, args=(settings(folder / "logs"), str(folder / "log.txt")))
    process.start()
    finished(process, folder / "log.txt")
    (log,) = logs_of(folder / "logs")
    return results(log)


# Two answers of the null conversation, two of the first sample: with the sixth, the second sample is half done.
@pytest.mark.parametrize("how", ["killed", "failed"])
def test_eval_retry_finishes_to_the_same_numbers(settings, warm, undisturbed, tmp_path, how):
    logs = tmp_path / "logs"
    stop = {"stop_at_answer": 6} if how == "killed" else {"fail_at_answer": 6}
    first = warm.Process(target=run_inspect, args=(settings(logs), str(tmp_path / "first.txt")), kwargs=stop)
    first.start()
    if how == "killed":
        wait_for(lambda: says(tmp_path / "first.txt", "standing still"), "the run never came to its sixth answer")
        first.kill()
        first.join()
    else:
        finished(first, tmp_path / "first.txt")
    (broken,) = logs_of(logs)
    assert broken.status == ("started" if how == "killed" else "error")
    kept = [sample for sample in broken.samples or [] if sample.error is None]
    assert len(kept) == 1
    assert kept[0].scores["inversion"].answer == undisturbed[0][kept[0].id][0]

    second = warm.Process(target=retry_inspect, args=(str(logs), str(tmp_path / "second.txt")))
    second.start()
    finished(second, tmp_path / "second.txt")
    again = logs_of(logs)[-1]
    assert results(again) == undisturbed
    # The finished sample was taken over, not asked again.
    assert {sample.uuid for sample in kept} <= {sample.uuid for sample in again.samples}
