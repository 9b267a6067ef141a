"""Building blocks of attention and retention with a learnable band-pass, as differentiable operators of torch.

Their arithmetic, in :mod:`mmdefocus.ops.bandpass_tiles`, is that of complex numbers, for which torch.compile generates
no code; outside, it sees real tensors only.

Legend: B batch, H heads, G blocks, C tokens of a block, d channels of a head, P = d / 2 pairs.
"""

import torch
from torch import Tensor

from mmdefocus.ops import bandpass_tiles
from mmdefocus.ops.backends import refuse_second_derivatives


def bandpass_factors(decay: Tensor, freq: Tensor, reach: int) -> Tensor:
    """Factors exp(-λ |n| + i θ n) of the signed distances n = -reach … reach.

    Args:
        decay: λ ≥ 0 per token, infinity included, (H, P), float32 or float64.
        freq: θ in radians per token, (H, P).
        reach: the largest distance.

    Returns:
        Real and imaginary parts, (H, 2 reach + 1, P, 2); the factor of distance 0 is 1.
    """
    distance = torch.arange(-reach, reach + 1, device=decay.device, dtype=decay.dtype)[:, None]
    # The product would be NaN at distance 0 for an infinite decay.
    exponent = torch.where(distance == 0, 0.0, decay[:, None] * distance.abs())
    phase = freq[:, None] * distance
    return torch.exp(-exponent)[..., None] * torch.stack((phase.cos(), phase.sin()), dim=-1)


def bandpass_factors_backward(grad: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (H, P) of decay and freq by those of the factors (H, n, P, 2)."""
    reach = factors.shape[1] // 2
    distance = torch.arange(-reach, reach + 1, device=factors.device, dtype=factors.dtype)[:, None]
    along, across = (grad * factors).sum(-1), grad[..., 1] * factors[..., 0] - grad[..., 0] * factors[..., 1]
    return -(distance.abs() * along).sum(1), (distance * across).sum(1)


@torch.library.custom_op('mmdefocus::bandpass_turn', mutates_args=())
def turn(x: Tensor, factors: Tensor, first: int) -> Tensor:
    """Multiplies the channel pairs of tokens by the factors of the distances ``first``, ``first`` + 1, ….

    Args:
        x: (B, H, G, C, d), float32 or float64, contiguous.
        factors: (H, n, P, 2), see :func:`bandpass_factors`.
        first: distance of the first token of every block.

    Returns:
        (B, H, G, C, d).
    """
    return bandpass_tiles.turn(x, factors[:, None], first)


@torch.library.custom_op('mmdefocus::bandpass_turn_backward', mutates_args=())
def _turn_backward(grad: Tensor, x: Tensor, factors: Tensor, first: int) -> tuple[Tensor, Tensor]:
    grad_factors = torch.zeros_like(factors)
    grad_x = bandpass_tiles.turn_backward(grad.contiguous(), x, factors[:, None], grad_factors[:, None], first)
    return grad_x, grad_factors


@torch.library.custom_op('mmdefocus::bandpass_block_logits', mutates_args=())
def block_logits(q: Tensor, k: Tensor, factors: Tensor, causal: bool) -> Tensor:
    """Logits inside blocks of tokens.

    Args:
        q, k: (B, H, G, C, d), float32 or float64, contiguous.
        factors: (H, n, P, 2), n ≥ C, see :func:`bandpass_factors`.
        causal: leaves 0 where the key is later than the query.

    Returns:
        (B, H, G, C, C).
    """
    with torch.autocast(q.device.type, enabled=False):
        return bandpass_tiles.block_logits(q, k, factors, causal)


@torch.library.custom_op('mmdefocus::bandpass_block_logits_backward', mutates_args=())
def _block_logits_backward(
    grad: Tensor, q: Tensor, k: Tensor, factors: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad_factors = torch.zeros_like(factors)
    with torch.autocast(q.device.type, enabled=False):
        grad_q, grad_k = bandpass_tiles.block_logits_backward(grad, q, k, factors, grad_factors, causal)
    return grad_q, grad_k, grad_factors


@turn.register_fake
def _(x, factors, first):
    return torch.empty_like(x)


@_turn_backward.register_fake
def _(grad, x, factors, first):
    return torch.empty_like(x), torch.empty_like(factors)


@block_logits.register_fake
def _(q, k, factors, causal):
    return q.new_empty(*q.shape[:4], q.shape[3])


@_block_logits_backward.register_fake
def _(grad, q, k, factors, causal):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(factors)


def _save_turn(ctx, inputs, output):
    *tensors, ctx.first = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_turn(ctx, grad):
    return *_turn_backward(grad, *ctx.saved_tensors, ctx.first), None


def _save_block_logits(ctx, inputs, output):
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_block_logits(ctx, grad):
    return *_block_logits_backward(grad, *ctx.saved_tensors, ctx.causal), None


turn.register_autograd(_differentiate_turn, setup_context=_save_turn)
block_logits.register_autograd(_differentiate_block_logits, setup_context=_save_block_logits)
refuse_second_derivatives('bandpass_turn')
refuse_second_derivatives('bandpass_block_logits')
