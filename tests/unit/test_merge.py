"""Weighted sums of checkpoints that share one packed base."""

import json
import re
import shutil
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lm_eval_inversion import load_inverter
from lm_eval_inversion.hashing import file_sha256
from lm_eval_inversion.inverter.baselines import read_training_prompts
from lm_eval_inversion.inverter.packing import pack_adapter, unpack_adapter, unpack_state
from lm_eval_inversion.training.adapter import keep_base
from lm_eval_inversion.training.manifest import write_training_prompts
from lm_eval_inversion.training.merge import main, merge_weights, merged_adapter

ROUNDING = 0.02  # of the size of an adapter's product, for two times eight bits


def adapters_of(number, seed, ranks=(7, 2, 6), rows=12, columns=10):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return [(weight, draw(rank, columns), draw(rows, rank)) for weight, rank in zip((1.1, 0.5, -0.6)[:number], ranks)]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(0, 1000))
def test_the_merged_adapter_is_the_nearest_of_its_rank(number, rank, seed):
    adapters = adapters_of(number, seed)
    wanted = sum(weight * up @ down for weight, down, up in adapters)
    down, up = merged_adapter(adapters, rank)
    assert down.shape[0] == up.shape[1] <= rank
    sizes = torch.linalg.svdvals(wanted)
    # Eckart and Young: what no matrix of this rank can have.
    torch.testing.assert_close((up @ down - wanted).norm(), sizes[rank:].norm(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(down.norm(dim=1), up.norm(dim=0), rtol=1e-3, atol=1e-4)  # the size stands half in each


@pytest.fixture
def stages(tiny_inverter_folder, tmp_path):
    """Three checkpoints of one base with adapters of their own, as three stages of ``--keep-base`` leave them."""
    folders = []
    for number in range(3):
        folder = shutil.copytree(tiny_inverter_folder, tmp_path / f"stage_{number}")
        packed = load_file(folder / "weights.safetensors")
        generator = torch.Generator().manual_seed(number)
        for name in [name.partition("|")[0] for name in packed if name.endswith("_proj.weight|codes")]:
            rows, columns = packed[f"{name}|codes"].shape[0], 2 * packed[f"{name}|codes"].shape[1]
            draw = lambda *shape: 0.1 * torch.randn(*shape, generator=generator)  # noqa: B023, E731
            packed.update(pack_adapter(name, draw(2, columns), draw(rows, 2)))
        write_weights(folder, packed)
        write_training_prompts(folder / "training_prompts.jsonl.xz", ["Be a baker.", f"Be number {number}."])
        folders.append(folder)
    return folders


def write_weights(folder, packed, **changes):
    save_file(packed, folder / "weights.safetensors")
    description = json.loads((folder / "inverter.json").read_text())
    description["sha256"]["weights.safetensors"] = file_sha256(folder / "weights.safetensors")
    (folder / "inverter.json").write_text(json.dumps(description | changes))


def command(folders, weights, output, *options):
    named = [f"{folder}={weight}" for folder, weight in zip(folders, weights)]
    return ["--checkpoints", *named, "--output", str(output), *options]


def test_the_command_writes_a_checkpoint_with_the_weighted_sum(stages, tmp_path, capsys):
    weights = (1.5, -0.6, 0.1)
    main(command(stages, weights, tmp_path / "merged", "--rank", "6", "--output-layers", "1"))
    found = json.loads(capsys.readouterr().out)
    assert found["sha256"] == file_sha256(tmp_path / "merged" / "inverter.json")
    states = [unpack_state(load_file(folder / "weights.safetensors")) for folder in stages]
    merged = unpack_state(load_file(tmp_path / "merged" / "weights.safetensors"))
    moved = 0
    for name, values in merged.items():
        wanted = sum(weight * state[name] for weight, state in zip(weights, states))
        assert (values - wanted).norm() <= ROUNDING * max((a[name] - b[name]).norm() for a, b in pairwise(states)) + 1e-5, name
        moved += not torch.equal(values, states[0][name])
    assert moved == sum(name.endswith("_proj.weight") for name in merged) > 0
    inverter = load_inverter(tmp_path / "merged")
    assert inverter.layout.output_layers == 1
    assert len(inverter.invert([["I bake."]], max_new_tokens=4)) == 1
    manifest = read_training_prompts((tmp_path / "merged" / "training_prompts.jsonl.xz").read_bytes())
    assert manifest == ("Be a baker.", "Be number 0.", "Be number 1.", "Be number 2.")
    assert found["prompts"] == 4


def test_as_many_ranks_as_wanted_and_older_descriptions_merge_and_train_on(stages, tmp_path, capsys):
    """What one matrix has no room for does not matter, nor what a description from before ``output_layers`` does not name."""
    layout = json.loads((stages[1] / "inverter.json").read_text())["block_format"]
    older = {name: value for name, value in layout.items() if name != "output_layers"}
    assert older != layout
    write_weights(stages[1], load_file(stages[1] / "weights.safetensors"), block_format=older)
    main(command(stages, (1.5, -0.6, 0.1), tmp_path / "merged", "--rank", "400"))
    weights_file = tmp_path / "merged" / "weights.safetensors"
    ranks = {tensor.shape[0] for name, tensor in load_file(weights_file).items() if name.endswith("|down")}
    assert ranks == {6}  # three times two
    packed = load_file(weights_file)
    name = next(name.partition("|")[0] for name in packed if name.endswith("k_proj.weight|down"))
    down, up = unpack_adapter(packed, name)
    save_file(packed | pack_adapter(name, down[:3], up[:, :3]), weights_file)  # as of a matrix with no more rows
    inverter = load_inverter(stages[0])
    model = keep_base(inverter.model, weights_file, tmp_path / "base.safetensors")
    wanted = unpack_state(load_file(weights_file))
    merged = model.merge_and_unload().state_dict()
    assert all(torch.allclose(merged[name], values, atol=1e-5) for name, values in wanted.items())


def test_one_checkpoint_alone_stays_what_it_is(stages):
    packed = load_file(stages[0] / "weights.safetensors")
    alone = unpack_state(merge_weights([(1.0, packed)], 2))
    for name, values in unpack_state(packed).items():
        torch.testing.assert_close(alone[name], values, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [((1.5, -0.6), "the weights add up to 0.9; give weights that add up to 1"), ((0.5, 0.6), "the weights add up to 1.1;")],
)
def test_weights_that_do_not_add_up_to_one_are_refused(stages, tmp_path, capsys, weights, message):
    refused(command(stages, weights, tmp_path / "merged"), message, capsys)
    assert not (tmp_path / "merged").exists()


def test_what_does_not_fit_together_is_refused(stages, tiny_inverter_folder, tmp_path, capsys):
    pair, output = command(stages, (1.5, -0.5), tmp_path / "merged"), tmp_path / "merged"
    bare = shutil.copytree(tiny_inverter_folder, tmp_path / "bare")
    write_training_prompts(bare / "training_prompts.jsonl.xz", [])
    refused(command([stages[0], bare], (1.5, -0.5), output), "has an adapter in some of them only", capsys)
    refused(command([bare], (1,), output), "they have no adapters, so there is nothing to merge", capsys)
    refused(command([stages[0]] * 2, (0.5, 0.5), output), "names a folder twice", capsys)
    refused(["--checkpoints", str(stages[0]), "--output", str(output)], "is not FOLDER=WEIGHT", capsys)
    refused(["--checkpoints", f"{stages[0]}=nan", "--output", str(output)], "is not FOLDER=WEIGHT", capsys)
    refused(command([tmp_path / "none"], (1,), output), "is not an inverter checkpoint", capsys)
    (stages[1] / "training_prompts.jsonl.xz").rename(tmp_path / "manifest")
    refused(pair, "No such file .*stage_1.*training_prompts.jsonl.xz", capsys)  # what it was trained on must stay known
    (tmp_path / "manifest").rename(stages[1] / "training_prompts.jsonl.xz")
    refused([*pair, "--output-layers", "99"], "--output-layers 99: the model has 2 layers", capsys)
    assert not output.exists()
    packed = load_file(stages[1] / "weights.safetensors")
    layout = json.loads((stages[1] / "inverter.json").read_text())["block_format"]
    write_weights(stages[1], packed, block_format={**layout, "output_layers": 1})
    refused(pair, "stage_1 differs from .*stage_0 in block_format;", capsys)
    main([*pair, "--output-layers", "1"])  # settled, so it does not matter that they differ
    name = next(name for name in packed if name.endswith("|codes"))
    write_weights(stages[1], {**packed, name: packed[name] ^ 1}, block_format=layout)
    refused(pair, "do not share one packed base", capsys)


def refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
