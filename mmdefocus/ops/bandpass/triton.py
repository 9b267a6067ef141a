"""Host functions of attention with a decay per channel in Triton: they compute intra-block logits, allocate and launch.

Logits between blocks never reach memory. Intra-block logits come from :mod:`mmdefocus.ops.bandpass.tiles`: the
recursion over halves has tiles that are too small for the matrix units.

Shapes: B batch, H heads, G blocks, M tokens of a block, L tokens, d channels of a head, V channels of a value.
"""

import torch
from torch import Tensor

from mmdefocus.ops.kernel_limits import ceil_div

from . import triton_kernels as kernels
from .arguments import TRITON_BLOCK
from .blocks import split_into_blocks
from .tiles import block_logits, block_logits_backward, decay_factors, decay_factors_backward


def forward(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the forward kernel; see ``mmdefocus::bandpass_attention_triton`` for arguments and results."""
    q, k, v, decay = (x.contiguous() for x in (q, k, v, decay))
    y, lse = torch.empty_like(v), q.new_empty(q.shape[:3], dtype=torch.float32)
    grid, sizes = _launch_sizes(q, v, causal)
    with torch.cuda.device_of(q), torch.autocast(q.device.type, enabled=False):
        factors = decay_factors(decay, TRITON_BLOCK // 2)
        intra_block = block_logits(_blocks(q), _blocks(k), _blocks(self_logits), factors, causal)
        kernels.forward[grid](q, k, v, decay, intra_block, y, lse, **sizes)
    return y, lse, intra_block


def backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    y: Tensor,
    lse: Tensor,
    intra_block: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Launch the backward kernels; return the gradients of q, k, v, self_logits and decay."""
    grad_output, q, k, v, decay, lse, intra_block = (
        x.contiguous() for x in (grad_output, q, k, v, decay, lse, intra_block)
    )
    length, channels = q.shape[2:]
    delta = (grad_output.float() * y.float()).sum(-1)  # (B, H, L)
    grad_q, grad_k, grad_v, grad_intra_block = (torch.empty_like(x) for x in (q, k, v, intra_block))
    # Of every block, from its queries and from its keys; torch.sum adds them up in a fixed order.
    grad_decay = q.new_empty(2, *intra_block.shape[:3], channels, dtype=torch.float32)
    grid, sizes = _launch_sizes(q, v, causal)
    with torch.cuda.device_of(q), torch.autocast(q.device.type, enabled=False):
        arguments = (grad_output, delta, q, k, v, decay, intra_block, lse)
        kernels.backward_queries[grid](*arguments, grad_q, grad_intra_block, grad_decay[0], **sizes)
        kernels.backward_keys[grid](*arguments, grad_k, grad_v, grad_decay[1], **sizes)
        factors = decay_factors(decay, TRITON_BLOCK // 2)
        grad_factors = torch.zeros_like(factors)
        more = block_logits_backward(grad_intra_block, _blocks(q), _blocks(k), factors, grad_factors, causal)
        more_q, more_k, grad_self = (x.flatten(2, 3)[:, :, :length] for x in more)
        grad_q += more_q
        grad_k += more_k
    rates = grad_decay.sum((0, 1, 3)) + decay_factors_backward(grad_factors, factors)
    return grad_q, grad_k, grad_v, grad_self.contiguous(), rates


def _launch_sizes(q: Tensor, v: Tensor, causal: bool) -> tuple[tuple[int], dict[str, int | bool]]:
    """Return the grid, and the sizes that all kernels take."""
    batch, heads, length, channels = q.shape
    values = v.shape[-1]
    sizes: dict[str, int | bool] = dict(heads=heads, length=length, CAUSAL=causal, D=channels, V=values, M=TRITON_BLOCK)
    # float32 tiles take twice the shared memory: prefetch one tile at most.
    sizes |= dict(num_stages=1 if q.dtype == torch.float32 else 2)
    # tl.dot needs at least 16 columns, and a power of 2.
    columns = {name: max(16, 1 << (size - 1).bit_length()) for name, size in (('COLS', channels), ('VALUES', values))}
    return (ceil_div(length, TRITON_BLOCK) * batch * heads,), sizes | columns


def _blocks(x: Tensor) -> Tensor:
    return split_into_blocks(x.float(), TRITON_BLOCK)
