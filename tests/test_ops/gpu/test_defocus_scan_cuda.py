"""Tests of the CUDA kernels of the scan, and of CUDA and Triton kernels at the sizes of networks."""

import pytest
import torch
from cuda_cases import ScanCases, SegmentCases, make_scan_arguments, put, run_scan
from test_defocus_scan import ACTIVATIONS, NAMES, OPTIONS
from tolerances import FORWARD, HALF, assert_close, looser

from mmdefocus.ops import available_backends, defocus_scan

pytestmark = pytest.mark.gpu
POSITIONAL = ('u', 'dt', 'A', 'B', 'C', 'D', 'z', 'dt_bias', 'freq', 'positions', 'initial_state')
PUBLISHED = [(64, 197), (16, 577), (2, 4705)]  # batch, length; with 1536 channels
KERNELS = ('cuda', 'triton')


class TestScan(ScanCases):
    pass


class TestSegments(SegmentCases):
    pass


def make_on(device, batch, length, channels=1536, dtype=torch.bfloat16):
    """Make arguments scaled as in a network: steps from 0.001 to 0.1, decay rates from 1 to 16."""
    arguments = put(make_scan_arguments(batch, channels, length), device)
    with torch.no_grad():
        arguments['A'].copy_(-torch.arange(1.0, 17.0, device=device).expand(channels, -1))
        arguments['dt_bias'].sub_(4)
        arguments['positions'].copy_(torch.arange(length, device=device))
    for name in ACTIVATIONS:
        arguments[name] = arguments[name].detach().to(dtype).requires_grad_()
    return arguments


def test_cuda_is_chosen_for_cuda_tensors(device):
    assert available_backends()['cuda'] is None
    arguments = put(make_scan_arguments(), device)
    assert torch.equal(defocus_scan(**arguments, **OPTIONS), defocus_scan(**arguments, **OPTIONS, backend='cuda'))


def test_unsupported_arguments_select_the_next_backend(device):
    for group_size, backend in ((65, 'triton'), (129, 'reference')):
        wide = put(make_scan_arguments(channels=group_size, length=3), device)
        expected = defocus_scan(**wide, group_size=group_size, backend=backend)
        assert torch.equal(defocus_scan(**wide, group_size=group_size), expected)
    exact = put(make_scan_arguments(length=3, dtype=torch.float64), device)
    assert defocus_scan(**exact, **OPTIONS).dtype == torch.float64


@pytest.mark.parametrize('backend', KERNELS)
@pytest.mark.parametrize(('batch', 'length'), PUBLISHED)
def test_published_shapes_equal_the_reference(device, backend, batch, length):
    """Compare one group of one sequence: except for the gradients of B, C and parameters, groups are independent."""
    group = slice(640, 704)
    index = {name: (slice(-1, None), slice(None), group) for name in ('u', 'dt', 'z', 'y')}
    index |= dict.fromkeys(('B', 'C'), slice(-1, None)) | dict.fromkeys(('A', 'D', 'dt_bias'), group)
    index |= dict.fromkeys(('initial_state', 'last_state'), (slice(-1, None), group))
    arguments = make_on(device, batch, length)
    results = run_scan(arguments, backend, group_size=64)

    part = {name: value.detach()[index.get(name, ...)].float() for name, value in arguments.items()}
    inputs = [part[name].requires_grad_() for name in ('u', 'dt', 'z', 'initial_state')]
    y, state = defocus_scan(**part, delta_scale=2.0, return_last_state=True, backend='reference')
    generator = torch.Generator().manual_seed(1)
    grad_outputs = [
        torch.randn(results[name].shape, generator=generator).to(results[name]) for name in ('y', 'last_state')
    ]
    grad_outputs = [x[index[name]].float() for name, x in zip(('y', 'last_state'), grad_outputs, strict=True)]
    gradients = torch.autograd.grad([y, state], inputs, grad_outputs)
    long = looser(FORWARD[torch.float32], 'thousands of tokens')
    for name, expected, tolerance in (('y', y, HALF[torch.bfloat16]), ('last_state', state, long)):
        assert_close(results[name][index[name]].float(), expected, tolerance, name)
    for name, expected in zip(('u', 'dt', 'z', 'initial_state'), gradients, strict=True):
        actual = results[f'gradient of {name}'][index[name]].float()
        assert_close(actual, expected, HALF[torch.bfloat16], f'gradient of {name}')


@pytest.mark.parametrize('backend', KERNELS)
@pytest.mark.parametrize(('batch', 'length'), PUBLISHED)
def test_results_are_deterministic(device, backend, batch, length):
    arguments = make_on(device, batch, length)
    expected = run_scan(arguments, backend, group_size=64)
    for name, result in run_scan(arguments, backend, group_size=64).items():
        assert torch.equal(result, expected[name]), name


@pytest.mark.parametrize('backend', KERNELS)
def test_memory_does_not_grow_with_the_state(device, backend):
    """The forward pass allocates y and 4 bytes of states per element of u, but no tensor of B E N L elements.

    The CUDA kernels also save the normed y.
    """
    arguments = make_on(device, 16, 577)
    numbers = arguments['u'].numel()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    y = defocus_scan(**arguments, backend=backend)
    assert torch.cuda.max_memory_allocated() - before < {'cuda': 9, 'triton': 7}[backend] * numbers
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(y.sum(), [arguments[name] for name in NAMES])
    assert torch.cuda.max_memory_allocated() - before < 14 * numbers


@pytest.mark.parametrize('backend', KERNELS)
def test_offsets_beyond_32_bits(device, backend):
    """The end of a sequence of more than 2³¹ elements equals the result of a separate call for that end."""
    length, channels, end = 1_400_032, 1536, 64
    if torch.cuda.get_device_properties(device).total_memory < 60e9:
        pytest.skip('needs a GPU with 60 GB')
    names = ('u', 'dt', 'z')
    arguments = {name: torch.randn(1, length, channels, device=device, dtype=torch.bfloat16) for name in names}
    rest = {name: value.detach() for name, value in make_on(device, 1, 16).items() if name not in names}
    rest |= {name: torch.randn(1, length, 16, device=device, dtype=torch.bfloat16) for name in ('B', 'C')}
    rest |= {'freq': None, 'positions': None}
    with torch.no_grad():
        y, state = defocus_scan(**arguments, **rest, return_last_state=True, backend=backend)

        def part(begin, finish, initial_state):
            segment = {name: value[:, begin:finish] for name, value in (arguments | {n: rest[n] for n in 'BC'}).items()}
            changed = {**rest, **segment, 'initial_state': initial_state}
            return defocus_scan(**changed, return_last_state=True, backend=backend)

        _, before = part(0, length - end, rest['initial_state'])
        expected, expected_state = part(length - end, length, before)
    assert_close(y[:, -end:].float(), expected.float(), HALF[torch.bfloat16], 'y')
    assert_close(state, expected_state, looser(FORWARD[torch.float32], 'thousands of tokens'), 'last_state')


@pytest.mark.parametrize('backend', KERNELS)
def test_kernels_run_on_the_current_stream(device, backend):
    arguments = make_on(device, 2, 577)
    expected = defocus_scan(**arguments, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = defocus_scan(**arguments, backend=backend)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(y, expected)


def test_autocast_does_not_change_the_result(device):
    arguments = put(make_scan_arguments(), device)
    expected = defocus_scan(**arguments, **OPTIONS, backend='cuda')
    with torch.autocast('cuda', torch.bfloat16):
        assert torch.equal(defocus_scan(**arguments, **OPTIONS, backend='cuda'), expected)


def test_opcheck(device):
    arguments = put(make_scan_arguments(), device)
    values = (*(arguments[name] for name in POSITIONAL), 2.0, 8, 1e-6)
    torch.library.opcheck(torch.ops.mmdefocus.defocus_scan.default, values)


def test_compiles_without_graph_break(device):
    arguments = put(make_scan_arguments(), device)

    def function(arguments):
        return defocus_scan(**arguments, **OPTIONS)

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    y, expected = compiled(arguments), function(arguments)
    assert torch.equal(y, expected)
    inputs = [arguments[name] for name in NAMES]
    actual = torch.autograd.grad(y.square().sum(), inputs)
    for gradient, other in zip(actual, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, other)


def test_equals_mamba_ssm(device):
    """The fused kernel equals the recurrence by mamba-ssm with the other steps by torch operators."""
    interface = pytest.importorskip('mamba_ssm.ops.selective_scan_interface', exc_type=ImportError)
    from mmdefocus.ops.defocus_scan.reference import defocus_scan_reference

    def scan(u, delta, A, B, C, initial_state):
        return interface.selective_scan_fn(u, delta, A, B, C, return_last_state=True)

    arguments = {**put(make_scan_arguments(channels=128, length=197), device), 'initial_state': None}
    results = run_scan(arguments, 'cuda', group_size=64)
    values = [arguments[name] for name in POSITIONAL]
    y, state = defocus_scan_reference(*values, 2.0, 64, 1e-6, scan)
    tolerance = looser(FORWARD[torch.float32], 'hundreds of tokens')
    assert_close(results['y'], y, tolerance, 'y')
    assert_close(results['last_state'], state, tolerance, 'last_state')
