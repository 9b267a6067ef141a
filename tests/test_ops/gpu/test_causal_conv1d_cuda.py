import pytest
import torch
from cuda_cases import ConvCases, make_conv_arguments, put_all, run_conv
from tolerances import HALF, assert_close, looser

from mmdefocus.ops import causal_conv1d

pytestmark = pytest.mark.gpu


class TestConv(ConvCases):
    pass


def test_cuda_is_chosen_for_cuda_tensors(device):
    arguments = put_all(make_conv_arguments(), device)
    expected = causal_conv1d(*arguments, activation='silu', backend='cuda')
    assert torch.equal(causal_conv1d(*arguments, activation='silu'), expected)


def test_reference_is_chosen_for_wide_kernels(device):
    x, weight, bias = put_all(make_conv_arguments(width=5), device)
    assert torch.equal(causal_conv1d(x, weight, bias), causal_conv1d(x, weight, bias, backend='reference'))
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run: its kernels take a width of up to 4, got 5"):
        causal_conv1d(x, weight, bias, backend='cuda')


@pytest.mark.parametrize(('batch', 'length'), [(64, 197), (16, 577), (2, 4705)])
def test_base_network_shapes_equal_the_reference(device, batch, length):
    x, weight, bias = put_all(make_conv_arguments(batch, 1536, length), device)
    rows = x.detach().transpose(1, 2).contiguous().bfloat16().transpose(1, 2).requires_grad_()
    first = run_conv([rows, weight, bias], 'silu', 'cuda')
    for result, again in zip(first, run_conv([rows, weight, bias], 'silu', 'cuda'), strict=True):
        assert torch.equal(result, again)
    exact = rows.detach().float().requires_grad_()
    expected = run_conv([exact, weight, bias], 'silu', 'reference')
    for result, other in zip(first, expected, strict=True):
        assert_close(result.float(), other, looser(HALF[torch.bfloat16], 'rounded operands'))


def test_opcheck(device):
    arguments = put_all(make_conv_arguments(), device)
    torch.library.opcheck(torch.ops.mmdefocus.causal_conv1d.default, (*arguments, True))
