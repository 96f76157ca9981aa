import pytest
import torch
from torch import nn

from lm_eval_inversion.inverter.few_rows import MOST_ROWS, FewRowsLinear, adopt_few_rows


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1), (1, MOST_ROWS), (2, MOST_ROWS), ()])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_the_same_from_the_other_side(shape, bias, dtype):
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias, dtype=dtype)
    model = nn.Sequential(plain)
    inputs = torch.randn(*shape, 24, dtype=dtype)
    with torch.inference_mode():
        expected = model(inputs)
        adopt_few_rows(model)
        assert type(plain) is FewRowsLinear
        found = model(inputs)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_gradients_and_names_stay():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    names = list(model.state_dict())
    adopt_few_rows(model)
    assert list(model.state_dict()) == names
    model(torch.randn(2, 6)).sum().backward()
    assert model[0].weight.grad is not None
