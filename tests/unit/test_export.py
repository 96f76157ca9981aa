"""Exports against numbers computed here, and against the schema as it was published."""

import json
import math
import re
import shlex
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from host_files import BITS, MOMENT, options, write_inversion, write_leakage

from lm_eval_inversion.hashing import file_sha256
from lm_eval_inversion.prompts import SystemPrompt
from lm_eval_inversion.report import metrics_table, read_results
from lm_eval_inversion.report.card import add_card_arguments, card_block, model_index, run_card
from lm_eval_inversion.report.export import add_export_arguments, check_record, evaluation_record, load_schema, run_export
from lm_eval_inversion.report.numbers import shown, shown_interval
from lm_eval_inversion.report.page import page_html
from lm_eval_inversion.report.public_names import identify_model
from lm_eval_inversion.report.reading import Results, Row
from lm_eval_inversion.report.reranked import check_models
from lm_eval_inversion.report.rerun import rerun_command, run_settings
from lm_eval_inversion.report.tables import CARRIERS_EXPLAINED, counted
from lm_eval_inversion.scoring.metrics import HEADLINES, PROMPT_HEADLINES, RECORDS, SIGNED_FLOORS, is_floor


def by_metric(record):
    return {result["metric_config"]["metric_name"]: result for result in record["evaluation_results"]}


def test_an_inversion_run_in_the_schema(tmp_path):
    (results,) = read_results(write_inversion(tmp_path))
    record = evaluation_record(results, organisation="Example Lab", relationship="first_party", availability="open_weights", now=1.0)
    check_record(record, load_schema())
    assert record["source_metadata"]["source_type"] == "evaluation_run"
    assert record["source_metadata"]["source_organization_name"] == "Example Lab"
    assert record["source_metadata"]["evaluator_relationship"] == "first_party"
    assert record["model_info"]["id"] == "example-lab/chat"
    assert record["model_info"]["inference_engine"] == {"name": "transformers", "version": "5.0.0"}
    assert record["model_info"]["additional_details"] == {"deployment_type": "self_deployed", "model_availability": "open_weights"}
    assert (record["eval_library"]["name"], record["eval_library"]["version"]) == ("lm_eval", "0.4.13")
    assert record["evaluation_timestamp"] == "1777863721.5"
    assert record["retrieved_timestamp"] == "1.0"
    found = by_metric(record)
    bits = found["bits"]
    assert bits["metric_config"]["lower_is_better"] is True
    assert (bits["metric_config"]["min_score"], bits["metric_config"]["max_score"]) == ("-Infinity", "Infinity")
    assert bits["score_details"]["score"] == pytest.approx(statistics.fmean(BITS), rel=1e-15)
    uncertainty = bits["score_details"]["uncertainty"]
    assert uncertainty["standard_error"]["value"] == pytest.approx(statistics.stdev(BITS) / math.sqrt(6), rel=1e-14)
    assert uncertainty["num_samples"] == 6
    assert min(BITS) <= uncertainty["confidence_interval"]["lower"] < bits["score_details"]["score"]
    assert bits["score_details"]["details"]["unscored_system_prompts"] == "1"
    assert found["coverage"]["score_details"]["details"]["unscored_system_prompts"] == "0"
    assert found["coverage"]["metric_config"]["lower_is_better"] is False
    assert found["bits_null"]["metric_config"]["additional_details"]["role"] == "floor"
    assert "attribute_recall" not in found
    arguments = bits["generation_config"]["generation_args"]
    assert (arguments["temperature"], arguments["max_tokens"]) == (0.7, 48)


def test_a_leakage_run_in_the_schema(tmp_path):
    (results,) = read_results(write_leakage(tmp_path))
    record = evaluation_record(results, relationship="third_party")
    check_record(record, load_schema())
    found = by_metric(record)
    assert found["resistance"]["metric_config"]["lower_is_better"] is False
    assert found["asr"]["metric_config"]["lower_is_better"] is True
    assert found["resistance"]["score_details"]["score"] == 0.5
    interval = found["resistance"]["score_details"]["uncertainty"]["confidence_interval"]
    # Wilson's interval of 1 in 2, written out.
    z = statistics.NormalDist().inv_cdf(0.975)
    half = z / (1 + z * z / 2) * math.sqrt(0.25 / 2 + z * z / 16)
    assert (interval["lower"], interval["upper"]) == pytest.approx((0.5 - half, 0.5 + half))
    assert interval["method"] == "wilson"
    family = found["asr_family_encode"]["score_details"]
    assert family["score"] == 0.25
    assert "standard_error" not in family["uncertainty"], "one value has no standard error, and NaN is no JSON"
    assert record["model_info"]["id"] == "openai/gpt-example"
    assert record["model_info"]["inference_platform"] == "openai"
    assert record["model_info"]["additional_details"]["deployment_type"] == "externally_managed"
    assert record["eval_library"]["name"] == "inspect_ai"
    assert float(record["evaluation_timestamp"]) == 1777856521  # 01:02:01 UTC


def test_table_card_and_export_have_the_same_numbers(tmp_path):
    for results in (*read_results(write_inversion(tmp_path / "a")), *read_results(write_leakage(tmp_path / "b"))):
        found = by_metric(evaluation_record(results))
        table = [[cell.strip() for cell in line.strip("|").split("|")] for line in metrics_table(results).splitlines()[2:]]
        assert [line[0] for line in table] == list(found)
        for metric, mean, interval, number, _ in table:
            details = found[metric]["score_details"]
            assert mean == shown(metric, details["score"])
            assert number == str(details["uncertainty"]["num_samples"])
            known = details["uncertainty"].get("confidence_interval")
            if known:
                assert interval == shown_interval(metric, known["lower"], known["upper"])
        card = card_block(results)
        for metric, mean, interval, number, better in table:
            lower = found[metric]["metric_config"]["lower_is_better"]
            assert better == ("–" if is_floor(metric) else "lower" if lower else "higher")
            if metric in HEADLINES and number != "1":
                assert f"| `{metric}` | {better} | {mean} | {interval} |" in card


def test_what_is_shared_names_no_text_no_machine_and_no_key(tmp_path):
    mine = "/home/somebody/private/mine.csv"
    arguments = {"pretrained": "/home/somebody/weights/chat", "api_key": "s3cr3t", "base_url": "http://10.0.0.1", "header": {"x": "s3cr3t"}}
    write_inversion(tmp_path / "a", model_args=arguments, metadata={"prompts": f"{mine}/test", "inverter": "/home/somebody/inverter"})
    write_leakage(
        tmp_path / "b", model="hf/local", model_args={"model_path": "/home/somebody/weights/chat", "extra": {"token": "s3cr3t", "a": 1}},
        task_args={"attacks": "/home/somebody/attacks.yaml", "api_key": "s3cr3t"},
    )  # fmt: skip
    for results in (*read_results(tmp_path / "a"), *read_results(tmp_path / "b")):
        for model_id in (None, "example-lab/chat"):
            shared = json.dumps(evaluation_record(results, model_id=model_id)) + card_block(results, model_id)
            assert "FOLDER" in shared or model_id
            for secret in ("somebody", "s3cr3t", "10.0.0.1", "marzipan", "Mira"):
                assert secret not in shared, secret
    assert "prompts=mine.csv" in card_block(read_results(tmp_path / "a")[0])
    assert "attacks=attacks.yaml" in card_block(read_results(tmp_path / "b")[0])
    assert identify_model(read_results(tmp_path / "a")[0]).id == "unknown/chat"


def test_the_command_runs_the_same_again(tmp_path):
    (results,) = read_results(write_inversion(tmp_path / "a", config={"limit": 3.0}))
    assert rerun_command(results, run_settings(results)) == (
        "lm_eval run --model hf --model_args pretrained=example-lab/chat,dtype=float32 --apply_chat_template "
        "--tasks prompt_inversion_ordinary --metadata split=dev num_queries=8 decoy_seed=7 --gen_kwargs max_gen_toks=48 --seed 1,2,3,4 "
        "--limit 3 --log_samples --output_path results"
    )
    assert f"\n{rerun_command(results, run_settings(results))}\n" in page_html([results])
    (results,) = read_results(write_leakage(tmp_path / "b", task_args={"tier": "smoke"}))
    assert rerun_command(results, run_settings(results)) == (
        "inspect eval lm_eval_inversion/prompt_leakage_attacks --model openai/gpt-example -T tier=smoke --top-p 0.9 --seed 1234 --limit 2 "
        "--log-dir logs"
    )
    assert f"\n{rerun_command(results, run_settings(results))}\n" in page_html([results])


def test_a_second_export_replaces_the_first_and_another_inverter_does_not(tmp_path, capsys):
    write_inversion(tmp_path / "runs")
    words = [tmp_path / "runs", "-o", tmp_path / "out", "--organisation", "Example Lab"]
    assert run_export(options(add_export_arguments, *words)) == 0
    first = capsys.readouterr()
    assert run_export(options(add_export_arguments, *words, "--availability", "open_weights")) == 0
    second = capsys.readouterr()
    assert first.out == second.out
    assert "--availability" in first.err
    assert "would replace" not in second.err
    (path,) = (tmp_path / "out").rglob("*.json")
    assert path.parent == tmp_path / "out/data/lm_eval_inversion/example-lab/chat"
    assert path.stem[14] == "4", "the datastore takes names of UUID version 4"
    write_inversion(tmp_path / "runs", metadata={"inverter_hash": "eeeeeeeeeeee"})
    assert run_export(options(add_export_arguments, *words)) == 0
    assert len(list((tmp_path / "out").rglob("*.json"))) == 2


def test_a_run_named_twice_is_one_record(tmp_path, capsys):
    folder = write_inversion(tmp_path / "runs")
    write_leakage(tmp_path / "runs" / "inspect")
    (samples,) = folder.glob("samples_*.jsonl")
    assert run_export(options(add_export_arguments, folder, samples, "-o", tmp_path / "out")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_broken_record_is_not_written(tmp_path):
    schema = load_schema()
    (results,) = read_results(write_inversion(tmp_path / "runs"))
    record = evaluation_record(results)
    for break_it in (
        lambda found: found.pop("model_info"),
        lambda found: found["source_metadata"].update(evaluator_relationship="friend"),
        lambda found: found["evaluation_results"][0]["metric_config"].pop("min_score"),
        lambda found: found["eval_library"]["additional_details"].update(seed=1),
    ):
        broken = json.loads(json.dumps(record))
        break_it(broken)
        with pytest.raises(ValueError, match="breaks Every Eval Ever 0.3.0 at "):
            check_record(broken, schema)
    # A user's own schema decides, too.
    strict = {**schema, "version": "9.9.9", "required": [*schema["required"], "detailed_evaluation_results"]}
    (tmp_path / "strict.json").write_text(json.dumps(strict))
    with pytest.raises(ValueError, match=r"Every Eval Ever 9.9.9 at .*detailed_evaluation_results"):
        run_export(options(add_export_arguments, tmp_path / "runs", "-o", tmp_path / "out", "--schema", tmp_path / "strict.json"))
    assert not (tmp_path / "out").exists()


def test_a_score_outside_its_range_is_an_error(tmp_path):
    folder = write_inversion(tmp_path)
    (samples,) = folder.glob("samples_*.jsonl")
    samples.write_text(samples.read_text().replace('"token_f1": 0.2,', '"token_f1": 20.0,'))
    with pytest.raises(ValueError, match="token_f1 is .* outside its range from 0.0 to 1.0"):
        evaluation_record(read_results(folder)[0])


def test_the_shipped_schema_is_the_one_that_every_eval_ever_published():
    import jsonschema

    schema = load_schema()
    jsonschema.validators.validator_for(schema).check_schema(schema)
    assert schema["version"] == "0.3.0"
    folder = Path(__file__).parents[2] / "lm_eval_inversion" / "report" / "schemas"
    published = "c9c6195aec8a9dfa0b2aba4924ac1aa8a184c9d8ca97cee778cb531088e39b48"
    assert file_sha256(folder / "every_eval_ever-0.3.0.schema.json") == published
    assert "Copyright (c) 2026 EvalEval" in (folder / "every_eval_ever-LICENSE").read_text()


def test_every_metric_has_a_sign_a_range_and_a_meaning():
    for metric, record in RECORDS.items():
        assert record.scale.low < record.scale.high
        assert record.meaning, metric
        assert is_floor(metric) == record.meaning.startswith("floor, ") or metric in SIGNED_FLOORS.values(), metric
        assert all(is_floor(floor) and RECORDS[floor].scale == record.scale for floor in record.floors), metric
        if metric.startswith("bits"):
            assert record.scale.high == math.inf, metric
    assert RECORDS["resistance"].higher_is_better
    assert not RECORDS["bits"].higher_is_better
    assert {*HEADLINES, *PROMPT_HEADLINES, *SIGNED_FLOORS, *SIGNED_FLOORS.values()} <= set(RECORDS)
    beside = {floor for record in RECORDS.values() for floor in record.floors}
    assert {metric for metric in RECORDS if is_floor(metric)} - beside == set(SIGNED_FLOORS.values())


def test_a_folder_of_the_run_is_no_name_on_the_hub_elsewhere(tmp_path, capsys):
    """With what the run says of it; else ``export`` tells that nobody knows."""
    words = {"model_args": "pretrained=demo/model,tokenizer=demo/tokens,peft=org/adapter"}
    local = write_inversion(tmp_path / "local", metadata={"local_arguments": ["pretrained", "tokenizer"]}, **words)
    (results,) = read_results(local)
    assert (identify_model(results).id, identify_model(results).published) == ("unknown/model", False)
    assert "pretrained=FOLDER,tokenizer=FOLDER,peft=org/adapter" in card_block(results)
    assert "demo/" not in card_block(results) + json.dumps(evaluation_record(results))
    for number, (folder, hint) in enumerate(
        (
            (local, False),
            (write_inversion(tmp_path / "hub", metadata={"local_arguments": []}, **words), False),
            (write_inversion(tmp_path / "older", **words), True),
        )
    ):
        assert run_export(options(add_export_arguments, folder, "-o", tmp_path / f"out{number}")) == 0
        assert ("demo/model is taken for a name on the hub: if it was a folder, give --model-id." in capsys.readouterr().err) == hint
    assert run_export(options(add_export_arguments, tmp_path / "older", "-o", tmp_path / "out", "--model-id", "lab/model")) == 0
    assert "is taken for" not in capsys.readouterr().err


def test_a_model_object_from_python_is_named_and_its_folder_is_not_published(tmp_path):
    """lm_eval writes its name in the place of the back end, and no arguments."""
    weights = {"model_args": None, "config": {"model_num_parameters": 135}, "metadata": {"pretrained": None, "dtype": None}}
    (local,), (hub,), (short,) = (
        read_results(write_inversion(tmp_path / name, model=model, **weights))
        for name, model in (("local", "/srv/weights/own model"), ("hub", "lab/chat"), ("short", "gpt2"))
    )
    assert [results.model for results in (local, hub, short)] == ["hf /srv/weights/own model", "hf lab/chat", "hf gpt2"]
    for results, model_id, named, published in (
        (local, None, "FOLDER", "unknown/own model"), (local, "lab/name", "lab/name", "lab/name"), (hub, None, "lab/chat", "lab/chat"),
        (short, None, "gpt2", "unknown/gpt2"),
    ):  # fmt: skip
        record = evaluation_record(results, model_id=model_id)
        assert shlex.join(["--model", "hf", "--model_args", f"pretrained={named}"]) in card_block(results, model_id)
        assert record["model_info"]["id"] == published
        assert record["model_info"]["inference_engine"]["name"] == "transformers"
        assert "/srv" not in card_block(results, model_id) + model_index([results], model_id) + json.dumps(record)
    with pytest.raises(ValueError, match="the results are of 2"):
        run_card(options(add_card_arguments, tmp_path / "local", tmp_path / "hub", "--model-id", "lab/name"))
    with pytest.raises(ValueError, match="one model ranks its own answers"):
        check_models([local, hub], "lab/chat")
    # Of an object of another kind there is only its class's name.
    (other,) = read_results(write_inversion(tmp_path / "other", model="VLLM", model_args=None))
    with pytest.raises(ValueError, match="its files name the back end alone, VLLM; of most model objects from Python"):
        evaluation_record(other)


def test_user_errors_name_the_input(tmp_path):
    folder = write_inversion(tmp_path / "a")
    (results,) = read_results(folder)
    for wrong in ("name", "", "lab/na me", "lab/name; rm -rf ~"):
        told = re.escape(f"--model-id {wrong!r} is not developer/name")
        for given in (folder, tmp_path / "nothing"):  # before anything is read
            with pytest.raises(ValueError, match=told):
                run_export(options(add_export_arguments, given, "-o", tmp_path / "out", "--model-id", wrong))
            for words in ([], ["--model-index"]):
                with pytest.raises(ValueError, match=told):
                    run_card(options(add_card_arguments, given, "--model-id", wrong, *words))
        for call in (evaluation_record, card_block):
            with pytest.raises(ValueError, match=told):
                call(results, model_id=wrong)
    with pytest.raises(FileNotFoundError, match="schema .*none.json does not exist"):
        run_export(options(add_export_arguments, folder, "-o", tmp_path / "out", "--schema", tmp_path / "none.json"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="other.json has no 'version'"):
        load_schema(tmp_path / "other.json")
    (tmp_path / "other.json").write_text("{\n,}")
    with pytest.raises(ValueError, match="other.json line 2: not JSON"):
        load_schema(tmp_path / "other.json")
    with pytest.raises(ValueError, match="does not exist"):
        run_card(options(add_card_arguments, tmp_path / "nothing"))
    write_leakage(tmp_path / "b")
    for run, words in (
        (run_export, [add_export_arguments, folder, tmp_path / "b", "-o", tmp_path / "out"]),
        (run_card, [add_card_arguments, folder, tmp_path / "b"]),
    ):
        with pytest.raises(ValueError, match="the results are of 2 .example-lab/chat, gpt-example."):
            run(options(*words, "--model-id", "lab/name"))
    with pytest.raises(ValueError, match="--model-index describes one model, and the results are of example-lab/chat, openai/gpt-example"):
        run_card(options(add_card_arguments, folder, tmp_path / "b", "--model-index"))


def test_samples_without_a_results_file(tmp_path):
    folder = write_inversion(tmp_path)
    (folder / f"results_{MOMENT}.json").unlink()
    (results,) = read_results(folder)
    with pytest.raises(ValueError, match="does not say which model was evaluated"):
        evaluation_record(results)
    record = evaluation_record(results, model_id="lab/name")
    check_record(record, load_schema())
    assert record["eval_library"]["version"] == "unknown"
    assert "evaluation_timestamp" not in record


def test_what_did_not_finish_or_was_not_scored_is_told(tmp_path):
    folder = write_inversion(tmp_path / "a")
    (results,) = read_results(folder)
    silent = replace(results.rows[0], metrics={"coverage": 0.0, "defence_acted": 0.0, "utility": 0.5})
    cut = replace(results, rows=[*results.rows[1:], silent], unfinished="status 'cancelled', 4 of 9 system prompts")
    assert f"of them scored: {counted(results.rows).scored - 1}." in card_block(cut)
    assert "Too little came back to judge (coverage 0.71, below 0.8)" in card_block(cut)
    assert "did not finish (status 'cancelled', 4 of 9 system prompts)" in card_block(cut)
    details = evaluation_record(cut)["evaluation_results"][0]["source_data"]["additional_details"]
    assert details["unfinished"] == "status 'cancelled', 4 of 9 system prompts"


def test_epochs_are_no_further_prompts(tmp_path):
    (results,) = read_results(write_leakage(tmp_path))
    often = replace(results, rows=results.rows * 3)
    details = evaluation_record(often)["evaluation_results"][0]["source_data"]["additional_details"]
    assert details["system_prompts"] == "2"


def test_planted_secrets_are_counted_by_carrier():
    rows = [Row(SystemPrompt(f"c-{draw}/plain", f"Code {draw}.", "canary"), "", {"canary_extracted": 1.0}) for draw in range(4)]
    results = Results("prompt_leakage_canary", "lm_eval", rows, "hf org/name", {"task_version": 1.0})
    (found,) = evaluation_record(results)["evaluation_results"]
    assert found["score_details"]["details"]["unscored_system_prompts"] == "0"
    assert f"System prompts: 4, of them scored: 4; {CARRIERS_EXPLAINED}: 1. Intervals are over carriers." in card_block(results)


def test_an_unscored_prompt_is_one_whatever_its_epochs_and_a_floor_has_the_direction_of_its_metric():
    kept = {"canary_extracted": 0.0, "behaviour_kept": 1.0, "behaviour_kept_null": 0.5, "coverage": 1.0}
    rows = [Row(SystemPrompt(name, f"Code {name}.", "canary"), "", one) for name in "ab" for one in (kept if name == "a" else {}, {})]
    found = by_metric(evaluation_record(Results("prompt_leakage_canary", "lm_eval", rows, "hf org/name", {"task_version": 1.0})))
    assert {one["score_details"]["details"]["unscored_system_prompts"] for one in found.values()} == {"1"}
    assert {name: one["metric_config"]["lower_is_better"] for name, one in found.items()} == {
        "canary_extracted": True, "behaviour_kept": False, "behaviour_kept_null": False, "coverage": False,
    }  # fmt: skip


def test_unscored_prompts_of_a_carrier_are_not_lost():
    """A carrier that has a score under one system prompt hides none under which it has not."""
    rows = [
        Row(SystemPrompt(f"c{place}-{draw}/plain", f"Code {place} {draw}.", "canary"), "", {"coverage": 1.0, "canary_per_request": share})
        for place in range(6)
        for draw, share in enumerate((0.25, 0.5 + place / 20, 0.0))
    ]
    rows = [*rows[:9], *(replace(row, metrics={"coverage": 0.0}) for row in rows[9:10]), *rows[10:]]
    results = Results("prompt_leakage_canary", "lm_eval", rows, "hf org/name", {"task_version": 1.0})
    found = by_metric(evaluation_record(results))
    details = {name: one["score_details"] for name, one in found.items()}
    assert details["canary_per_request"]["details"]["unscored_system_prompts"] == "1"
    assert details["coverage"]["details"]["unscored_system_prompts"] == "0"
    uncertainty = details["canary_per_request"]["uncertainty"]
    assert (uncertainty["num_samples"], uncertainty["confidence_interval"]["method"]) == (6, "studentised bootstrap over carriers")
    assert found["coverage"]["source_data"]["additional_details"]["system_prompts"] == "18"
    assert f"System prompts: 18, of them scored: 17; {CARRIERS_EXPLAINED}: 6. Intervals are over carriers." in card_block(results)
    known = counted(rows)
    assert (known.prompts, known.scored, known.units, known.noun) == (18, 17, 6, "carriers")
    text = " ".join(re.sub("<[^>]+>", " ", page_html([results])).split())
    assert "system prompts scored 17 of 18 unscored is not safe" in text
    assert f"over 6 of 6 {CARRIERS_EXPLAINED}; 17 of 18 system prompts scored" in text
    beside = " ".join(re.sub("<[^>]+>", " ", page_html([results, results])).split())
    assert f"over system prompts, of planted secrets over {CARRIERS_EXPLAINED}; hollow dots are floors" in beside


def test_what_is_one_value_per_run_has_no_uncertainty(tmp_path):
    (results,) = read_results(write_inversion(tmp_path))
    results = replace(results, rows=[replace(row, metrics={**row.metrics, "null_coverage": 0.875}) for row in results.rows])
    record = evaluation_record(results)
    check_record(record, load_schema())
    details = by_metric(record)["null_coverage"]["score_details"]
    assert details == {"score": 0.875, "details": {"unscored_system_prompts": "0"}}
    assert "| null_coverage | 0.875 | – | 7 | higher |" in metrics_table(results)


def test_a_perfect_score_is_no_damage(tmp_path):
    (results,) = read_results(write_inversion(tmp_path / "a"))
    perfect = replace(results, rows=[replace(row, metrics={"bleu": 100.00000000000004}) for row in results.rows])
    (found,) = evaluation_record(perfect)["evaluation_results"]
    assert found["score_details"]["score"] == 100.0


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    broken = tmp_path / "broken.eval"
    broken.write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="broken.eval cannot be read"):
        run_card(options(add_card_arguments, broken))
