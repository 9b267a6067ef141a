"""Tests on a GPU: `make test-gpu`. They need torch, pytest and this repository, and fail where there is no GPU."""

import pytest
import torch


@pytest.fixture
def device():
    return torch.device('cuda', torch.cuda.current_device())


@pytest.fixture
def cut():
    """Long sequences of few channels are cut on every GPU: it has more multiprocessors than they have thread blocks."""
