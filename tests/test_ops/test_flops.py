"""Tests of the FLOP formulas of the operators against element-wise counts of the PyTorch reference."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from mmengine.analysis import FlopAnalyzer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from mmdefocus.models import DefocusMamba
from mmdefocus.ops import causal_conv1d, defocus_scan, neighbourhood_attention, selective_scan
from mmdefocus.ops.causal_conv1d.registration import causal_conv1d_backward_flops, causal_conv1d_flops
from mmdefocus.ops.flops import FLOP_FORMULAS
from mmdefocus.ops.selective_scan.reference import selective_scan_reference
from mmdefocus.ops.selective_scan.registration import selective_scan_backward_flops, selective_scan_flops

# batch, channels, state, length, groups
SIZES = [(1, 4, 6, 5, 1), (2, 6, 4, 1, 2), (3, 8, 16, 7, 4)]


class ElementCount(TorchDispatchMode):
    """Count the element-wise multiplications, additions and exponentials in a block of code."""

    def __enter__(self):
        self.total = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ('mul', 'add', 'exp'):
            self.total += result.numel()
        elif name == 'sum':
            self.total += args[0].numel()
        return result


def make_scan(batch, channels, state, length, groups):
    shapes = [(batch, channels, length)] * 2 + [(channels, state)] + [(batch, groups, state, length)] * 2
    return [torch.rand(shape, requires_grad=True) for shape in shapes]


def count(function, *arguments):
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops()


@pytest.mark.parametrize('size', SIZES)
def test_scan_takes_what_the_loop_takes(size):
    arguments = make_scan(*size)
    with ElementCount() as loop:
        selective_scan_reference(*arguments)
    assert selective_scan_flops(*(argument.shape for argument in arguments)) == loop.total


@pytest.mark.parametrize('size', SIZES)
def test_gradients_of_the_scan_take_what_those_of_the_loop_take(size):
    batch, channels, state, length, _ = size
    arguments = make_scan(*size)
    y, _ = selective_scan_reference(*arguments)
    with ElementCount() as loop:
        y.backward(torch.ones_like(y))
    # The loop computes no gradient of the initial state, and it sums the gradient of A in two stages: over the
    # batch and over time.
    edges = -2 * batch * channels * state + channels * state * (length - 1)
    expected = selective_scan_backward_flops(y.shape, None, *(argument.shape for argument in arguments))
    assert expected + edges == loop.total


@pytest.mark.parametrize('width', (1, 4))
def test_convolution_takes_what_torch_counts_for_its_own(width):
    x, weight = torch.rand(2, 6, 9), torch.rand(6, width)

    def convolve():
        return F.conv1d(F.pad(x, (width - 1, 0)), weight[:, None], groups=6)

    assert causal_conv1d_flops(x.shape, weight.shape, None, True) == count(convolve)
    # Each of the two gradients takes as many products as the convolution.
    assert causal_conv1d_backward_flops(x.shape, x.shape, weight.shape, None, True) == 2 * count(convolve)


@pytest.mark.parametrize('device', ('cpu', 'meta'))
def test_neighbourhood_attention_takes_what_torch_counts_for_attention_to_as_many_keys(device):
    q, k, v = torch.rand(3, 2, 4, 9, 8, 5, device=device, requires_grad=True).unbind()
    bias = torch.rand(4, 13, 13, device=device, requires_grad=True)
    queries, keys = (2, 4, 72, 5), (2, 4, 49, 5)
    forward = sdpa_flop_count(queries, keys, keys)
    backward = sdpa_backward_flop_count(queries, queries, keys, keys)
    assert count(neighbourhood_attention, q, k, v, bias, 7) == forward
    assert count(lambda: neighbourhood_attention(q, k, v, bias, 7).sum().backward()) == forward + backward


def operators_that_compute():
    """Yield the operators that return a tensor; the others describe the build or the machine."""
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith('mmdefocus::'):
            schema = torch._C._get_schema(*(*name.split('.'), '')[:2])
            if any(str(result.type) == 'Tensor' for result in schema.returns):
                yield schema.name.removeprefix('mmdefocus::')


def test_every_operator_has_a_formula():
    assert sorted(operators_that_compute()) == sorted(FLOP_FORMULAS)
    for name in FLOP_FORMULAS:
        assert getattr(torch.ops.mmdefocus, name) in flop_registry


def test_what_a_cuda_build_tells_of_itself_needs_no_formula():
    """A CUDA build registers one more operator, which returns no tensor and so needs no FLOP formula."""
    with torch.library._scoped_library('mmdefocus', 'FRAGMENT') as library:
        if not hasattr(torch.ops.mmdefocus, 'missing_cuda_kernels'):
            library.define('missing_cuda_kernels(int device) -> str')
        test_every_operator_has_a_formula()


@pytest.mark.parametrize('device', ('cpu', 'meta'))
def test_torch_counts_the_operators(device):
    batch, channels, state, length, groups = 2, 6, 4, 9, 1
    arguments = [a.detach().to(device).requires_grad_() for a in make_scan(batch, channels, state, length, groups)]
    scan = batch * channels * length
    assert count(selective_scan, *arguments) == scan * (7 * state + 1)
    assert count(lambda: selective_scan(*arguments).sum().backward()) == scan * (22 * state + 4)
    x, weight = arguments[0], torch.rand(channels, 4, device=device, requires_grad=True)
    assert count(causal_conv1d, x, weight) == scan * 8
    assert count(lambda: causal_conv1d(x, weight, activation='silu').sum().backward()) == scan * 24


@pytest.mark.parametrize('device', ('cpu', 'meta'))
def test_fused_scan_counts_as_much_as_the_scan_in_it(device):
    batch, channels, state, length = 2, 6, 4, 9
    shapes = dict(
        u=(batch, length, channels),
        dt=(batch, length, channels),
        A=(channels, state),
        B=(batch, length, state),
        C=(batch, length, state),
        D=(channels,),
        z=(batch, length, channels),
        dt_bias=(channels,),
        freq=(state,),
    )
    tensors = {name: torch.rand(shape, device=device, requires_grad=True) for name, shape in shapes.items()}
    scan = batch * channels * length
    assert count(lambda: defocus_scan(**tensors, group_size=3)) == scan * (7 * state + 1)
    assert count(lambda: defocus_scan(**tensors, group_size=3).sum().backward()) == scan * (22 * state + 4)


def test_network_counts_the_same_by_torch_on_the_meta_device_and_by_mmengine():
    network = DefocusMamba('nano', out_type='raw').eval()
    images = torch.zeros(1, 3, 64, 64)
    by_operator = FlopAnalyzer(network, images).unsupported_ops_warnings(False).by_operator()
    assert by_operator['selective_scan'] + by_operator['defocus_scan'] == 4 * (17 * 192 * (7 * 16 + 1)) // 2
    # MMEngine counts five FLOPs per element of a layer norm, torch counts none.
    norms = Counter(by_operator).pop('layer_norm')
    assert norms == 5 * 17 * 96
    twice = count(network.to('meta'), images.to('meta'))
    assert 2 * (sum(by_operator.values()) - norms) == twice
