"""How many FLOPs the operators take. Importing :mod:`mmdefocus.ops` tells torch's ``FlopCounterMode``.

Every multiplication, addition and exponential is one FLOP, so a multiply-add is two, as in torch's counts of matrix
products; counters that take a multiply-add as one get half. A sum of k terms is k additions. What is counted is the
recurrence as :mod:`mmdefocus.ops.reference` has it, whatever a backend computes twice. What acts on one element at a
time around it (bias, softplus, rotation, norm, gate) is left out, as torch does for all networks; so a fused operator
counts as much as the chain that it replaces.

Legend: B batch, E channels, L time, N state, K kernel width; in attention also H heads of d channels, V channels of a
value, G blocks of C tokens.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

# Load the operators, which the formulas below are registered for: a counter knows those that there are when it is made.
import mmdefocus.ops.backends
import mmdefocus.ops.bandpass
import mmdefocus.ops.bandpass_attention
import mmdefocus.ops.causal_conv1d
import mmdefocus.ops.defocus_scan  # noqa: F401

Shape = Sequence[int]


def selective_scan_flops(u: Shape, delta: Shape, A: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of a scan, B E L (7 N + 1).

    For each step and channel one for delta u; for each state besides two for exp(delta A), three for
    h_t = exp(delta A) h_{t-1} + (delta u) B and two for its part of y_t = sum over n of C h_t.

    Args:
        u: shape of the input: B, E and L in any order.
        delta: as ``u``.
        A: (E, N).
    """
    return prod(u) * (7 * A[1] + 1)


def selective_scan_backward_flops(grad_y: Shape, grad_last_state: Any, u: Shape, delta: Shape, A: Shape, *_, **__):
    """FLOPs of the gradients of a scan, B E L (15 N + 3), without the second computation of its states.

    For each state four for the gradients of h and C by y, two for those of h_{t-1} and exp(delta A), four for those of
    delta u and B, five for those of delta and A; for each step and channel three for delta and u by delta u.

    Args:
        grad_y, grad_last_state: not counted.
        u, delta, A: see :func:`selective_scan_flops`.
    """
    return prod(u) * (15 * A[1] + 3)


def causal_conv1d_flops(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of a depthwise convolution, 2 B E L K.

    Args:
        x: (B, E, L).
        weight: (E, K).
    """
    return 2 * prod(x) * weight[1]


def causal_conv1d_backward_flops(grad_y: Shape, x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of its gradients by ``x`` and ``weight``, 4 B E L K; arguments as for :func:`causal_conv1d_flops`."""
    return 4 * prod(x) * weight[1]


def bandpass_attention_flops(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of attention as torch counts its own, causal or not: 2 B H L² (d + V).

    Args:
        q, k: (B, H, L, d).
        v: (B, H, L, V).
    """
    return sdpa_flop_count(q, k, v)


def bandpass_attention_backward_flops(grad: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of its gradients as torch counts those of its own attention; arguments as in the forward pass."""
    return sdpa_backward_flop_count(grad, q, k, v)


def bandpass_block_logits_flops(q: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of the logits inside blocks, causal or not: 2 B H G C² d.

    Args:
        q: (B, H, G, C, d).
    """
    return 2 * prod(q) * q[3]


def bandpass_block_logits_backward_flops(grad: Shape, q: Shape, *_: Any, **__: Any) -> int:
    """FLOPs of its two gradients; arguments as in the forward pass."""
    return 2 * bandpass_block_logits_flops(q)


def bandpass_turn_flops(*_: Any, **__: Any) -> int:
    """0: a rotation acts on one element at a time."""
    return 0


# Name of an operator → its FLOPs, given its arguments with shapes in the place of tensors.
FLOP_FORMULAS: dict[str, Callable[..., int]] = {
    'selective_scan': selective_scan_flops,
    'selective_scan_backward': selective_scan_backward_flops,
    'defocus_scan': selective_scan_flops,
    'defocus_scan_backward': selective_scan_backward_flops,
    'defocus_scan_triton': selective_scan_flops,
    'defocus_scan_triton_backward': selective_scan_backward_flops,
    'causal_conv1d': causal_conv1d_flops,
    'causal_conv1d_backward': causal_conv1d_backward_flops,
    'causal_conv1d_triton': causal_conv1d_flops,
    'causal_conv1d_triton_backward': causal_conv1d_backward_flops,
    'bandpass_attention': bandpass_attention_flops,
    'bandpass_attention_backward': bandpass_attention_backward_flops,
    'bandpass_attention_triton': bandpass_attention_flops,
    'bandpass_attention_triton_backward': bandpass_attention_backward_flops,
    'bandpass_block_logits': bandpass_block_logits_flops,
    'bandpass_block_logits_backward': bandpass_block_logits_backward_flops,
    'bandpass_turn': bandpass_turn_flops,
    'bandpass_turn_backward': bandpass_turn_flops,
}


for _name, _formula in FLOP_FORMULAS.items():
    if hasattr(torch.ops.mmdefocus, _name):
        register_flop_formula(getattr(torch.ops.mmdefocus, _name))(_formula)
