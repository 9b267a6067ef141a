"""Every operator, forward and backward, in a CUDA graph, and on a GPU that is not the current one."""

import pytest
import torch
from cuda_cases import make_conv_arguments, make_scan_arguments, put, put_all
from test_defocus_scan import OPTIONS
from triton_cases import make_on as make_attention_arguments
from triton_neighbourhood_cases import make_on as make_neighbourhood_arguments

from mmdefocus.ops import bandpass_attention, causal_conv1d, defocus_scan, neighbourhood_attention

pytestmark = pytest.mark.gpu


def scan(device, backend):
    # Long enough for segments.
    arguments = put(make_scan_arguments(batch=1, channels=64, length=577), device)
    return lambda: defocus_scan(**arguments, **OPTIONS, backend=backend), arguments.values()


def convolution(device, backend):
    arguments = put_all(make_conv_arguments(), device)
    return lambda: causal_conv1d(*arguments, activation='silu', backend=backend), arguments


def attention(device, backend):
    arguments = make_attention_arguments(device, batch=1, heads=2, length=70, channels=32, values=16)
    return lambda: bandpass_attention(**arguments, backend=backend), arguments.values()


def neighbourhood(device, backend):
    arguments = make_neighbourhood_arguments(device, 10, 12, 7)
    return lambda: neighbourhood_attention(**arguments, kernel_size=7, backend=backend), arguments.values()


CALLS = [(scan, 'cuda'), (scan, 'triton'), (convolution, 'cuda'), (convolution, 'triton')]
CALLS += [(attention, 'triton'), (neighbourhood, 'triton')]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def forward_and_backward(call, arguments):
    """Return the output and all gradients of the sum of its squares."""
    y = call()
    inputs = [x for x in arguments if x is not None and x.requires_grad]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), inputs)]


@pytest.mark.parametrize(('make', 'backend'), CALLS)
def test_a_captured_graph_repeats_the_eager_results(device, make, backend):
    call, arguments = make(device, backend)
    expected = forward_and_backward(call, arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # Triton compiles, and the allocator warms up, before the capture
        for _ in range(3):
            forward_and_backward(call, arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = forward_and_backward(call, arguments)
    for result in results:
        result.fill_(float('nan'))
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result, other)


@pytest.mark.parametrize(('make', 'backend'), CALLS)
def test_tensors_on_a_gpu_that_is_not_the_current_one(device, make, backend):
    if torch.cuda.device_count() < 2:
        pytest.skip('needs two GPUs')
    expected = forward_and_backward(*make(torch.device('cuda', 0), backend))
    torch.manual_seed(0)
    with torch.cuda.device(0):
        results = forward_and_backward(*make(torch.device('cuda', 1), backend))
    for result, other in zip(results, expected, strict=True):
        assert result.device.index == 1
        torch.testing.assert_close(result.cpu(), other.cpu())
