"""What a checkpoint folder from a stranger can do: be refused, or be read."""

import ast
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import lm_eval_inversion
from lm_eval_inversion import load_inverter
from lm_eval_inversion.hashing import file_sha256
from lm_eval_inversion.inverter import CheckpointError, check_inverter
from lm_eval_inversion.inverter.checkpoint import declared_tensors, unpacked_shapes
from lm_eval_inversion.inverter.packing import pack_adapter, pack_named, unpack_state

PACKAGE = Path(lm_eval_inversion.__file__).parent
GIGABYTES = 200_000  # rows or columns; squared, far beyond this machine


@pytest.fixture
def copied(tiny_inverter_folder, tmp_path):
    return shutil.copytree(tiny_inverter_folder, tmp_path / "copy")


def describe(folder, change):
    """Change the description as a forger would: hashes stay right."""
    path = folder / "inverter.json"
    description = json.loads(path.read_text())
    change(description)
    description["sha256"] |= {name: file_sha256(folder / name) for name in ("weights.safetensors", "tokenizer.json", "words.json")}
    path.write_text(json.dumps(description))


def refused(folder, message):
    """Both ways to the checkpoint refuse it, with the folder's name in the message."""
    for load in (check_inverter, load_inverter):
        with pytest.raises(CheckpointError, match=message) as caught:
            load(str(folder))
        assert str(folder) in str(caught.value)
        assert len(str(caught.value)) < 1000


def write_tensors(path, tensors):
    """A safetensors file by hand: ``tensors`` maps names to (type, shape, bytes)."""
    header, data = {}, b""
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "np.load", "numpy.load"}
CALLS |= {"yaml.full_load", "yaml.unsafe_load", "os.system", "os.popen", "pandas.read_pickle"}
SWITCHES = {"trust_remote_code": True, "allow_pickle": True, "shell": True, "weights_only": False, "use_safetensors": False}


def dangers(source):
    """Lines of a program that could unpickle, run or fetch code."""
    found, nodes = [], list(ast.walk(ast.parse(source)))
    safe = {"yaml.SafeLoader"}
    safe |= {node.name for node in nodes if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} <= safe}
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if {name.split(".")[0] for name in names} & MODULES:
            found.append(node.lineno)
        if isinstance(node, ast.Call):
            switched = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            loaders = [ast.unparse(word) for word in [*node.args[1:], *(word.value for word in node.keywords)]]
            if ast.unparse(node.func) in ("yaml.load", "yaml.load_all") and not safe.intersection(loaders):
                found.append(node.lineno)
            if ast.unparse(node.func) in CALLS or any(switched.get(name) is bad for name, bad in SWITCHES.items()):
                found.append(node.lineno)
    return found


def test_nothing_in_the_package_can_unpickle_or_run_what_it_reads():
    found = {str(path.relative_to(PACKAGE)): dangers(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 50
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "load(x, trust_remote_code=True)",
        "yaml.load(x)",
        "eval(x)",
    ],
)
def test_such_a_line_would_be_found(source):
    assert dangers(source)
    assert not dangers("model.eval()\nre.compile('x')\nload(x, trust_remote_code=False)\nyaml.safe_load(x)\nyaml.load(x, yaml.SafeLoader)")


def test_no_shipped_file_is_a_pickle():
    kinds = {path.suffix for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert not kinds & {".pkl", ".pickle", ".pt", ".pth.tar", ".bin", ".ckpt", ".npy", ".npz", ".joblib", ".so"}
    (startup,) = PACKAGE.rglob("*.pth")  # the interpreter's start-up line for task discovery, not a model
    assert startup.name == "lm_eval_inversion_discovery.pth"
    assert startup.stat().st_size < 1000


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\secret", "sub/weights.safetensors", "model.bin", ""])
def test_a_description_that_names_other_files_is_refused(copied, name):
    describe(copied, lambda description: description["sha256"].update({name: "0" * 64}))
    refused(copied, "names the file .*no other file is read")


def test_counts_of_words_that_are_none_are_refused(copied, monkeypatch):
    for text in ("[" * 100_000, '{"outputs": 1, "counts": {"a": 2}}', '"\\ud800"', "\xff"):
        (copied / "words.json").write_bytes(text.encode("latin-1"))
        describe(copied, lambda description: None)
        refused(copied, r"words\.json .*get the file again")
    monkeypatch.setattr("lm_eval_inversion.inverter.checkpoint.MOST_WORDS_BYTES", 0)
    refused(copied, r"words\.json is \d+ bytes long")


@pytest.mark.parametrize("value", [None, 7, "", "0" * 63, "Z" * 64, ["0" * 64]])
def test_a_hash_that_is_none_is_refused(copied, value):
    path = copied / "inverter.json"
    description = json.loads(path.read_text())
    description["sha256"]["tokenizer.json"] = value
    path.write_text(json.dumps(description))
    refused(copied, "holds no hash of tokenizer.json")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", "[" * 100_000, '{"sha256": ' + "9" * 5000 + "}", '{"sha256": [1], "format_version": 1}', "\ufeff{}", "NaN"],
    ids=lambda text: text[:12] or "empty",
)
def test_a_description_that_is_none_is_refused(copied, text):
    (copied / "inverter.json").write_text(text, encoding="utf-8")
    refused(copied, "is not a checkpoint description")


def test_a_description_of_many_megabytes_is_not_read(copied):
    path = copied / "inverter.json"
    path.write_text(path.read_text() + " " * 2_000_000)
    refused(copied, "bytes long, where no more than")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModelForCausalLM": "evil.Model"}),
        ("quantization_config", {"quant_method": "x"}),
        ("_attn_implementation", "someone/kernel"),
        ("torch_dtype", "float64"),
        ("../x", 1),
    ],
)
def test_configuration_that_could_name_code_is_refused(copied, key, value):
    describe(copied, lambda description: description["model_config"].update({key: value}))
    refused(copied, f"model_config.{re.escape(key)} is not read")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vocab_size", 10**9, "the weights do not fit"),
        ("hidden_size", 1 << 20, "the weights do not fit"),
        ("intermediate_size", 10**9, "the weights do not fit"),
        ("head_dim", 10**8, "tables beyond any inverter|the weights do not fit"),
        ("num_attention_heads", 10**8, "the weights do not fit|describes no model"),
        ("num_key_value_heads", 1000, "the weights do not fit|describes no model"),
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000; it is a whole number from 1 to"),
        ("num_hidden_layers", 3, "layers.2.* is missing"),
        ("num_hidden_layers", 1, "layers.1.* is not part of the model"),
        ("num_hidden_layers", True, "num_hidden_layers is True"),
        ("num_hidden_layers", "2", "num_hidden_layers is 2;"),
        ("vocab_size", -1, "vocab_size is -1"),
        ("vocab_size", 10**30, "vocab_size is 1000"),
        ("vocab_size", None, "vocab_size is None"),
        ("max_position_embeddings", 8, "more than the model has"),
        ("max_position_embeddings", 10**12, "more than the model has|describes no model"),
        ("tie_word_embeddings", False, "lm_head.weight is missing"),
        ("attention_bias", True, "bias is missing"),
        ("model_type", "no-such-model", "describes no model"),
        ("model_type", ["llama"], "must be an object with a 'model_type'"),
        ("model_type", "gpt2", "no rotary positions|describes no model"),
        ("model_type", "deepseek_v3", "the weights do not fit|describes no model"),
        ("model_type", "qwen3", "describes no model|the weights do not fit"),
        ("model_type", "recurrent_gemma", "the weights do not fit|describes no model"),
        ("hidden_act", "os.system", "describes no model"),
        ("rope_parameters", {"rope_type": "no-such"}, "describes no model"),
    ],
)
def test_a_tampered_configuration_is_refused_before_anything_is_allocated(copied, monkeypatch, key, value, message):
    from safetensors import torch as weights

    monkeypatch.setattr(weights, "load_file", lambda *_, **__: pytest.fail("weights were read"))
    describe(copied, lambda description: description["model_config"].update({key: value}))
    refused(copied, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_outputs": 0}, "block_format.max_outputs is 0; it is a whole number from 1"),
        ({"max_output_tokens": 10**12}, "block_format.max_output_tokens is 1000000000000"),
        ({"max_output_tokens": 100_000}, "more than the model has"),
        ({"max_output_tokens": 1.5}, "block_format.max_output_tokens is 1.5"),
        ({"start_id": -1}, "block_format.start_id is -1"),
        ({"start_id": 2}, "start_id and end_id are both 2"),
        ({"end_id": 100_000}, "a token 100000, but the model's vocab_size is"),
        ({"user_start_id": -1}, "block_format.user_start_id is -1"),
        ({"user_start_id": "<user>"}, "block_format.user_start_id is <user>"),
        ({"user_start_id": True}, "block_format.user_start_id is True"),
        ({"user_start_id": 2}, "start_id and end_id are both 2"),
        ({"user_start_id": 100_000}, "a token 100000, but the model's vocab_size is"),
        ({"blocks_per_output": 0}, "block_format.blocks_per_output is 0; it is a whole number from 1 to 64"),
        ({"blocks_per_output": None}, "block_format.blocks_per_output is None"),
        ({"blocks_per_output": 10**6}, "block_format.blocks_per_output is 1000000"),
        ({"output_layers": 0}, "block_format.output_layers is 0; it is a whole number from 1"),
        ({"output_layers": 2}, "block_format.output_layers is 2; outputs stop below the last layer"),
        ({"output_layers": "1"}, "block_format.output_layers is 1;"),
        ({"surprise": 1}, "'block_format' must hold the numbers"),
    ],
)
def test_a_tampered_block_format_is_refused(copied, change, message):
    describe(copied, lambda description: description["block_format"].update(change))
    refused(copied, message)


def test_a_tokenizer_that_is_none_or_too_large_for_the_model_is_refused(copied):
    path = copied / "tokenizer.json"
    good = path.read_text()
    path.write_text("{" * 1000)
    describe(copied, lambda _: None)
    refused(copied, "tokenizer.json is not a tokenizer")
    data = json.loads(good)
    data["model"]["vocab"]["zz-one-more"] = 5000
    path.write_text(json.dumps(data))
    describe(copied, lambda _: None)
    refused(copied, "a token 5000, but the model's vocab_size is")


@pytest.mark.parametrize(
    "tensors",
    [
        {"model.norm.weight": ("F32", [GIGABYTES, GIGABYTES], b"")},  # the header promises what the file does not hold
        {"model.norm.weight": ("F32", [1 << 62, 1 << 62], b"\0" * 4)},
        {"model.norm.weight": ("F32", [-1], b"\0" * 4)},
    ],
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(copied, tensors):
    write_tensors(copied / "weights.safetensors", tensors)
    describe(copied, lambda _: None)
    refused(copied, "weights.safetensors is not a safetensors file")


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 100, b"\x80\x04\x95\x10pickle", struct.pack("<Q", 1 << 60) + b"{}"])
def test_weights_that_are_no_safetensors_are_refused(copied, content):
    (copied / "weights.safetensors").write_bytes(content)
    describe(copied, lambda _: None)
    refused(copied, "weights.safetensors is not a safetensors file")


def packed(rows, columns, **changed):
    """Header of one packed matrix, and parts that only broadcast to it."""
    groups = columns // 32
    parts = {
        "codes": ("U8", (rows, columns // 2)),
        "scale": ("U8", (rows, groups)),
        "minimum": ("I8", (rows, groups)),
        "units": ("F16", (rows, 2)),
    }
    return {f"w|{part}": value for part, value in {**parts, **changed}.items() if value is not None}


ADAPTER = {"down": ("I8", (2, 64)), "down_unit": ("F32", (2,)), "up": ("I8", (2, 8)), "up_unit": ("F32", (2,))}


def test_fitting_parts_are_taken():
    assert unpacked_shapes(packed(8, 64)) == {"w": (8, 64)}
    assert unpacked_shapes(packed(8, 64, **ADAPTER) | {"norm": ("BF16", (5,))}) == {"w": (8, 64), "norm": (5,)}


@pytest.mark.parametrize(
    "changed",
    [
        {"units": ("F16", (GIGABYTES, 2))},  # one row of codes, and as many rows of units as one likes
        {"scale": ("U8", (1, 2)), "minimum": ("I8", (1, 2))},
        {"scale": ("U8", (8, 1 << 30))},
        {**ADAPTER, "up": ("I8", (2, GIGABYTES))},
        {**ADAPTER, "down": ("I8", (2, GIGABYTES))},
        {**ADAPTER, "up_unit": ("F32", (1,))},
        {**ADAPTER, "up": None},
        {"down": ("I8", (2, 64))},
        {"units": None},
        {"units": ("F32", (8, 2))},
        {"codes": ("I64", (8, 32))},
        {"codes": ("U8", (8,))},
        {"codes": ("U8", ())},
        {"codes": ("U8", (8, 2, 16))},
        {"surprise": ("U8", (1,))},
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(changed):
    with pytest.raises(CheckpointError, match="the parts of 'w' do not fit each other|'w' is not a packed matrix"):
        unpacked_shapes(packed(8, 64, **changed))


@pytest.mark.parametrize(
    "tensors", [{"w": ("I64", (4,))}, {"w": ("F64", (4,))}, {"w": ("F32", (8, 64)), **packed(8, 64)}, {"|codes": ("U8", (1, 16))}]
)
def test_weights_of_another_kind_are_refused(tensors):
    with pytest.raises(CheckpointError, match="is of type|is not a packed matrix"):
        unpacked_shapes(tensors)


def test_declared_shapes_are_those_that_unpacking_gives(tmp_path):
    """Computed from the header alone, compared with what is really unpacked."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {**pack_named("a", torch.randn(6, 96)), **pack_named("norm", torch.randn(7)), **pack_named("odd", torch.randn(3, 33))}
    tensors |= pack_adapter("a", torch.randn(4, 96), torch.randn(6, 4))
    save_file(tensors, tmp_path / "weights.safetensors")
    state = unpack_state(load_file(tmp_path / "weights.safetensors"))
    assert unpacked_shapes(declared_tensors(tmp_path / "weights.safetensors")) == {
        name: tuple(value.shape) for name, value in state.items()
    }


def test_a_hostile_folder_does_not_cost_memory(copied):
    """A description of a terabyte, checked in a process that may not have more than it needs to import torch."""
    describe(
        copied, lambda description: description["model_config"].update(vocab_size=1 << 30, hidden_size=4096, intermediate_size=1 << 30)
    )
    code = (
        "import resource, sys, torch, transformers\n"
        "from transformers import AutoModelForCausalLM\n"
        "from lm_eval_inversion.inverter import check_inverter\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))\n"
        "try:\n"
        "    check_inverter(sys.argv[1])\n"
        "except ValueError as error:\n"
        "    print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copied)], capture_output=True, text=True, check=False)
    assert "refused:" in done.stdout, done.stdout + done.stderr
    assert "the weights do not fit" in done.stdout


def test_the_shipped_checkpoint_passes():
    check_inverter("default")
