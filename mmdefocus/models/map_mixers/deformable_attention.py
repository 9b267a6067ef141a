"""Block type D of DAT and DAT++: attention to a few positions of the map that the queries themselves choose.

Shapes: B batch, C channels, h heads, d = C / h, g offset groups, H and W rows and columns of the map, Hk and Wk of the
keys, N = H * W queries, S = Hk * Wk keys.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..norms import DefocusLN2d
from .deformable_sampling import REFERENCE_POINTS, ReferencePoints, add_offsets, query_points, sample_features
from .position_bias import LogPositionBias, PositionBias, TablePositionBias

# Logits of a chunk of queries, B * h * S of each. A backward pass has several tensors of this size at a time. With
# float32 they have 64 MiB, which glibc maps and returns; freed tensors below 32 MiB fragment its heap instead, and the
# peak grows to several times their sum.
LOGITS_PER_CHUNK = 2**24


class DeformableAttentionMixer(nn.Module):
    """Deformable multi-head attention, (B, C, H, W) → (B, C, H, W) (arXiv 2201.00520, section 3; arXiv 2309.01430).

    ::

        q = proj_q(x)
        positions = reference points + offset(q)                           one set of S positions per group
        k, v = proj_k(x̃), proj_v(x̃),  x̃ = x at the positions
        y = proj_out(softmax(qᵀ k / √d + bias(query - position)) v)

    Queries are processed in chunks, and the backward pass recomputes each, so that no tensor of N × S elements is kept;
    the results do not depend on the size of the chunks.

    Args:
        channels: C.
        num_heads: h, divides C.
        num_groups: g, divides h. All groups share one offset network, of C / g channels.
        stride: Distance between reference points in pixels.
        kernel_size: Side of the kernel of the offset network.
        offset_range: Negative: positions are clamped to the map (DAT++). Else the largest offset, in units of the
            reference points (DAT: 2), and features outside the map are zero.
        reference_points: ``'Hk - 1'`` (DAT++) or ``'Hk'`` (DAT), see :func:`.deformable_sampling.key_points`.
        position_bias: ``'table'``, ``'log_cpb'`` (a small network) or None.
        map_size: Rows and columns of the nominal map, which give the size of the table; only for ``'table'``.

    Raises:
        ValueError: If ``num_heads`` or ``num_groups`` do not divide, or if an argument is outside its range.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        num_groups: int,
        stride: int,
        kernel_size: int,
        offset_range: float = -1.0,
        reference_points: ReferencePoints = 'Hk - 1',
        position_bias: Literal['table', 'log_cpb'] | None = 'table',
        map_size: int | None = None,
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'channels must be a multiple of num_heads ({num_heads}), got {channels}')
        if num_heads % num_groups:
            raise ValueError(f'num_heads must be a multiple of num_groups ({num_groups}), got {num_heads}')
        if reference_points not in REFERENCE_POINTS:
            raise ValueError(f'reference_points must be one of {list(REFERENCE_POINTS)}, got {reference_points!r}')
        self.num_heads = num_heads
        self.num_groups = num_groups
        self.offset_range = offset_range
        self.reference_points = reference_points
        width = channels // num_groups
        self.conv_offset = nn.Sequential(
            nn.Conv2d(width, width, kernel_size, stride, kernel_size // 2 * (kernel_size != stride), groups=width),
            DefocusLN2d(width),
            nn.GELU(),
            nn.Conv2d(width, 2, 1, bias=False),
        )
        self.proj_q, self.proj_k, self.proj_v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.rpe_table = _position_bias(position_bias, num_heads, num_groups, map_size)

    def reset_parameters(self) -> None:
        """Set PyTorch's initial values; offsets do not start from zero. The table starts near zero."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.LayerNorm | PositionBias):
                part.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of a map (B, C, H, W)."""
        q, k, v, queries, keys = self._project(x)
        size = max(LOGITS_PER_CHUNK // (q.shape[0] * q.shape[1] * k.shape[2]), 1)
        recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        attend = partial(recompute, self._attend) if torch.is_grad_enabled() else self._attend
        chunks = zip(q.split(size, 2), queries.split(size), strict=True)
        mixed = torch.cat([attend(some_q, some, k, v, keys) for some_q, some in chunks], 2)  # (B, h, N, d)
        return self.proj_out(mixed.transpose(2, 3).reshape(x.shape))

    def sample_positions(self, x: Tensor) -> Tensor:
        """Return the positions of the keys, (B, g, Hk, Wk, 2), y and x as in :mod:`.deformable_sampling`."""
        return self._positions(self.proj_q(x))

    def attention(self, x: Tensor) -> Tensor:
        """Return the attention weights, (B, h, N, S), of a map for which this tensor fits into memory."""
        q, k, _, queries, keys = self._project(x)
        logits = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        bias = self._bias(queries, keys)
        return (logits if bias is None else logits + bias).softmax(-1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return q (B, h, N, d), k and v (B, h, S, d), and the positions (N, 2) of queries and (B, g, S, 2) of keys."""
        q = self.proj_q(x)
        positions = self._positions(q)
        sampled = sample_features(x, positions)  # (B, C, Hk, Wk)
        queries = query_points(x.shape[2], x.shape[3], self.reference_points, positions)
        q, k, v = (self._heads(tensor) for tensor in (q, self.proj_k(sampled), self.proj_v(sampled)))
        return q, k, v, queries, positions.flatten(2, 3)

    def _positions(self, q: Tensor) -> Tensor:
        groups = q.unflatten(1, (self.num_groups, -1)).flatten(0, 1)  # (B * g, C / g, H, W)
        offsets = self.conv_offset(groups).unflatten(0, (len(q), self.num_groups))  # (B, g, 2, Hk, Wk)
        return add_offsets(offsets, self.offset_range, self.reference_points)

    def _heads(self, tensor: Tensor) -> Tensor:
        return tensor.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3).contiguous()  # (B, h, N or S, d)

    def _bias(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        return None if self.rpe_table is None else self.rpe_table(queries, keys)

    def _attend(self, q: Tensor, queries: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        bias = self._bias(queries, keys)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))


def _position_bias(kind: str | None, num_heads: int, num_groups: int, map_size: int | None) -> PositionBias | None:
    if kind not in ('table', 'log_cpb', None):
        raise ValueError(f"position_bias must be 'table', 'log_cpb' or None, got {kind!r}")
    if (kind == 'table') != (map_size is not None):
        raise ValueError(f"position_bias='table' needs map_size and the others do not; got {kind!r} and {map_size}")
    if map_size is not None:
        return TablePositionBias(num_heads, map_size)
    return LogPositionBias(num_heads // num_groups) if kind else None
