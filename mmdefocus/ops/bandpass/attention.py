"""Softmax attention with a learnable band-pass per channel pair.

Shapes: B batch, H heads, L tokens, d channels of a head, V channels of a value.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.backends import can_run_cpp, requested_backend
from mmdefocus.ops.validation import compute_dtype

from .arguments import check_arguments
from .fused import kernel_arguments
from .reference import bandpass_attention_reference
from .registration import attend, attend_triton
from .rotary import apply_rotary


def bandpass_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    freq: Tensor | None,
    causal: bool = True,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Compute attention whose logits pass a learnable band-pass (our reading of figure 2 of arXiv 2406.04342).

    With the channels 2j and 2j + 1 of a head as one complex number q_j::

        logit(t, s) = scale · Re sum over j of q_{t,j} conj(k_{s,j}) exp(-λ_j |t - s| + i θ_j (t - s))
        y_t = sum over s of softmax(logit(t, ·))_s v_s

    Memory grows linearly with L, in the backward pass, too. Half types compute in float32, whatever autocast says.

    Args:
        q, k: (B, H, L, d), d even; float16, bfloat16, float32 or float64.
        v: (B, H, L, V).
        decay: λ ≥ 0 per token, the width of the band-pass, (H, d / 2). Infinity sets all logits to 0 but that of a
            token with itself. None for λ = 0. On a CPU, a negative value raises an error; elsewhere, and in a compiled
            graph, it is not checked.
        freq: θ in radians per token, the centre of the band-pass, (H, d / 2). None for θ = 0.
        causal: Whether a token attends only to itself and earlier tokens.
        scale: 1 / sqrt(d) by default.
        backend: 'cpp' for the C++ kernels; 'reference' for the loop that defines the result; 'triton' for GPU kernels,
            whose matrix products run in the type of the tensors. None: the backend that ``MMDEFOCUS_BACKEND`` names, if
            it is one of these; else torch's own attention if ``decay`` is None, the C++ kernels on a CPU, or blocks of
            queries in plain PyTorch.

    Returns:
        (B, H, L, V), of the type of ``q``.

    Raises:
        TypeError: Complex, integer or mixed float64 and other types.
        ValueError: Mismatched shapes, an odd d, an empty sequence, no heads, a negative decay, tensors on different
            devices, an unknown backend.
        RuntimeError: The named backend does not have the operator, or cannot run here.
    """
    op = 'bandpass_attention'
    compute = compute_dtype(op, {'q': q, 'k': k, 'v': v, 'decay': decay, 'freq': freq})
    check_arguments(op, q, k, v, decay, freq)
    backend = requested_backend(backend, q.device, compute, implemented=('triton', 'cpp', 'reference'))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if backend == 'cpp' or (backend is None and decay is not None and can_run_cpp(q.device, compute) is None):
        (query, key, value), parameters = kernel_arguments(q, k, v, decay, freq, compute)
        return torch.ops.mmdefocus.fused_bandpass_attention(query, key, value, *parameters, causal, scale)[0].to(
            q.dtype
        )
    # Autocast would move the products back into half types; the meta device has no autocast to switch off.
    with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
        if backend is None and decay is None:
            if freq is not None:
                q, k = apply_rotary(torch.stack((q, k)).to(compute), freq).to(q.dtype).unbind()
            return F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=causal, scale=scale)
        query, key, value = (x.to(compute).contiguous() for x in (q, k, v))
        query = query * scale
        decay = query.new_zeros(q.shape[1], q.shape[3] // 2) if decay is None else decay.to(compute)
        if backend == 'reference':
            freq = torch.zeros_like(decay) if freq is None else freq.to(compute)
            return bandpass_attention_reference(query, key, value, decay, freq, causal).to(q.dtype)
        if backend == 'triton':
            query, key, self_logits, decay = _rotate(query, key, decay, freq)
            query, key, value = (x.to(q.dtype) for x in (query, key, value))
            return attend_triton(query, key, value, self_logits, decay, causal)[0]
        return attention_in_blocks(query, key, value, decay, freq, causal).to(q.dtype)


def attention_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor | None, causal: bool = True
) -> Tensor:
    """Compute :func:`bandpass_attention` in plain PyTorch, by blocks of queries.

    Args:
        q, k, v: Contiguous, float32 or float64; ``q`` includes the scale.
        decay, freq, causal: As there.
    """
    query, key, self_logits, decay = _rotate(q, k, decay, freq)
    return attend(query, key, v, self_logits, decay, causal, softmax=True)[0]


def _rotate(q: Tensor, k: Tensor, decay: Tensor, freq: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rotated q and k, the logits of tokens with themselves (B, H, L, 1), and the decay by channel (H, d)."""
    self_logits = (q * k).sum(-1, keepdim=True)
    q, k = apply_rotary(torch.stack((q, k)), freq).unbind()
    return q, k, self_logits, decay.repeat_interleave(2, dim=1)
