"""Specification of attention and retention with a learnable band-pass: loops over queries, in complex numbers.

Shapes: B batch, H heads, L tokens, S keys, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

import torch
from torch import Tensor


def bandpass_attention_reference(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, causal: bool) -> Tensor:
    """Compute :func:`mmdefocus.ops.bandpass_attention`, one query after the other.

    Args:
        q, k: (B, H, L, d), float32 or float64; ``q`` includes the scale.
        v: (B, H, L, V).
        decay, freq: (H, P).
        causal: Whether a query attends only to itself and earlier keys.

    Returns:
        (B, H, L, V).
    """
    outputs = []
    for t in range(q.shape[2]):
        keys = t + 1 if causal else q.shape[2]
        weights = _logits(q, k[:, :, :keys], decay, freq, t).softmax(-1)
        outputs.append(torch.einsum('bhs,bhsv->bhv', weights, v[:, :, :keys]))
    return torch.stack(outputs, dim=2)


def retention_reference(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmdefocus.ops.retention`, one query after the other.

    Args:
        q, k, v, decay, freq: As in :func:`bandpass_attention_reference`.
        initial_state: (B, H, V, d), see :func:`mmdefocus.ops.retention`; None for zero.

    Returns:
        (B, H, L, V), and the final state (B, H, V, d).
    """
    outputs = []
    for t in range(q.shape[2]):
        y = torch.einsum('bhs,bhsv->bhv', _logits(q, k[:, :, : t + 1], decay, freq, t), v[:, :, : t + 1])
        if initial_state is not None:
            # Row v of the state acts as a key at position -1.
            y = y + _bandpass(q[:, :, t, None], initial_state, decay, freq, q.new_tensor([t + 1.0]))
        outputs.append(y)
    return torch.stack(outputs, dim=2), _final_state(k, v, decay, freq, initial_state)


def _logits(q: Tensor, k: Tensor, decay: Tensor, freq: Tensor, t: int) -> Tensor:
    """Return the logits of query t with the keys 0, 1, …, (B, H, S)."""
    return _bandpass(q[:, :, t, None], k, decay, freq, t - torch.arange(k.shape[2]).to(q))


def _bandpass(q: Tensor, k: Tensor, decay: Tensor, freq: Tensor, distance: Tensor) -> Tensor:
    """Return Re Σ_j q_j conj(k_j) exp(-λ_j |n| + i θ_j n) for distances n (S), k (B, H, S, d), q (B, H, 1, d)."""
    product = _complex(q) * _complex(k).conj()
    return (product * _factors(decay, freq, distance)).real.sum(-1)


def _final_state(k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, initial_state: Tensor | None) -> Tensor:
    distance = torch.arange(k.shape[2] - 1, -1, -1).to(k)
    decayed = torch.view_as_real(_complex(k) * _factors(decay, freq, -distance)).flatten(-2)
    state = torch.einsum('bhsv,bhsd->bhvd', v, decayed)
    if initial_state is not None:
        initial = _complex(initial_state) * _factors(decay, freq, k.new_tensor([-k.shape[2]]))
        state = state + torch.view_as_real(initial).flatten(-2)
    return state


def _factors(decay: Tensor, freq: Tensor, distance: Tensor) -> Tensor:
    """Return exp(-λ |n| + i θ n) for signed distances n (S), (H, S, P); 1 at distance 0 even for an infinite λ."""
    distance = distance[:, None]
    exponent = torch.where(distance == 0, 0.0, decay[:, None] * distance.abs())
    return torch.complex(-exponent, freq[:, None] * distance).exp()


def _complex(x: Tensor) -> Tensor:
    return torch.complex(x[..., 0::2], x[..., 1::2])
