"""Retention and band-pass attention by the kernels of flash-linear-attention, an alternative for comparison.

Its gated linear attention and its attention with a gate per channel compute the same as ours, from rotated queries and
keys and a gate that is -λ at every token.

Shapes: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

import importlib
from collections.abc import Callable

from torch import Tensor

from mmdefocus.ops.bandpass.rotary import apply_rotary


def retention_by_fla(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor) -> Tensor:
    """Compute retention by ``fla.ops.gla.chunk_gla``."""
    chunk_gla = _kernel('gla', 'chunk_gla', q)
    return chunk_gla(*_gated(q, k, v, decay, freq))[0].transpose(1, 2)


def attention_by_fla(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor) -> Tensor:
    """Compute causal band-pass attention by ``fla.ops.wall_attn.parallel_wall_attn``."""
    parallel_wall_attn = _kernel('wall_attn', 'parallel_wall_attn', q)
    return parallel_wall_attn(*_gated(q, k, v, decay, freq)).transpose(1, 2)


def _gated(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor) -> tuple[Tensor, ...]:
    """Rotate queries and keys, and bring all to (B, L, H, ·), the order of flash-linear-attention."""
    q, k, v = (x.transpose(1, 2) for x in (*(apply_rotary(x.float(), freq).to(x.dtype) for x in (q, k)), v))
    gate = -decay.float().repeat_interleave(2, dim=1)  # (H, d)
    return q.contiguous(), k.contiguous(), v.contiguous(), gate.expand(q.shape).contiguous()


def _kernel(package: str, name: str, q: Tensor) -> Callable:
    """Import a function of flash-linear-attention.

    Raises:
        RuntimeError: It cannot run here; the message says why.
    """
    if q.device.type != 'cuda':
        raise RuntimeError(f"backend 'fla' cannot run: its kernels run on CUDA tensors, got tensors on {q.device}")
    try:
        return getattr(importlib.import_module(f'fla.ops.{package}'), name)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"backend 'fla' cannot run: fla.ops.{package}.{name} cannot be imported ({error}); "
            '"pip install flash-linear-attention" installs it'
        ) from error
