"""Loops that define attention and retention with a learnable band-pass.

Legend: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

import torch
from torch import Tensor


def bandpass_attention_reference(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, causal: bool) -> Tensor:
    """Softmax over the band-passed logits of every query, one query after the other.

    Args:
        q, k: (B, H, L, d), float32 or float64; the scale is in ``q``.
        v: (B, H, L, V).
        decay, freq: (H, P).
        causal: whether a query sees no later key.

    Returns:
        (B, H, L, V).
    """
    outputs = []
    for t in range(q.shape[2]):
        seen = t + 1 if causal else q.shape[2]
        weights = _logits(q, k[:, :, :seen], decay, freq, t).softmax(-1)
        outputs.append(torch.einsum('bhs,bhsv->bhv', weights, v[:, :, :seen]))
    return torch.stack(outputs, dim=2)


def retention_reference(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum over the values of all keys up to every query, weighted by the band-passed logits.

    Args:
        q, k, v, decay, freq: as in :func:`bandpass_attention_reference`.
        initial_state: (B, H, V, d): what came before, see :func:`mmdefocus.ops.retention`; None for nothing.

    Returns:
        (B, H, L, V), and the state after the last token (B, H, V, d).
    """
    outputs = []
    for t in range(q.shape[2]):
        y = torch.einsum('bhs,bhsv->bhv', _logits(q, k[:, :, : t + 1], decay, freq, t), v[:, :, : t + 1])
        if initial_state is not None:
            # Row v of the state is a key, as seen from the token before the first one.
            y = y + _band_pass(q[:, :, t, None], initial_state, decay, freq, q.new_tensor([t + 1.0]))
        outputs.append(y)
    return torch.stack(outputs, dim=2), _last_state(k, v, decay, freq, initial_state)


def _logits(q: Tensor, k: Tensor, decay: Tensor, freq: Tensor, t: int) -> Tensor:
    """Logits of query t and the keys 0, 1, …, (B, H, S)."""
    return _band_pass(q[:, :, t, None], k, decay, freq, t - torch.arange(k.shape[2]).to(q))


def _band_pass(q: Tensor, k: Tensor, decay: Tensor, freq: Tensor, distance: Tensor) -> Tensor:
    """Re Σ_j q_j conj(k_j) exp(-λ_j |n| + i θ_j n) at distances n (S) of keys k (B, H, S, d) from q (B, H, 1, d)."""
    product = _complex(q) * _complex(k).conj()
    return (product * _factors(decay, freq, distance)).real.sum(-1)


def _last_state(k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, initial_state: Tensor | None) -> Tensor:
    age = torch.arange(k.shape[2] - 1, -1, -1).to(k)
    aged = torch.view_as_real(_complex(k) * _factors(decay, freq, -age)).flatten(-2)
    state = torch.einsum('bhsv,bhsd->bhvd', v, aged)
    if initial_state is not None:
        old = _complex(initial_state) * _factors(decay, freq, k.new_tensor([-k.shape[2]]))
        state = state + torch.view_as_real(old).flatten(-2)
    return state


def _factors(decay: Tensor, freq: Tensor, distance: Tensor) -> Tensor:
    """exp(-λ |n| + i θ n) for signed distances n (S), (H, S, P); 1 at distance 0 for an infinite λ, too."""
    distance = distance[:, None]
    exponent = torch.where(distance == 0, 0.0, decay[:, None] * distance.abs())
    return torch.complex(-exponent, freq[:, None] * distance).exp()


def _complex(x: Tensor) -> Tensor:
    return torch.complex(x[..., 0::2], x[..., 1::2])
