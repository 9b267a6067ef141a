"""Toy networks and golden data."""

from pathlib import Path

import pytest
import torch

from mmdefocus.models import DefocusMamba
from mmdefocus.models.checkpoint import read_checkpoint

GOLDEN = Path(__file__).parents[1] / 'golden'


@pytest.fixture
def toy_arch():
    """A complete arch dict of a network that runs in milliseconds."""
    return {
        'embed_dims': 16,
        'num_layers': 2,
        'inner_dims': 32,
        'state_dims': 4,
        'conv_kernel': 4,
        'dt_rank': 2,
        'group_size': 16,
    }


@pytest.fixture
def golden():
    """Loader of a golden case: name to (expected, official state dict)."""

    def load(name):
        expected = torch.load(GOLDEN / f'{name}_expected.pt', weights_only=True)
        kind, entry = ('cls', 'model') if name.startswith('cls') else ('det', 'state_dict')
        return expected, read_checkpoint(GOLDEN / f'{name}_official_{kind}.pth')[entry]

    return load


@pytest.fixture
def build(toy_arch):
    """Builder of the toy backbone, with the same values each time."""

    def make(**changes):
        torch.manual_seed(0)
        return DefocusMamba(toy_arch, **changes)

    return make
