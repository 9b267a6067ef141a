"""Tests of the Triton kernels of neighbourhood attention in Triton's interpreter; `test_triton.py` runs this file."""

import pytest
import torch
from triton_neighbourhood_cases import NeighbourhoodAttentionCases


@pytest.fixture
def device():
    return torch.device('cpu')


class TestNeighbourhoodAttention(NeighbourhoodAttentionCases):
    pass
