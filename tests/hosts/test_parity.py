"""The same model gives the same outputs and the same scores in both hosts."""

import math

import pytest

from lm_eval_inversion.scoring.metrics import METRICS

from .conftest import run_inspect, run_lm_eval


@pytest.mark.parametrize("task", ["prompt_inversion_ordinary", "prompt_inversion"])
def test_both_hosts_agree(chat_model, arguments, tmp_path, task):
    arguments = {**arguments, "curve": True, "decoy_seed": 1}  # not the default, which a host that drops it would have too
    rows = run_lm_eval(chat_model, task, metadata=arguments, gen_kwargs="temperature=0,max_gen_toks=24")["samples"][task]
    log = run_inspect(chat_model, tmp_path, task, task_args=arguments, max_tokens=24)
    assert log.status == "success", log.error
    samples = {sample.id: sample for sample in log.samples}
    assert {row["doc"]["id"] for row in rows} == set(samples)
    for row in rows:
        sample = samples[row["doc"]["id"]]
        answers = sample.store["Answers:answers"]
        assert [response[0] for response in row["resps"]][:2] == answers
        assert any(answers)
        score = sample.scores["inversion"]
        assert score.answer == row["filtered_resps"][0]
        assert set(score.value) == set(METRICS)
        assert "bits_at_1" in row
        assert row.keys() & set(METRICS) == {metric for metric, value in score.value.items() if value is not None and not math.isnan(value)}
        for metric in row.keys() & set(METRICS):
            assert score.value[metric] == pytest.approx(row[metric], abs=1e-9), metric
