"""Runs of one task that cannot be compared are named, and told apart by what they do not share."""

import json
import re
from dataclasses import replace

from lm_eval_inversion.report.comparability import comparability, distinctions
from lm_eval_inversion.report.page import page_html


def test_runs_that_cannot_be_compared_are_named(inversion):
    other = replace(inversion, signature={**inversion.signature, "inverter_hash": "x", "num_queries": 4})
    assert comparability([inversion, inversion]) == []
    own = replace(inversion, task="mine", signature={**inversion.signature, "base_task": inversion.task, "prompts_hash": "other"})
    (line,) = comparability([inversion, own])  # under a name of its own it is the same task
    assert line.startswith("prompt_inversion_ordinary: the runs differ in prompts_hash")
    assert all(own.signature["prompts_hash"] in told or "0123456789ab" in told for told in distinctions([inversion, own]))
    told = "the runs differ in inverter_hash (ba9876543210; x), num_queries (16; 4)"
    assert comparability([inversion, other]) == [f"prompt_inversion_ordinary: {told}"]
    assert told in page_html([inversion, other])
    eight_bit = replace(inversion, signature={**inversion.signature, "inverter_dtype": "int8"})
    assert comparability([inversion, eight_bit]) == ["prompt_inversion_ordinary: the runs differ in inverter_dtype (not given; int8)"]


def test_runs_that_were_sampled_differently_are_named(inversion, tmp_path):
    runs = []
    for name, temperature in (("a", 0.7), ("b", 0.0)):
        (tmp_path / name).mkdir()
        source = tmp_path / name / "samples_x_2026.jsonl"
        source.touch()
        settings = {"generation_kwargs": {"temperature": temperature, "max_gen_toks": 64}}
        run = {"config": {"model": "hf"}, "configs": {inversion.task: settings}}
        source.with_name("results_2026.json").write_text(json.dumps(run))
        runs.append(replace(inversion, source=source))
    (told,) = comparability(runs)
    assert "the runs differ in sampling (temperature 0.7, max_tokens 64; temperature 0, max_tokens 64)" in told
    assert comparability([runs[0], inversion, runs[0]]) == []  # of the second it is not known
    assert distinctions(runs) == ["temperature 0.7, max_tokens 64", "temperature 0, max_tokens 64"]


def test_runs_of_one_model_are_told_apart_by_what_they_do_not_share(leakage, inversion):
    defences = ("none", "ngram_filter", "secrecy_line")
    runs = [replace(leakage, signature={**leakage.signature, "defence": defence}) for defence in defences]
    text = page_html([*runs, inversion])
    assert "the runs differ in defence (none; ngram_filter; secrecy_line)" in text
    read = re.sub("<wbr>|<[^>]+>", "", re.sub("<small[^>]*>", "", text))  # what a screen reader says of headings and links
    model = "hf/local models/&lt;b&gt;seven&lt;/b&gt;"
    for number, defence in enumerate(defences, 1):
        assert f"{model} prompt_leakage_attacks, inspect defence {defence}" in read
        assert re.search(rf'<a href="#run-{number}">[^\n]*defence {defence}</small></a>', text)
        assert re.search(rf'<h2 id="run-{number}-title">[^\n]*<small>defence {defence}</small></h2>', text)
        assert f'aria-label="Parts of {model}, prompt_leakage_attacks, inspect, defence {defence}"' in text
    assert '<h2 id="run-4-title">hf org/model 7b</h2>' in text  # the only one of its task
    assert distinctions([inversion, inversion, leakage]) == ["run 1", "run 2", ""]
    other = replace(inversion, model="hf org/other")
    assert distinctions([inversion, other]) == ["", ""]  # their models say it


def test_settings_that_read_the_same_set_no_run_apart(leakage):
    """Of a file only its name is shown, so that one in another folder reads alike."""
    runs = [replace(leakage, signature={**leakage.signature, "defence": f"/{folder}/x.yaml"}) for folder in "ab"]
    assert distinctions(runs) == ["run 1", "run 2"]
    assert comparability(runs) == [f"{leakage.task}: the runs differ in defence"]
    seeds = [replace(run, signature={**run.signature, "canary_seed": seed}) for run, seed in zip(runs, (1, 2))]
    assert distinctions(seeds) == ["canary seed 1", "canary seed 2"]
    assert comparability(seeds) == [f"{leakage.task}: the runs differ in canary_seed (1; 2), defence"]
