import subprocess
import sys

import pytest

from lm_eval_inversion.protocol import TASKS, make_protocol
from lm_eval_inversion.sampling import normalise_sampling


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_loads_neither_torch_nor_a_host():
    """Nor ``importlib.metadata``: the discovery imports the package in every process of the environment."""
    heavy = "torch", "transformers", "lm_eval", "inspect_ai", "datasets", "nltk", "importlib.metadata"
    code = "import sys, lm_eval_inversion.adapters.lm_eval.discovery"
    assert run(f"{code}\nprint([name for name in {heavy} if name in sys.modules])").strip() == "[]"


def test_the_core_imports_no_host():
    modules = "evaluation", "protocol", "sampling", "inverter.sparse_prefix", "inverter.sparse_t5", "outputs", "report", "training.train"
    imports = "\n".join(f"import lm_eval_inversion.{name}" for name in modules)
    assert run(f"{imports}\nimport sys\nprint([n for n in ('lm_eval', 'inspect_ai') if n in sys.modules])").strip() == "[]"


def test_public_names_exist():
    import lm_eval_inversion

    for name in lm_eval_inversion.__all__:
        assert getattr(lm_eval_inversion, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = lm_eval_inversion.nope


def test_protocol_checks_its_parameters(tmp_path):
    assert set(TASKS) == {"prompt_inversion", "prompt_inversion_paper", "prompt_inversion_ordinary", "prompt_inversion_user"}
    for parameters, message in (
        ({"num_queries": 0}, "num_queries=0.*from 1 to 4"),
        ({"split": "train"}, "no split 'train'"),
        ({"decoy_seed": "x"}, "decoy_seed='x' is not a whole number"),
        ({"decoy_seed": 0.5}, "decoy_seed=0.5 is not a whole number"),
        ({"curve": "maybe"}, "curve='maybe' is neither true nor false"),
        ({"curve": "true", "inverter": "nearest"}, "curve=true measures bits .* inverter='nearest' is a baseline without likelihoods"),
    ):
        with pytest.raises(ValueError, match=message):
            make_protocol("prompt_inversion", **parameters)
    with pytest.raises(ValueError, match="task 'nope' is unknown"):
        make_protocol("nope")
    with pytest.raises(FileNotFoundError, match="nor a file"):
        make_protocol("prompt_inversion", prompts=str(tmp_path / "nowhere.txt"))
    with pytest.raises(ValueError, match="inverter='nope' is unknown"):
        make_protocol("prompt_inversion", inverter="nope").check_inverter()


def test_sampling_follows_the_temperature():
    assert normalise_sampling({"temperature": 0})["do_sample"] is False
    assert normalise_sampling({"temperature": 0.7})["do_sample"] is True
    assert normalise_sampling({"do_sample": False, "temperature": 0.7})["temperature"] == 0.0
    with pytest.raises(ValueError, match="temperature=-1"):
        normalise_sampling({"temperature": -1})


def test_a_whole_seed_may_come_as_a_float():
    """As lm_eval's command line hands over -1."""
    found = make_protocol("prompt_inversion", decoy_seed=-1.0).decoy_seed
    assert (found, type(found)) == (-1, int)
