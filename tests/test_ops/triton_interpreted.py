"""The Triton kernels in Triton's interpreter; `test_triton.py` runs this file where TRITON_INTERPRET is set."""

import pytest
import torch
from triton_cases import BandpassAttentionCases


@pytest.fixture
def device():
    return torch.device('cpu')


class TestBandpassAttention(BandpassAttentionCases):
    pass
