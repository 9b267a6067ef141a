"""Property test: the fused scan equals the reference for random shapes, options and memory orders."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_defocus_scan import COMPILED, NAMES, assert_same, make


@st.composite
def calls(draw):
    group_size = draw(st.integers(1, 70))
    arguments = make(
        batch=draw(st.integers(1, 3)),
        channels=group_size * draw(st.integers(1, 4)),
        length=draw(st.integers(1, 80)),
        state=2 * draw(st.integers(1, 9)),
        dtype=torch.float64,
    )
    for name in draw(st.sets(st.sampled_from(NAMES))):
        value = arguments[name].detach()
        arguments[name] = value.transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
    for name in draw(st.sets(st.sampled_from(('freq', 'positions', 'initial_state')))):
        arguments[name] = None
    # Norms of few channels cancel nearly all of their gradient; a large eps keeps enough of it to compare.
    options = {'group_size': group_size, 'delta_scale': draw(st.floats(0.3, 5.0)), 'eps': draw(st.floats(0.01, 1.0))}
    return arguments, options


@pytest.mark.parametrize('backend', COMPILED)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(call=calls())
def test_equals_reference_for_random_calls(backend, call):
    arguments, options = call
    assert_same(arguments, backend, **options)
