import pytest
import torch

from lm_eval_inversion.precision import choose_device, fast_dtype
from lm_eval_inversion.training.running import computes_in_bf16


def test_accelerators_compute_in_bfloat16():
    assert fast_dtype("cuda") is fast_dtype("cuda:1") is fast_dtype("mps") is torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"avx512_bf16": True, "cpu_name": "AMD Zen 4"}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_computes_in_what_it_has_instructions_for(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_dtype("cpu") is (torch.bfloat16 if fast else torch.float32)
    assert computes_in_bf16(None, "cpu") is fast
    assert computes_in_bf16(True, "cpu")
    assert not computes_in_bf16(False, "cpu")


def test_what_this_machine_can_do_is_known_by_the_names_that_are_looked_for():
    known = torch.cpu.get_capabilities()
    if known["architecture"] != "x86_64":
        pytest.skip("the names are those of x86")
    assert {"amx_bf16", "avx512_bf16"} <= set(known)


def test_the_device_that_is_asked_for_is_taken(monkeypatch):
    assert choose_device("cpu") == "cpu"
    for macs, known in ((False, "auto, cpu, or cuda:N"), (True, "auto, cpu, cuda:N, or mps")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda macs=macs: macs)
        with pytest.raises(ValueError, match=f"--device='abacus' cannot be used .*; give {known}$"):
            choose_device("abacus", "--device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert choose_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "3")  # each process of a data parallel run has a GPU of its own
    assert choose_device("auto") == "cuda:3"
