"""Fixtures for the tests that need a GPU; run them by `make test-gpu`. They fail without a GPU."""

import pytest
import torch


@pytest.fixture
def device():
    return torch.device('cuda', torch.cuda.current_device())


@pytest.fixture
def cut():
    """Need no patch: each GPU has more multiprocessors than the cases have thread blocks, and so it uses segments."""
