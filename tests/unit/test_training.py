import json
import lzma
import random
import re
import shutil

import pytest
import torch
from conftest import make_model, make_tokenizer, write_chat_model
from safetensors.torch import load_file, save_file

from lm_eval_inversion import load_inverter, load_prompts
from lm_eval_inversion.inverter.baselines import training_prompts
from lm_eval_inversion.inverter.packing import unpack_state, without_adapter
from lm_eval_inversion.inverter.tokens import BlockFormat
from lm_eval_inversion.training import base_model, collect, pack, plot, running, train
from lm_eval_inversion.training.asking import Settings, plan, with_nulls
from lm_eval_inversion.training.grammar import generate, load_banks
from lm_eval_inversion.training.manifest import manifest_of, write_training_prompts
from lm_eval_inversion.training.overlap import benchmark_splits, overlapping
from lm_eval_inversion.training.pairs import HELD_OUT_MOST, Pair, examples, held_out_pairs, load_dev_pairs, load_pairs, read_data


def test_no_training_prompt_of_the_shipped_checkpoint_overlaps_the_benchmark():
    benchmark = [text for texts in benchmark_splits().values() for text in texts]
    assert {prompt.text for prompt in load_prompts("v1", split=None)} <= set(benchmark)
    trained_on = training_prompts()
    assert len(trained_on) > 2000
    assert overlapping(trained_on, benchmark) == set()
    # The test can fail:
    assert overlapping(["And so: " + benchmark[0]], benchmark)


def test_the_grammar_is_a_pure_function_and_varied():
    banks = load_banks()
    prompts = [generate(banks, 3, index).text for index in range(300)]
    assert prompts == [generate(banks, 3, index).text for index in range(300)]
    assert len(set(prompts)) >= 298
    assert len({prompt.split()[0] for prompt in prompts}) >= 20
    assert all(3 <= len(prompt.split()) <= 250 for prompt in prompts)
    assert not re.search(r"\{\w+\}", "".join(prompts))  # every slot is filled


PLAN = {"message_tokens": (4, 9), "list_tokens": (12,)}


def test_an_interrupted_collection_goes_on_and_writes_the_same(chat_model, tmp_path):
    places = plan(with_nulls([f"Be pilot {number}." for number in range(5)] + ["Be a judge."]), Settings(**PLAN), seed=5)
    settings = {"seed": 5, "batch_prompts": 2, "device": "cpu"}
    counted = []
    collect.collect(str(chat_model), places, tmp_path / "whole.jsonl", **settings, progress=lambda *counts: counted.append(counts))
    whole = (tmp_path / "whole.jsonl").read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["prompt"] for row in rows] == [place.prompt for place in places]
    assert all(len(row["answers"]) == 8 for row in rows)
    assert sum(answers for answers, _ in counted) == 8 * len(places)
    assert 0 < sum(tokens for _, tokens in counted) <= sum(asked.max_tokens for place in places for asked in place.asked)
    # Killed in the middle of the third row:
    cut = whole.splitlines()
    (tmp_path / "part.jsonl").write_text("\n".join([*cut[:2], cut[2][:20]]))
    collect.collect(str(chat_model), places, tmp_path / "part.jsonl", **settings)
    assert (tmp_path / "part.jsonl").read_text() == whole
    # Finished: nothing is asked, not even the model is loaded.
    gone = str(tmp_path / "gone" / chat_model.name)
    collect.collect(gone, places, tmp_path / "part.jsonl", **settings)
    with pytest.raises(ValueError, match="choose another --output"):
        collect.collect(gone, places[::-1], tmp_path / "part.jsonl", **settings)


def test_models_of_one_name_are_not_mixed(chat_model, tmp_path):
    places = plan(with_nulls([f"Be pilot {number}." for number in range(5)]), Settings(**PLAN), seed=5)
    output, settings = tmp_path / "pairs.jsonl", {"seed": 5, "batch_prompts": 2, "device": "cpu"}
    collect.collect(str(chat_model), places, output, **settings)
    whole = output.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert {row["model_hash"] for row in rows} == {collect.model_hash(str(chat_model))}
    assert str(chat_model.parent) not in whole
    # Another model in a folder of the same name, all files as long as those of the first.
    other = shutil.copytree(chat_model, tmp_path / chat_model.name)
    output.write_text("".join(whole.splitlines(keepends=True)[:2]))
    collect.collect(str(other), places, output, **settings)
    assert output.read_text() == whole  # the same model, somewhere else
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="line 1 was written with other arguments .model"):
        collect.collect(str(other), places, output, **settings)
    assert output.read_text() == whole
    # Rows from before there were hashes are gone on with.
    for row in rows:
        del row["model_hash"]
    output.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    collect.collect(str(chat_model), places, output, **settings)
    assert [row["answers"] for row in collect.read_pairs(output)] == [row["answers"] for row in rows]


def test_hub_models_of_one_last_name_are_told_apart():
    assert collect.model_hash("org/name") != collect.model_hash("other/name")
    assert collect.model_hash("org/name", "a" * 40) != collect.model_hash("org/name")
    assert collect.model_hash("/no/such/folder") is None


def test_the_collector_by_command(chat_model, tmp_path):
    common = ["--model", str(chat_model), "--device", "cpu", "--prompts", "5", "--shares", "training=1", "--message-tokens", "3"]
    for shard in ("1/2", "2/2"):
        collect.main([*common, "--shard", shard, "--output", str(tmp_path / f"{shard[0]}.jsonl")])
    collect.main([*common, "--output", str(tmp_path / "whole.jsonl")])
    one, two, whole = (
        [(row["place"], row["prompt"]) for row in collect.read_pairs(tmp_path / f"{name}.jsonl")] for name in ("1", "2", "whole")
    )
    assert sorted(one + two) == whole
    collect.main([*common, "--source", "v1", "--split", "dev", "--output", str(tmp_path / "dev.jsonl")])
    dev = {prompt.text for prompt in load_prompts("v1", split="dev")}
    found = [row["prompt"] for row in collect.read_pairs(tmp_path / "dev.jsonl") if row["prompt"]]
    assert len(found) == 5
    assert set(found) <= dev
    assert all(pair.prompt is None for pair in load_pairs([tmp_path / "dev.jsonl"]))  # the benchmark never enters training


def one_by_one(model, ids, room, stops):
    """Greedy decoding without a cache and without a batch."""
    import torch

    found = []
    for _ in range(room):
        token = int(model(torch.tensor([[*ids, *found]])).logits[0, -1].argmax())
        if token in stops:
            break
        found.append(token)
    return found


@pytest.mark.parametrize("kept_once", [True, False])
def test_greedy_answers_are_those_of_plain_decoding_whatever_shares_the_batch(chat_model, monkeypatch, kept_once):
    import torch
    from transformers import AutoModelForCausalLM

    from lm_eval_inversion.training import generation, shared_prefix
    from lm_eval_inversion.training.generation import sample_answers

    model = AutoModelForCausalLM.from_pretrained(chat_model, dtype=torch.float32).eval()
    assert shared_prefix.can_share(model)
    if not kept_once:
        monkeypatch.setattr(generation, "can_share", lambda _: False)
    rng = random.Random(0)
    shared = [[rng.randint(5, 250) for _ in range(length)] for length in (9, 4, 0)]
    conversations = [[[*start, *(rng.randint(5, 250) for _ in range(length))] for length in (3, 7, 5)] for start in shared]
    room = [[1, 20, 6], [20, 2, 3], [4, 5, 20]]
    # Tokens that some rows meet early are made to end them.
    free = one_by_one(model, conversations[0][1], 20, set())
    stops = {free[8]}
    expected = [[one_by_one(model, ids, limit, stops) for ids, limit in zip(rows, limits)] for rows, limits in zip(conversations, room)]
    found = sample_answers(
        model, conversations, max_tokens=room, temperatures=[[0.0] * 3] * 3, stop_ids=stops, generator=torch.Generator().manual_seed(0)
    )
    assert found == expected
    # Some sampled, some not: those that are not stay the same.
    mixed = sample_answers(
        model, conversations, max_tokens=room, temperatures=[[0.0, 1.5, 0.0]] * 3, stop_ids=stops,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [rows[::2] for rows in mixed] == [rows[::2] for rows in expected]
    assert [rows[1] for rows in mixed] != [rows[1] for rows in expected]


def tokenizer_of(special, **named):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    text = make_tokenizer().backend_tokenizer.to_str().replace('"unk_token":"<unk>"', '"unk_token":null')
    data = json.loads(text)
    data["added_tokens"] = []
    bare = Tokenizer.from_str(json.dumps(data))
    bare.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=bare, **named)


QWEN2 = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize(
    ("special", "named", "ends"),
    [
        (QWEN2, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, ("<|im_start|>", "<|im_end|>")),
        (QWEN2, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, ("<|im_start|>", "<|endoftext|>")),
        (QWEN2, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, ("<|im_start|>", "<|endoftext|>")),
        (QWEN2, {"bos_token": "<|im_end|>"}, ("<|im_end|>", "<|endoftext|>")),
        (QWEN2, {}, ("<|endoftext|>", "<|im_start|>")),
        (QWEN2, {"bos_token": "<|im_end|>", "eos_token": "<|endoftext|>"}, ("<|im_end|>", "<|endoftext|>")),
    ],
)
def test_prompts_stand_between_two_special_tokens(special, named, ends):
    tokenizer = tokenizer_of(special, **named)
    assert tuple(tokenizer.convert_ids_to_tokens(base_model.prompt_ends(tokenizer, "x"))) == ends


def test_a_base_without_a_token_to_begin_prompts_is_refused():
    with pytest.raises(ValueError, match="which are None and '</s>', and it has no special token to spare; set two different ones"):
        base_model.prompt_ends(tokenizer_of(["</s>", "<pad>"], eos_token="</s>", pad_token="<pad>"), "x")


@pytest.mark.parametrize(
    ("config", "message"),
    [('{"model_type": "t5"}', "is a t5; the training loss is written for llama, qwen2"), (None, "no model is found there")],
)
def test_a_base_of_another_kind_is_refused_before_anything_is_loaded(tmp_path, capsys, config, message):
    if config:
        (tmp_path / "config.json").write_text(config)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(SystemExit):
        train.main(["--base", str(tmp_path), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--steps", "1"])
    assert message in capsys.readouterr().err


def test_a_run_from_before_outputs_could_stop_goes_on_with_outputs_in_all_layers(tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "state.safetensors").write_bytes(b"")
    (tmp_path / "start.json").write_text('{"seed": 1}')
    with pytest.raises(ValueError, match=r"started from another --output-layers .0, not 20.; give that one"):
        running.require_same_start(tmp_path, {"seed": 1, "output_layers": 20})
    running.require_same_start(tmp_path, {"seed": 1, "output_layers": 0})


def test_a_checkpoint_of_another_kind_is_not_trained_with_a_loss_that_is_not_its_own(tmp_path, tiny_inverter_folder):
    base_model.require_trainable(str(tiny_inverter_folder))
    shutil.copytree(tiny_inverter_folder, tmp_path / "base")
    path = tmp_path / "base" / "inverter.json"
    description = json.loads(path.read_text())
    # The same weights fit this kind too.
    description["model_config"]["model_type"] = "mistral"
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="is a mistral; the training loss is written for llama, qwen2"):
        base_model.require_trainable(str(tmp_path / "base"))


def test_a_checkpoint_that_says_nothing_of_its_training_can_be_trained_on(tmp_path, tiny_inverter_folder):
    provenance = base_model.load_base(str(tiny_inverter_folder), 32)[3]
    assert provenance == {"base": tiny_inverter_folder.name, "steps_done": 0}


def test_a_run_goes_on_from_its_own_start_only(tmp_path):
    model, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    running.require_same_start(tmp_path, {"base": base_model.weights_hash(model), "seed": 0})
    running.require_same_start(tmp_path, {"base": base_model.weights_hash(model), "seed": 1})  # nothing was trained yet
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "state.safetensors").write_bytes(b"")
    running.require_same_start(tmp_path, {"base": base_model.weights_hash(model), "seed": 1})
    with pytest.raises(ValueError, match=r"started from another --seed .1, not 2.; give that one, or another --output"):
        running.require_same_start(tmp_path, {"base": base_model.weights_hash(model), "seed": 2})
    with pytest.raises(ValueError, match="started from another --base"):
        running.require_same_start(tmp_path, {"base": base_model.weights_hash(other), "seed": 1})
    # A run of an older version kept the hash of its base only.
    (tmp_path / "start.json").rename(tmp_path / "gone")
    (tmp_path / "base.sha256").write_text(base_model.weights_hash(model) + "\n")
    with pytest.raises(ValueError, match="started from another --base"):
        running.require_same_start(tmp_path, {"base": base_model.weights_hash(other), "seed": 1})
    running.require_same_start(tmp_path, {"base": base_model.weights_hash(model), "seed": 1})
    with pytest.raises(ValueError, match="started from another --seed"):
        running.require_same_start(tmp_path, {"base": base_model.weights_hash(model), "seed": 2})


def test_what_a_run_was_started_with_is_compared(chat_model, tmp_path, capsys):
    pairs, turned = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(pairs.read_text().splitlines(keepends=True))))
    common = ["--base", str(chat_model), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--minutes", "0", "--batch", "2"]
    common += ["--no-bf16", "--device", "cpu", "--steps", "1"]
    train.main(common)
    for more, message in (
        (["--pairs", str(turned)], r"another --pairs \(\d+ pairs with hash \w+, not \d+ pairs with hash \w+\)"),
        (["--lora-rank", "4"], r"another --lora-rank \(0, not 4\)"),
        (["--vocabulary", "256"], r"another --vocabulary \(0, not 256\)"),
    ):
        with pytest.raises(SystemExit):
            train.main([*common, *more])
        assert re.search(message, capsys.readouterr().err)
    train.main([*common, "--steps", "2", "--batch", "4", "--lr", "1e-5", "--micro-batch", "2", "--eval-every", "7"])
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if "loss" in row] == [1, 2]


def test_moments_of_a_run_that_goes_on_are_where_its_weights_are(tmp_path):
    """The device of the parameters stands for a GPU here."""
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    running.save_state(tmp_path, dict(model.named_parameters()), optimizer, {"step": 1})
    elsewhere = torch.nn.Linear(2, 3, device="meta")
    optimizer = torch.optim.AdamW(elsewhere.parameters())
    assert running.load_state(tmp_path, dict(elsewhere.named_parameters()), optimizer) == {"step": 1}
    devices = {key: value.device.type for key, value in optimizer.state[elsewhere.weight].items()}
    assert devices == {"exp_avg": "meta", "exp_avg_sq": "meta", "step": "cpu"}


def test_a_log_that_was_cut_off_is_gone_on_with(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    with running.open_log(path) as log:
        log.write('{"step": 2, "loss": 1.0}\n')
    assert plot.read_log([path]).loss == [(1, 2.0), (2, 1.0)]
    path.write_text('{"step": 2, "lo')
    running.open_log(path).close()
    assert path.read_text() == ""


def test_training_prompts_come_back_as_they_are(tmp_path):
    prompts = ["Be a baker.\u2028Be brief.\x85", "Be a judge.\n\nBe fair."]
    write_training_prompts(tmp_path / "training_prompts.jsonl.xz", [*prompts, prompts[0]])
    assert manifest_of(tmp_path) == tuple(sorted(prompts))
    for damaged in (b"\xfd7zXZ", b"", lzma.compress(b'"Be a')):
        (tmp_path / "training_prompts.jsonl.xz").write_bytes(damaged)
        with pytest.raises(ValueError, match="training_prompts.jsonl.xz is damaged .*; get the file again"):
            manifest_of(tmp_path)


def test_a_base_that_cannot_be_packed_is_refused_before_it_is_trained(chat_model, tmp_path, capsys):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(chat_model, intermediate_size=144)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(chat_model).save_pretrained(tmp_path / "base")
    with pytest.raises(SystemExit):
        train.main([
            "--base", str(tmp_path / "base"), "--pairs", str(write_pairs(tmp_path / "pairs.jsonl")), "--output", str(tmp_path / "run"),
            "--round-base", "--lora-rank", "4", "--steps", "1", "--device", "cpu", "--no-bf16",
        ])  # fmt: skip
    assert "layers.0.mlp.down_proj of --base has 144 columns, and matrices are packed in groups of 32" in capsys.readouterr().err


def test_prompts_that_do_not_fit_the_model_are_named_before_anything_is_asked(tmp_path, capsys):
    model = write_chat_model(tmp_path / "model", context=96)
    source, output = tmp_path / "prompts.txt", tmp_path / "pairs.jsonl"
    source.write_text("You bake.\n\n" + "You answer all questions about the old harbour in short sentences. " * 3)
    command = ["--model", str(model), "--source", str(source), "--shares", "training=1", "--device", "cpu", "--batch-prompts", "1"]
    command += ["--output", str(output), "--message-tokens"]
    with pytest.raises(SystemExit, match="2"):
        collect.main([*command, "24"])
    error = capsys.readouterr().err
    assert "system prompt 'You answer all questions about the old harbour" in error
    assert "more than the model's context of 96" in error
    assert "give smaller --message-tokens" in error
    assert output.read_bytes() == b""
    source.write_text("You bake.\n\nYou sail.")
    collect.main([*command, "24"])
    assert len(collect.read_pairs(output)) == 3


def test_what_is_held_out_and_evaluated_does_not_depend_on_the_order_of_files():
    pairs = [Pair(f"Prompt number {number}.", (str(part),)) for number in range(4000) for part in range(2)]
    training, evaluated = held_out_pairs(pairs)
    prompts = [pair.prompt for pair in evaluated]
    assert len(prompts) == len(set(prompts)) == HELD_OUT_MOST
    assert not set(prompts) & {pair.prompt for pair in training}
    numbers = [int(prompt.split()[-1][:-1]) for prompt in prompts]
    assert min(numbers) < 800  # not the first ones of the files
    assert max(numbers) > 3200
    assert [pair.prompt for pair in held_out_pairs(pairs[::-1])[1]] == prompts


def test_collecting_stops_at_every_end_token(tmp_path, chat_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(chat_model)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "You are a careful baker."}')
    settings = f"--source {prompts} --shares ordinary16=4 --temperature 0 --message-tokens 12 --defence-share 0".split()

    def lengths(name, ends):
        model.config.eos_token_id, model.generation_config.eos_token_id = ends
        model.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(chat_model).save_pretrained(tmp_path / name)
        collect.main(["--model", str(tmp_path / name), "--output", str(tmp_path / f"{name}.jsonl"), *settings])
        tokenizer = AutoTokenizer.from_pretrained(chat_model)
        rows = collect.read_pairs(tmp_path / f"{name}.jsonl")
        return [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for row in rows for _, text in row["answers"]]

    every = list(range(1, 300))
    assert max(lengths("long", (2, 2))) > 0
    assert max(lengths("listed", (every, 2))) == 0
    assert max(lengths("generation", (2, every))) == 0


def test_a_model_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        collect.main(["--model", str(tmp_path / "nowhere"), "--output", str(tmp_path / "pairs.jsonl"), "--prompts", "1"])
    assert "nowhere cannot be loaded" in capsys.readouterr().err


def test_a_model_with_damaged_weights_is_named(chat_model, tmp_path, capsys):
    from lm_eval_inversion.target import Target

    folder = shutil.copytree(chat_model, tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    for data, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 269060552\n", "is a pointer of git-lfs.*run git lfs pull in"),
        (whole[: len(whole) // 2], r"model\.safetensors is damaged .*get the file again"),
        (b"", r"model\.safetensors is damaged .*get the file again"),
    ):
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=f"--model {folder}: .*{message}"):
            Target.load(str(folder), device="cpu")
        with pytest.raises(SystemExit, match="2"):
            collect.main(["--model", str(folder), "--output", str(tmp_path / "pairs.jsonl"), "--prompts", "1"])
        assert re.search(f"--model {folder}: .*{message}", capsys.readouterr().err)
    # Whole as files, and not those of this model.
    (folder / "model.safetensors").write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    with pytest.raises(ValueError, match=f"--model {folder} cannot be loaded"):
        Target.load(str(folder), device="cpu")
    with pytest.raises(SystemExit, match="2"):
        collect.main(["--model", str(folder), "--output", str(tmp_path / "pairs.jsonl"), "--prompts", "1"])
    assert f"--model {folder} cannot be loaded" in capsys.readouterr().err


def test_examples_have_from_none_to_all_outputs_the_format_reads():
    many = tuple(f"output {number}" for number in range(100))
    pairs = [Pair("Be a judge.", many), Pair("Be a baker.", many[:10]), Pair(None, tuple(f"null {number}" for number in range(90)))]
    stream = examples(pairs, 0, 0, 1)
    drawn = [next(stream) for _ in range(6000)]
    numbers = [len(example.outputs) for example in drawn if example.prompt == "Be a judge."]
    assert set(numbers) == set(range(65))
    assert 0.05 < numbers.count(0) / len(numbers) < 0.11
    judges = [example.outputs for example in drawn if example.prompt == "Be a judge." and example.outputs]
    own = [outputs for outputs in judges if outputs[0].startswith("output")]
    assert sum(len(outputs) == 64 for outputs in own) > 0.45 * len(own)
    assert sum(outputs != sorted(outputs, key=many.index) for outputs in own) > 0.9 * len(own)  # random order
    assert set().union(*own) == set(many)  # also of a prompt with more outputs than are read, all are seen
    nulls = [example.outputs for example in drawn if example.outputs and example.outputs[0].startswith("null")]
    assert 0.05 < len(nulls) / len(drawn) < 0.11
    assert {1, 64} <= {len(outputs) for outputs in nulls} <= set(range(1, 65))
    assert all(len(set(example.outputs)) == len(example.outputs) for example in drawn)
    few = examples(pairs, 0, 0, 1, max_outputs=3)
    assert max(len(next(few).outputs) for _ in range(500)) == 3


def test_ranks_share_one_order():
    pairs = [Pair(f"Be number {number}.", ("a", "b", "c")) for number in range(7)]
    whole, ranks = examples(pairs, 4, 0, 1), [examples(pairs, 4, rank, 3) for rank in range(3)]
    expected = [next(whole) for _ in range(30)]
    assert [next(ranks[place % 3]) for place in range(30)] == expected


def test_prompts_without_answers_are_no_pairs(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "Be a judge.", "source": "mine"}\n')
    with pytest.raises(ValueError, match=r"corpus\.jsonl line 1 is no pair: it lacks 'prompt' or 'answers'"):
        load_pairs([path])


def test_a_damaged_pairs_file_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "x"\n{"prompt": "y"}\n')
    with pytest.raises(ValueError, match=r"pairs\.jsonl line 1 is not JSON"):
        collect.read_pairs(path)
    with pytest.raises(ValueError, match="holds no pairs"):
        load_pairs([tmp_path / "nowhere.jsonl"])


def write_pairs(path, number=150):
    rng = random.Random(0)
    rows = []
    for index in range(number):
        trade = rng.choice(["baker", "sailor", "judge", "tailor"])
        rows.append({
            "prompt": None if index % 20 == 19 else f"Be a {trade} number {index}.",
            "answers": [["hello", f"I am a {trade}."], ["weekend", "Rest."]],
        })  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_too_few_prompts_to_hold_one_out_are_enough_with_dev_pairs(chat_model, tmp_path, capsys):
    pairs, dev = write_pairs(tmp_path / "pairs.jsonl", 6), tmp_path / "dev.jsonl"
    dev.write_text(pairs.read_text().replace("Be a", "Speak as the"))
    assert held_out_pairs(load_pairs([pairs]))[1] == []
    common = ["--base", str(chat_model), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--minutes", "0", "--steps", "1"]
    common += ["--batch", "4", "--no-bf16", "--device", "cpu"]
    with pytest.raises(SystemExit):
        train.main(common)
    assert "6 pairs to train on and 0 held out; about one prompt in 50 is held out, so collect" in (told := capsys.readouterr().err)
    assert "or give answers under other prompts as --dev-pairs to evaluate on" in told
    train.main([*common, "--dev-pairs", str(dev)])
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"dev_nats", "dev_nats_swapped"} <= set(rows[-1])
    assert not {"nats", "held_out"} & set(rows[-1])
    assert list(plot.read_log([tmp_path / "run" / "log.jsonl"]).curves) == ["dev_nats", "dev_nats_no_outputs", "dev_nats_swapped"]
    found = pack.pack(tmp_path / "run", [pairs], tmp_path / "checkpoint")
    assert (found["held_out_nats_before_packing"], found["held_out_nats"]) == (None, None)
    others = pack.pack(tmp_path / "run", [write_pairs(tmp_path / "others.jsonl")], tmp_path / "other")  # of which some are held out
    assert others["held_out_nats_before_packing"] is None
    assert others["held_out_nats"] > 0
    load_inverter(tmp_path / "checkpoint")


def test_there_must_be_a_prompt_to_train_on(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": None, "answers": [["hello", "Hello."]]}) + "\n")
    with pytest.raises(ValueError, match="--pairs: 1 pairs to train on and 0 held out, and none of the former has a prompt; collect under"):
        read_data([path])


def test_training_learns_resumes_and_packs(chat_model, tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    common = ["--base", str(chat_model), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--minutes", "0", "--batch", "8"]
    common += ["--lr", "3e-3", "--eval-every", "1000", "--no-bf16", "--device", "cpu"]
    train.main([*common, "--steps", "6"])
    train.main([*common, "--steps", "30"])  # goes on at step 6
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in log if "loss" in row]
    assert steps == list(range(1, 31))
    losses = [row["loss"] for row in log if "loss" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    found = pack.pack(tmp_path / "run", [pairs], tmp_path / "checkpoint")
    assert found["steps"] == 30
    inverter = load_inverter(tmp_path / "checkpoint")
    assert inverter.nll([["I am a baker."]], ["Be a baker number 7."])[0] < inverter.nll([["I am a baker."]], ["Xylophones!! quiz"])[0]

    # A second stage on the rounded weights, with fewer tokens: packing it costs nothing.
    second = [*common, "--steps", "12", "--round-base", "--lora-rank", "4", "--vocabulary", "256"]
    second[1], second[5] = str(tmp_path / "run"), str(tmp_path / "second")
    train.main(second)
    found = pack.pack(tmp_path / "second", [pairs], tmp_path / "second_checkpoint")
    assert found["steps"] == 42
    assert found["held_out_nats"] == pytest.approx(found["held_out_nats_before_packing"], rel=0.02)
    others = write_pairs(tmp_path / "others.jsonl")
    others.write_text(others.read_text().replace("Be a", "Act as a"))
    assert pack.pack(tmp_path / "second", [others], tmp_path / "other")["held_out_nats_before_packing"] is None  # they do not compare
    smaller = load_inverter(tmp_path / "second_checkpoint")
    assert smaller.model.config.vocab_size == 256
    assert smaller.tokenizer.decode(smaller.tokenizer.prompt("Be a baker, friend!")) == "Be a baker, friend!"

    # A checkpoint can be trained further, too.
    third = [*common, "--steps", "2"]
    third[1], third[5] = str(tmp_path / "second_checkpoint"), str(tmp_path / "third")
    train.main(third)
    assert json.loads((tmp_path / "third" / "settings.json").read_text())["steps_done"] == 44

    # Its packed weights can stay, and its adapter be trained on.
    kept = [*common, "--steps", "4", "--keep-base"]
    kept[1], kept[5] = str(tmp_path / "second_checkpoint"), str(tmp_path / "kept")
    train.main([*kept, "--steps", "2"])
    train.main(kept)  # goes on at step 2
    found = pack.pack(tmp_path / "kept", [others], tmp_path / "kept_checkpoint")
    assert found["steps"] == 46
    # What the base had been trained on stays in the manifest.
    known, more = (set(manifest_of(tmp_path / name)) for name in ("second_checkpoint", "other"))
    assert known.isdisjoint(more)
    assert set(manifest_of(tmp_path / "kept_checkpoint")) == known | more
    assert found["prompts"] == len(known | more)
    before, after = (load_file(tmp_path / name / "weights.safetensors") for name in ("second_checkpoint", "kept_checkpoint"))
    adapter = [name for name in before if name.rpartition("|")[2] in ("down", "up")]
    assert before.keys() == after.keys()
    assert adapter
    assert all(torch.equal(before[name], after[name]) for name in without_adapter(before))
    assert not any(torch.equal(before[name], after[name]) for name in adapter)
    # Where nothing is learnt, the checkpoint comes out again.
    still = [*kept, "--lr", "0"]
    still[5] = str(tmp_path / "still")
    train.main(still)
    pack.pack(tmp_path / "still", [pairs], tmp_path / "still_checkpoint")
    same = unpack_state(load_file(tmp_path / "still_checkpoint" / "weights.safetensors"))
    assert all(torch.allclose(same[name], values, atol=1e-6) for name, values in unpack_state(before).items())

    # A run does not go on from another checkpoint than it was started from.
    packed = tmp_path / "kept" / "packed_base.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(packed).items()}, packed)
    whole = str(tmp_path / "checkpoint")
    for wrong, message in (
        (kept, "was started from another checkpoint; give that one"),
        ([*kept, "--base", whole], "holds a run that started from another --base"),
        ([*kept, "--base", whole, "--output", str(tmp_path / "elsewhere")], "has no adapter to go on with; give --round-base"),
        ([*kept, "--base", str(tmp_path / "run")], "is no checkpoint folder"),
        ([*kept, "--lora-rank", "4"], "takes all weights from the checkpoint"),
    ):
        with pytest.raises(SystemExit):
            train.main(wrong)
        assert message in capsys.readouterr().err

    with pytest.raises(SystemExit):
        pack.main(["--run", str(tmp_path), "--pairs", str(pairs), "--output", str(tmp_path / "x")])
    assert "the training has not finished" in capsys.readouterr().err
    log = tmp_path / "run" / "log.jsonl"
    log.write_text('{"step": 1, "lo{"step": 1, "loss": 2.0}\n' + log.read_text())  # what an older version made of a cut line
    for text, message in ((log.read_text(), "log.jsonl line 1 is not JSON"), ('{"step": 1, "loss": 2.0}\n', "holds no evaluation")):
        log.write_text(text)
        with pytest.raises(SystemExit):
            pack.main(["--run", str(tmp_path / "run"), "--pairs", str(pairs), "--output", str(tmp_path / "x")])
        assert message in capsys.readouterr().err


def test_a_model_learns_from_a_teacher_what_the_teacher_would_write(tiny_inverter_folder, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    folder = str(tiny_inverter_folder)

    def losses(name, *more):
        train.main([
            "--base", folder, "--pairs", str(pairs), "--output", str(tmp_path / name), "--minutes", "0", "--steps", "12", "--batch", "8",
            "--micro-batch", "4", "--rivals", "1", "--lr", "3e-3", "--no-bf16", "--device", "cpu", *more,
        ])  # fmt: skip
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        return [row["loss"] for row in log if "loss" in row]

    alone = losses("alone")
    pack.pack(tmp_path / "alone", [pairs], tmp_path / "teacher")
    with_teacher = losses("taught", "--teacher", str(tmp_path / "teacher"))
    assert alone[0] > 1
    assert 0 < with_teacher[-1] < 0.7 * with_teacher[0]
    assert losses("itself", "--teacher", folder)[0] < 1e-6  # which it agrees with before it learns
    row = json.loads((tmp_path / "taught" / "log.jsonl").read_text().splitlines()[-1])
    assert row["nats"] > 10  # evaluated is the likelihood all the same


def test_a_teacher_that_reads_otherwise_is_refused(tiny_inverter_folder, chat_model, tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(SystemExit):
        train.main([
            "--base", str(chat_model), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--steps", "1", "--device", "cpu",
            "--no-bf16", "--teacher", str(tiny_inverter_folder),
        ])  # fmt: skip
    assert f"--teacher {tiny_inverter_folder} has another tokenizer or block format than --base" in capsys.readouterr().err


def special_tokens(*ids):
    return json.dumps({"added_tokens": [{"id": token, "special": token != 5, "content": f"<{token}>"} for token in ids]})


def test_users_messages_get_a_special_token_that_is_free():
    layout = BlockFormat(start_id=1, end_id=2)
    assert base_model.with_user_start(layout, special_tokens(0, 1, 2, 7, 6, 5)).user_start_id == 6
    assert base_model.with_user_start(layout, special_tokens(0, 1, 2, 5)).user_start_id is None  # 5 is an ordinary token, 0 the unknown one
    kept = BlockFormat(start_id=1, end_id=2, user_start_id=9)
    assert base_model.with_user_start(kept, special_tokens(0, 1, 2, 6)) is kept


def test_users_messages_are_trained_under_their_own_token(tmp_path):
    """A base with one special token more than the start and the end."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>"]})
    marker = tokenizer.convert_tokens_to_ids("<user>")
    make_model(len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    rows = [
        {"prompt": f"Which bread is number {index}?", "answers": [["hello", f"Rye {index}."]], "secret": "user"} if index % 2 else
        {"prompt": f"Be baker number {index}.", "answers": [["hello", f"I am baker {index}."]]}
        for index in range(300)
    ]  # fmt: skip
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert {pair.secret: pair.prompt.split()[0] for pair in load_pairs([pairs])} == {"user": "Which", "system": "Be"}
    drawn = examples(load_pairs([pairs]), 0, 0, 1)
    assert {(one.secret, one.prompt.split()[0]) for one in (next(drawn) for _ in range(100))} == {("user", "Which"), ("system", "Be")}
    train.main([
        "--base", str(tmp_path / "base"), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--minutes", "0", "--steps", "40",
        "--batch", "8", "--lr", "3e-3", "--eval-every", "1000", "--no-bf16", "--device", "cpu",
    ])  # fmt: skip
    found = pack.pack(tmp_path / "run", [pairs], tmp_path / "checkpoint")
    inverter = load_inverter(tmp_path / "checkpoint")
    _, held_out = held_out_pairs(load_pairs([pairs]))
    assert {pair.secret for pair in held_out} == {"user", "system"}
    nats = [inverter.of(pair.secret).nll([pair.outputs], [pair.prompt])[0] for pair in held_out]
    assert found["held_out_nats"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert inverter.layout.user_start_id == marker
    # It has learnt what each token announces.
    for own, other, text in (("user", "system", "Which bread is number 7?"), ("system", "user", "Be baker number 7.")):
        assert inverter.of(own).nll([[]], [text])[0] < inverter.of(other).nll([[]], [text])[0]
    # A training that goes on from the checkpoint keeps the token.
    assert base_model.load_base(str(tmp_path / "checkpoint"), 32)[2].user_start_id == marker


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "answers": [], "secret": "User"}, "its secret is 'User'; known: system, user"),
        ({"prompt": "a", "answers": None}, "its answers must be a list of [query, text]"),
        ({"prompt": "a", "answers": ["plain text"]}, "its answers must be"),
        ({"prompt": "a", "answers": [["hello", None]]}, "its answers must be"),
        ({"prompt": "a", "answers": [["hello", "b", "c"]]}, "its answers must be"),
        ({"prompt": 7, "answers": []}, "its prompt is '7', and must be a text or null"),
        ({"prompt": ["a"], "answers": []}, "its prompt is"),
        ([1, 2], "it lacks 'prompt' or 'answers'"),
    ],
)
def test_rows_that_are_no_pairs_are_named(tmp_path, row, message):
    path = tmp_path / "pairs.jsonl"
    good = json.dumps({"prompt": "Be a judge.", "answers": [["hello", "Order!"]]})
    path.write_text(f"{good}\n\n{json.dumps(row)}\n{good}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path} line 3 is no pair: {message}")):
        load_pairs([path])


def test_files_of_pairs_in_other_letters(tmp_path):
    path, row = tmp_path / "pairs.jsonl", '{"prompt": "Be a judge in Genève.", "answers": []}'
    path.write_bytes(f"{row}\r\n\r\n{row}".encode("utf-8-sig"))
    assert [pair.prompt for pair in load_pairs([path])] == ["Be a judge in Genève."] * 2
    path.write_bytes(f"{row}\n{row}\n{row}\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"pairs\.jsonl line 1 is not JSON in UTF-8"):
        load_pairs([path])
    path.write_bytes(f"{row}\n{row}".encode()[:-20])  # a letter may be cut in two
    assert len(load_pairs([path])) == 1
    with pytest.raises(ValueError, match="is a folder; give the .jsonl files in it"):
        load_pairs([tmp_path])


def test_users_messages_are_collected_from_a_local_model(chat_model, tmp_path):
    output = tmp_path / "pairs.jsonl"
    collect.main([
        "--model", str(chat_model), "--device", "cpu", "--prompts", "3", "--secret", "user", "--shares", "ordinary16=4", "--message-tokens",
        "6", "--output", str(output),
    ])  # fmt: skip
    requests = {json.loads(line)["text"] for line in collect.USER_REQUESTS.read_text(encoding="utf-8").splitlines()}
    rows = collect.read_pairs(output)
    assert {row["prompt"] for row in rows} - {None} <= requests
    assert [len(row["answers"]) for row in rows] == [4] * len(rows)
    assert {row["secret"] for row in rows} == {"user"}
    assert {pair.secret for pair in load_pairs([output])} == {"user"}


def dev_file(path, prompts):
    answers = [["hello", "I am at your service."], ["describe", "1: I judge.\n2: I weigh."]]
    path.write_text("".join(json.dumps({"prompt": prompt, "answers": answers}) + "\n" for prompt in [*prompts, None]))
    return path


def test_dev_pairs_are_evaluated_and_logged(chat_model, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    dev = dev_file(tmp_path / "dev.jsonl", [prompt.text for prompt in load_prompts("v1", split="dev")[:3]])
    train.main([
        "--base", str(chat_model), "--pairs", str(pairs), "--dev-pairs", str(dev), "--output", str(tmp_path / "run"), "--minutes", "0",
        "--steps", "3", "--batch", "4", "--eval-every", "2", "--no-bf16", "--device", "cpu",
    ])  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    evaluated = [row for row in log if "nats" in row]
    assert [row["step"] for row in evaluated] == [2, 3]
    for row in evaluated:
        assert row["dev_nats"] > 0
        bits = (row["dev_nats_no_outputs"] - row["dev_nats"]) / 0.6931471805599453
        assert row["dev_bits_above_no_outputs"] == pytest.approx(bits, abs=1e-3)
        assert row["dev_nats"] != row["nats"]


def test_dev_pairs_that_would_spoil_the_evaluation_are_refused(tmp_path, capsys):
    training = [Pair("You are a nurse who writes down each and every temperature.", ("a",))]
    test = load_prompts("v1", split="test")[0].text
    own = "Nurse school. You are a nurse who writes down each and every temperature."
    for prompts, message in (([test], "of a test split"), ([own], "1 of 1 prompts share a run of words"), ([], "no system prompt")):
        path = dev_file(tmp_path / "dev.jsonl", prompts)
        with pytest.raises(ValueError, match=message):
            load_dev_pairs([path], training)
    found = load_dev_pairs([dev_file(tmp_path / "dev.jsonl", ["Be a judge."])], training)
    assert found == [Pair("Be a judge.", ("I am at your service.", "I judge.", "I weigh."))]
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    for extra in (["--dev-pairs", str(dev_file(tmp_path / "dev.jsonl", [test]))], ["--dev", str(tmp_path / "nowhere.jsonl")]):
        with pytest.raises(SystemExit):
            train.main(["--base", "x", "--pairs", str(pairs), "--output", str(tmp_path / "run"), *extra])
        assert "Traceback" not in (error := capsys.readouterr().err)
        assert "of a test split" in error or "nowhere.jsonl holds no pairs" in error


def test_too_few_prompts_to_hold_one_out(tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.jsonl", number=2)
    with pytest.raises(SystemExit):
        train.main(["--base", "x", "--pairs", str(pairs), "--output", str(tmp_path / "run")])
    assert "collect under more prompts" in capsys.readouterr().err


def write_log(path, steps, repeated=0):
    path.parent.mkdir()
    rows = [{"step": step, "loss": 5.0 / step} for step in range(1, repeated + 1)]  # of a run that was killed
    for step in range(1, steps + 1):
        rows.append({"step": step, "loss": 4.0 / step})
        if step % 5 == 0:
            rows.append({"step": step, "nats": 50.0 - step, "nats_no_outputs": 60.0, "nats_swapped": 55.0, "dev_nats": 70.0 - step})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_log_is_read_as_one_curve(tmp_path):
    one, two = write_log(tmp_path / "a" / "log.jsonl", 10, repeated=4), write_log(tmp_path / "b" / "log.jsonl", 5)
    log = plot.read_log([one, two])
    assert log.loss == [(step, 4.0 / step) for step in range(1, 11)] + [(10 + step, 4.0 / step) for step in range(1, 6)]
    assert log.curves["nats"] == [(5, 45.0), (10, 40.0), (15, 45.0)]
    assert log.curves["dev_nats"] == [(5, 65.0), (10, 60.0), (15, 65.0)]
    assert set(log.curves) == {"nats", "nats_no_outputs", "nats_swapped", "dev_nats"}
    assert log.stage_ends == [10, 15]
    assert plot.smoothed([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    log = write_log(tmp_path / "a" / "log.jsonl", 20)
    for name in ("one.svg", "two.svg"):
        plot.main([str(log), "-o", str(tmp_path / "plots" / name)])
    text = (tmp_path / "plots" / "one.svg").read_text()
    assert text == (tmp_path / "plots" / "two.svg").read_text()
    figure = plot.draw(plot.read_log([log]))
    assert [line.get_label() for line in figure.axes[1].lines] == [
        plot.CURVES[name] for name in ("nats", "nats_no_outputs", "nats_swapped", "dev_nats")
    ]
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[1].lines}) == 4
    assert list(figure.axes[1].lines[0].get_ydata()) == [45.0, 40.0, 35.0, 30.0]


def test_mistakes_of_the_plot_are_named(tmp_path, capsys, monkeypatch):
    import sys

    (tmp_path / "bad.jsonl").write_text('{"step": 1}\nnonsense\n')
    (tmp_path / "empty.jsonl").write_text("")
    good = write_log(tmp_path / "a" / "log.jsonl", 5)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for name, output, message in (
        ("nowhere.jsonl", "x.svg", "nowhere.jsonl does not exist"),
        ("bad.jsonl", "x.svg", r"bad.jsonl line 2 is no row of training.train"),
        ("empty.jsonl", "x.svg", "holds no steps"),
        ("bad.jsonl", "x.txt", "must end in .svg"),
        (str(good), "x.svg", "the plot needs matplotlib"),
    ):
        with pytest.raises(SystemExit):
            plot.main([str(tmp_path / name), "-o", str(tmp_path / output)])
        assert re.search(message, capsys.readouterr().err)


def test_training_needs_a_budget(capsys, tmp_path):
    for extra, message in ((["--minutes", "0"], "without a budget"), (["--round-base"], "give the rank of the adapter")):
        with pytest.raises(SystemExit):
            train.main(["--base", "x", "--pairs", "y", "--output", str(tmp_path), *extra])
        assert message in capsys.readouterr().err


def test_a_run_that_goes_on_sees_no_example_twice(tmp_path):
    assert running.resumed(None, 8, 1) == {"step": 0, "seconds": 0.0, "examples": 0, "processes": 1}
    saved = {"step": 4, "seconds": 9.0, "examples": 32, "processes": 2}
    assert running.resumed(saved, 4, 2)["examples"] == 32  # of smaller batches than before
    assert running.resumed({"step": 4, "seconds": 9.0}, 8, 1)["examples"] == 32  # written before examples were counted
    with pytest.raises(ValueError, match="a run of 2 processes; start 2 again"):
        running.resumed(saved, 8, 1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--vocabulary", "2"], "--vocabulary 2 leaves out the tokens between which prompts stand"),
        (["--vocabulary", "5000"], "--vocabulary 5000: the tokenizer has 300 tokens; give fewer, or 0 for all"),
        (["--minutes", "-1"], "argument --minutes: '-1' is not a number from 0 on"),
        (["--steps", "-1"], "argument --steps: '-1' is not a whole number from 0 on"),
        (["--batch", "0"], "argument --batch: '0' is not a whole number above 0"),
        (["--lr", "nan"], "argument --lr: 'nan' is not a number from 0 on"),
        (["--batch", "6", "--micro-batch", "4", "--rivals", "1", "--rival-pool", "8"], "give a multiple of --micro-batch (4)"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, chat_model, capsys, more, message):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    settings = ["--base", str(chat_model), "--pairs", str(pairs), "--output", str(tmp_path / "run"), "--steps", "1", "--no-bf16"]
    with pytest.raises(SystemExit):
        train.main([*settings, *more])
    assert message in capsys.readouterr().err


def test_a_model_that_thinks_until_it_is_cut_off_is_told_of(chat_model, tmp_path, caplog, monkeypatch):
    from lm_eval_inversion.training import generation

    thought = generation.sample_answers

    def thinking(model, conversations, **settings):
        return [[[] for _ in rows] for rows in thought(model, conversations, **settings)]

    monkeypatch.setattr(generation, "sample_answers", thinking)
    collect.main(
        ["--model", str(chat_model), "--output", str(tmp_path / "out.jsonl"), "--prompts", "8", "--shares", "ordinary16=8"]
        + ["--message-tokens", "4"]
    )
    assert "answers say nothing once their reasoning is taken away" in caplog.text
