"""Between the projections of the mixer, only inputs and outputs of the operators are as large as the activations."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmdefocus.models.mixers import MambaMixer

BATCH, LENGTH, INNER = 2, 70, 128


class LargeResults(TorchDispatchMode):
    """Counts the operators whose results have at least as many elements as the activations (B, L, E)."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        made = [x for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, torch.Tensor)]
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        # Views and in-place operators allocate nothing.
        made = [x for x in made if x.untyped_storage().data_ptr() not in given]
        if any(x.numel() >= BATCH * LENGTH * INNER for x in made):
            name = op._schema.name.split('::')[1]
            self.counts[name] = self.counts.get(name, 0) + 1
        return result


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_no_copies_of_activations(dtype):
    torch.manual_seed(0)
    mixer = MambaMixer(32, INNER, state_dims=16, conv_kernel=4, dt_rank=6, group_size=64).to(dtype)
    x = torch.randn(BATCH, LENGTH, 32, dtype=dtype, requires_grad=True)
    positions = torch.arange(float(LENGTH))
    with LargeResults() as forward:
        y = mixer(x, positions, 1.0)
    grad_output = torch.randn_like(y)
    with LargeResults() as backward:
        y.backward(grad_output)
    # u and gate of in_proj in one product, and the step sizes.
    assert forward.counts == {'bmm': 1, 'mm': 1, 'causal_conv1d': 1, 'defocus_scan': 1}
    # Gradients of y from out_proj, and of u from x_proj, which is added to the gradient from the scan.
    assert backward.counts == {'mm': 2, 'defocus_scan_backward': 1, 'add': 1, 'causal_conv1d_backward': 1}


class Conversions(TorchDispatchMode):
    """Lists source type, result type and shape of all conversions."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if op is torch.ops.aten._to_copy.default:
            self.found.append((args[0].dtype, result.dtype, tuple(result.shape)))
        return result


def test_autocast_converts_only_the_input_and_the_weights():
    """No conversion of activations (B, L, E), forward or backward."""
    mixer = MambaMixer(32, INNER, state_dims=16, conv_kernel=4, dt_rank=6, group_size=64)
    x = torch.randn(BATCH, LENGTH, 32, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16), Conversions() as forward:
        y = mixer(x, torch.arange(float(LENGTH)), 1.0)
    with Conversions() as backward:
        y.backward(torch.randn_like(y))
    tokens = (BATCH, LENGTH)
    assert [one for one in forward.found if one[2][:2] == tokens] == [(torch.float32, torch.bfloat16, (*tokens, 32))]
    assert [one for one in backward.found if one[2][:2] == tokens] == [(torch.bfloat16, torch.float32, (*tokens, 32))]
