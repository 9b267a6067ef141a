"""What a sink does: nothing (silent), or send one vector to all tokens (broadcasting).

Shapes: B images, K heads, L tokens, d channels of a value.

Source: A Unifying View of Attention Sinks (arXiv 2606.08105). A silent sink ("no operation" there) has a value of
negligible norm, so that a head that attends to it adds nothing; a broadcasting sink has a value of usual norm, and
dominates the head's output, which is then of low rank. The limits are those of the paper's published code. It measures
the norms after the output projection; we measure them in the space of the head, since norm and gate follow in Mamba and
retention.
"""

import torch
from torch import Tensor

from .senders import SINK_THRESHOLD

SILENT_VALUE, BROADCASTING_VALUE, BROADCASTING_RANK = 0.2, 0.5, 1.5


def sink_value_norm(norms: Tensor, position: Tensor) -> Tensor:
    """Return the norm of the sink's value relative to the mean norm of the other values, (B, K).

    Args:
        norms: Norms of the values (B, K, L).
        position: Position of the sink (B, K).
    """
    at_sink = norms.gather(-1, position[..., None])[..., 0]
    return at_sink * (norms.shape[-1] - 1) / (norms.sum(-1) - at_sink)


def stable_rank(gram: Tensor) -> Tensor:
    """Return the stable rank ‖Y‖²_F / σ₁(Y)² of head outputs, (B, K).

    Args:
        gram: Yᵀ Y for the outputs Y = A v of all tokens, (B, K, d, d).
    """
    # In float64: the eigenvalues are squares.
    eigenvalues = torch.linalg.eigvalsh(gram.double())
    return (eigenvalues.sum(-1) / eigenvalues[..., -1]).to(gram.dtype)


def sink_kinds(strength: Tensor, value_norm: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether heads have a silent and a broadcasting sink, as 0 or 1, both (B, K)."""
    sink = strength > SINK_THRESHOLD
    silent = sink & (value_norm <= SILENT_VALUE)
    broadcasting = sink & (value_norm >= BROADCASTING_VALUE) & (rank <= BROADCASTING_RANK)
    return silent.to(strength.dtype), broadcasting.to(strength.dtype)
