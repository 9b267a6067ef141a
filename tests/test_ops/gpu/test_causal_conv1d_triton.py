import pytest
import torch
from cuda_cases import ConvCases, make_conv_arguments, put_all, run_conv
from tolerances import HALF, assert_close, looser

from mmdefocus.ops import backends, causal_conv1d

pytestmark = pytest.mark.gpu


class TestConv(ConvCases):
    backend = 'triton'


def test_triton_is_chosen_without_cuda_kernels(device, monkeypatch):
    monkeypatch.setattr(backends, '_BUILT_WITH_CUDA', False)
    arguments = put_all(make_conv_arguments(), device)
    assert torch.equal(causal_conv1d(*arguments), causal_conv1d(*arguments, backend='triton'))


@pytest.mark.parametrize(('batch', 'length'), [(64, 197), (16, 577), (2, 4705)])
def test_base_network_shapes_equal_the_reference(device, batch, length):
    x, weight, bias = put_all(make_conv_arguments(batch, 1536, length), device)
    rows = x.detach().transpose(1, 2).contiguous().bfloat16().transpose(1, 2).requires_grad_()
    first = run_conv([rows, weight, bias], 'silu', 'triton')
    for result, again in zip(first, run_conv([rows, weight, bias], 'silu', 'triton'), strict=True):
        assert torch.equal(result, again)
    exact = rows.detach().float().requires_grad_()
    for result, other in zip(first, run_conv([exact, weight, bias], 'silu', 'reference'), strict=True):
        assert_close(result.float(), other, looser(HALF[torch.bfloat16], 'rounded operands'))
