"""Tests of the Triton kernels of band-pass attention in Triton's interpreter; `test_triton.py` runs this file."""

import pytest
import torch
from triton_cases import BandpassAttentionCases


@pytest.fixture
def device():
    return torch.device('cpu')


class TestBandpassAttention(BandpassAttentionCases):
    pass
