"""Observation of attention while it is applied, whether fused or as a product of matrices.

Shapes: B images, H heads, L tokens, S keys, d channels of queries and keys, V channels of values.
"""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import AnalysisError

_PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)
_MHA_SIGNATURE = inspect.signature(F.multi_head_attention_forward)
_ROW_SUM_TOLERANCE = 1e-2  # rows of weights in bfloat16 sum to 1 ± 2^-8
# Largest difference between weights times values and the result of a fused attention, over the largest value.
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass
class Observation:
    """Attention that was applied while a layer ran.

    Attributes:
        images: B.
        tokens: L, the tokens that enter the layer.
        maps: Attention between all tokens, each (B, H, L, L), in the order in which it was applied.
        other_sizes: Rows and columns of weights that are not L × L.
    """

    images: int
    tokens: int
    maps: list[Tensor] = field(default_factory=list)
    other_sizes: set[tuple[int, int]] = field(default_factory=set)

    def add(self, weights: Tensor) -> None:
        """Add the weights (…, rows, columns) of one application; raise an AnalysisError if one is not finite."""
        rows, columns = weights.shape[-2:]
        batch = weights.shape[0] if weights.dim() > 2 else 1
        if (rows, columns) == (self.tokens, self.tokens) and batch % self.images == 0:
            if not weights.isfinite().all():
                raise AnalysisError('attention weights are not finite; check images and weights of the network')
            self.maps.append(weights.detach().reshape(self.images, -1, rows, columns))
        else:
            self.other_sizes.add((rows, columns))

    def reason(self) -> str:
        """Return why there is no map, as a clause."""
        if not self.other_sizes:
            return f'nothing in it multiplies values by a matrix of all {self.tokens} tokens (convolution, scan, …)'
        sizes = ' and '.join(
            f'within windows or groups of {rows} tokens' if rows == columns else f'from {rows} to {columns} tokens'
            for rows, columns in sorted(self.other_sizes)
        )
        return f'it attends {sizes}: there is no map of all {self.tokens} tokens'


class AttentionObserver(TorchFunctionMode):
    """While active, adds the attention that is applied to ``observation``; None observes nothing."""

    observation: Observation | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.observation is not None:
            if func is F.scaled_dot_product_attention:
                _observe_fused(self.observation, result, *args, **kwargs)
            elif func is F.multi_head_attention_forward:
                _observe_multi_head(self.observation, result, *args, **kwargs)
            elif func in _PRODUCTS:
                _observe_product(self.observation, *(*args, *kwargs.values())[:2])
        return result


def _observe_fused(
    observation: Observation,
    result: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    rows, columns = query.shape[-2], key.shape[-2]
    if not rows == columns == observation.tokens:
        observation.other_sizes.add((rows, columns))
        return
    exact = query.dtype if query.dtype == torch.float64 else torch.float32
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value))
    logits = query.to(exact) @ key.to(exact).mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    weights = logits.softmax(dim=-1)
    _check_reproduces(weights @ value.to(exact), result, value)
    observation.add(weights)


def _observe_multi_head(observation: Observation, result: tuple[Tensor, Any], *args: Any, **kwargs: Any) -> None:
    """Apply ``torch.nn.MultiheadAttention`` again, with its weights in the result."""
    call = _MHA_SIGNATURE.bind(*args, **kwargs)
    call.arguments |= {'need_weights': True, 'average_attn_weights': False}
    again, weights = F.multi_head_attention_forward(*call.args, **call.kwargs)
    assert weights is not None  # requested
    _check_reproduces(again, result[0], again)
    observation.add(weights)


def _observe_product(observation: Observation, left: Tensor, right: Tensor) -> None:
    """Add the factor of (…, L, L) · (…, L, V), or of (…, V, L) · (…, L, L), the same with all transposed."""
    if min(left.dim(), right.dim()) < 2:
        return
    leading = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    square = (observation.tokens, observation.tokens)
    for weights, other in ((left, right.shape[-1]), (right.mT, left.shape[-2])):
        # Queries times keys of L channels have the same shapes: then only weights that sum to 1 are attention.
        if (weights.shape[-2:] == square and other != observation.tokens) or _are_weights(weights):
            observation.add(weights.expand(*leading, *weights.shape[-2:]))
            return


def _are_weights(weights: Tensor) -> bool:
    return weights.dim() > 2 and bool(
        (weights >= 0).all() and ((weights.sum(dim=-1) - 1).abs() < _ROW_SUM_TOLERANCE).all()
    )


def _check_reproduces(product: Tensor, result: Tensor, value: Tensor) -> None:
    error, limit = (product - result).abs().max(), _TOLERANCES[result.dtype] * value.abs().max()
    if not error <= limit:
        raise AnalysisError(
            f'attention weights times values differ from the result of the fused attention by {error:.1e} (limit '
            f'{limit:.1e}): switch off dropout of attention weights, and check the weights for NaN'
        )
