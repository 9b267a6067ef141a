"""Tests of the Triton kernels of the scan; `test_defocus_scan_cuda.py` tests them at the sizes of networks."""

import pytest
import torch
from cuda_cases import ScanCases, SegmentCases, make_scan_arguments, put
from test_defocus_scan import NAMES, OPTIONS

from mmdefocus.ops import backends, defocus_scan

pytestmark = pytest.mark.gpu


class TestScan(ScanCases):
    backend = 'triton'


class TestSegments(SegmentCases):
    backend = 'triton'


@pytest.fixture
def without_cuda(monkeypatch):
    """Simulate an extension that was built without CUDA."""
    monkeypatch.setattr(backends, '_BUILT_WITH_CUDA', False)


def test_triton_is_chosen_without_cuda_kernels(device, without_cuda):
    arguments = put(make_scan_arguments(), device)
    assert torch.equal(defocus_scan(**arguments, **OPTIONS), defocus_scan(**arguments, **OPTIONS, backend='triton'))


def test_compiles_without_graph_break(device, without_cuda):
    arguments = put(make_scan_arguments(), device)

    def function(arguments):
        return defocus_scan(**arguments, **OPTIONS)

    y = torch.compile(function, fullgraph=True, backend='aot_eager')(arguments)
    inputs = [arguments[name] for name in NAMES]
    expected = torch.autograd.grad(function(arguments).square().sum(), inputs)
    for gradient, other in zip(torch.autograd.grad(y.square().sum(), inputs), expected, strict=True):
        torch.testing.assert_close(gradient, other)
