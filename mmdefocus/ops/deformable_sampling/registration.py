"""Registration of deformable sampling with torch: argument checks, fake kernels, autograd and FLOP formulas.

The operator is ``mmdefocus::deformable_sampling``, which the extension declares.

Shapes: B batch, V positions of all maps, H heads, C channels of a head, Q queries, L maps, P samples per map.
"""

from typing import Any

import torch
from torch import Tensor

from mmdefocus.ops.backends import can_run_cpp, disallow_double_backward
from mmdefocus.ops.flops import register_formula
from mmdefocus.ops.validation import check_rank, check_shape, check_types


def check_shapes(op: str, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> None:
    """Raise ValueError unless the shapes fit each other, and TypeError unless ``shapes`` is int64."""
    check_rank(op, 'value', value, '(batch, positions, heads, channels)')
    check_rank(op, 'weights', weights, '(batch, queries, heads, maps, points)')
    check_types(op, {'shapes': shapes}, torch.int64)
    batch, _, heads, _ = value.shape
    _, queries, _, maps, points = weights.shape
    check_shape(op, 'shapes', shapes, (maps, 2), '(maps, 2)')
    samples = (batch, queries, heads, maps, points)
    check_shape(op, 'weights', weights, samples, '(batch, queries, heads, maps, points)')
    check_shape(op, 'locations', locations, (*samples, 2), '(batch, queries, heads, maps, points, 2)')


def _fake(value, shapes, locations, weights):
    return value.new_empty(value.shape[0], weights.shape[1], *value.shape[2:])


def _fake_backward(grad, value, shapes, locations, weights):
    return tuple(x.new_empty(x.shape) for x in (value, locations, weights))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    gradients = torch.ops.mmdefocus.deformable_sampling_backward(grad, *ctx.saved_tensors)
    return gradients[0], None, gradients[1], gradients[2]


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::deformable_sampling', _fake)
    torch.library.register_fake('mmdefocus::deformable_sampling_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::deformable_sampling', _backward, setup_context=_save)
    disallow_double_backward('deformable_sampling')


def deformable_sampling_flops(*_: Any, **__: Any) -> int:
    """Return 0, as torch counts its own sampling."""
    return 0


for _op in ('deformable_sampling', 'deformable_sampling_backward'):
    register_formula(_op, deformable_sampling_flops)
