import pytest
import torch

from lm_eval_inversion.precision import fast_dtype
from lm_eval_inversion.training.train import computes_in_bf16


def test_accelerators_compute_in_bfloat16():
    assert fast_dtype("cuda") is fast_dtype("cuda:1") is fast_dtype("mps") is torch.bfloat16


@pytest.mark.parametrize("supported", [True, False])
def test_a_cpu_computes_in_what_it_has_instructions_for(monkeypatch, supported):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert fast_dtype("cpu") is (torch.bfloat16 if supported else torch.float32)
    assert computes_in_bf16(None, "cpu") is supported
    assert computes_in_bf16(True, "cpu")
    assert not computes_in_bf16(False, "cpu")
