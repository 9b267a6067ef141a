"""Retention with a learnable band-pass per channel pair: gated linear attention with a constant gate per channel.

Queries, keys and states are rotated once; after that, a decay per channel of the keys is all that is left.

Shapes: B batch, G chunks, H heads, C tokens of a chunk, L tokens, d channels of a head, V channels of a value.
"""

from contextlib import nullcontext
from typing import Literal, overload

import torch
from torch import Tensor

from mmdefocus.ops.backends import can_run_cpp, requested_backend
from mmdefocus.ops.validation import check_shape, compute_dtype

from .arguments import check_arguments
from .blocks import split_into_blocks
from .fused import CHUNK, kernel_arguments
from .reference import retention_reference
from .registration import attend
from .rotary import apply_rotary
from .tiles import decay_factors, scale_by_distance


def _in_chunks(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, state: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Compute linear attention within chunks of ``size`` tokens, and pass a state from chunk to chunk."""
    length = q.shape[2]
    tokens = (split_into_blocks(x, size).transpose(1, 2).contiguous() for x in (q, k, v, self_logits))
    query, key, value, own = tokens  # (B, G, H, C, ·)
    folded = (x.flatten(0, 1) for x in (query, key, value, own))
    intra_chunk = attend(*folded, decay, causal=True, softmax=False)[0].view_as(value)
    factors = decay_factors(decay, size)
    # Contribution of each chunk but the last one to the state after it.
    local_states = value[:, :-1].mT @ scale_by_distance(key[:, :-1], factors, 1 - size)  # (B, G - 1, H, V, d)
    states = _pass_states(torch.cat((state[:, None], local_states), 1), decay * size)  # before each chunk
    y = intra_chunk + scale_by_distance(query, factors, 1) @ states.mT
    last = (length - 1) % size + 1  # tokens of the last chunk
    last_state = v[:, :, -last:].mT @ scale_by_distance(k[:, :, -last:], factors, 1 - last)
    return y.transpose(1, 2).flatten(2, 3)[:, :, :length], _decay_state(states[:, -1], factors, last) + last_state


def _pass_states(states: Tensor, decay: Tensor) -> Tensor:
    """Compute S_g = exp(-decay) S_{g-1} + states_g for all chunks g of (B, G, H, V, d), in log2(G) steps."""
    step = 1
    while step < states.shape[1]:
        earlier = states[:, :-step] * torch.exp(-step * decay)[:, None]
        states = torch.cat((states[:, :step], states[:, step:] + earlier), 1)
        step *= 2
    return states


def _token_by_token(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    factors = decay_factors(decay, 1)
    outputs = []
    tokens = zip(*(x.unbind(2) for x in (q, k, v, self_logits)), strict=True)
    for query, key, value, self_logit in tokens:
        state = _decay_state(state, factors, 1)
        outputs.append((state @ query[..., None]).squeeze(-1) + self_logit * value)
        state = state + value[..., None] * key[..., None, :]
    return torch.stack(outputs, dim=2), state


def _decay_state(state: Tensor, factors: Tensor, tokens: int) -> Tensor:
    """Decay a state (B, H, V, d) by ``tokens`` tokens."""
    return state * factors[:, factors.shape[1] // 2 + tokens, None]


Form = Literal['parallel', 'chunkwise', 'recurrent']
_FORMS = ('parallel', 'chunkwise', 'recurrent')


@overload
def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    freq: Tensor | None,
    form: Form = ...,
    initial_state: Tensor | None = ...,
    return_last_state: Literal[False] = ...,
    scale: float | None = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    freq: Tensor | None,
    form: Form = ...,
    initial_state: Tensor | None = ...,
    *,
    return_last_state: Literal[True],
    scale: float | None = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    freq: Tensor | None,
    form: Form = 'chunkwise',
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute linear attention with a learnable band-pass (RetNet, arXiv 2307.08621, with learnable λ and θ).

    With the channels 2j and 2j + 1 of a head as one complex number q_j::

        logit(t, s) = scale · Re sum over j of q_{t,j} conj(k_{s,j}) exp((-λ_j + i θ_j) (t - s))
        y_t = sum over s ≤ t of logit(t, s) v_s

    The same as a recurrence, from S_{-1} = ``initial_state``: S_t = S_{t-1} exp(-λ - i θ) + v_t k_tᵀ, whose key
    channels rotate in the same pairs, and y_t = scale · S_t q_t. Norm and gate are up to the caller. Half types compute
    in float32, whatever autocast says.

    Args:
        q, k: (B, H, L, d), d even; float16, bfloat16, float32 or float64.
        v: (B, H, L, V).
        decay: λ ≥ 0 per token, the width of the band-pass, (H, d / 2). With infinity, a token sees only itself. None
            for λ = 0. On a CPU, a negative value raises an error; elsewhere, and in a compiled graph, it is not
            checked.
        freq: θ in radians per token, the centre of the band-pass, (H, d / 2). None for θ = 0.
        form: Algorithm; all compute the same. 'parallel' computes all L² logits; 'chunkwise' computes those within
            chunks, with time and memory linear in L; 'recurrent' goes token by token, as in streaming.
        initial_state: (B, H, V, d), float32 (float64 for float64); by default 0.
        return_last_state: Whether to return the final state, too. It is differentiable, and as the ``initial_state`` of
            a second call it continues the sequence.
        scale: 1 / sqrt(d) by default.
        backend: 'cpp' for the C++ kernels, which compute in chunks; 'reference' for the loop that defines the result,
            whatever ``form`` says. None: the backend that ``MMDEFOCUS_BACKEND`` names, if it is one of these; else the
            C++ kernels for 'chunkwise' on a CPU, or ``form`` in plain PyTorch.

    Returns:
        (B, H, L, V), of the type of ``q``; with ``return_last_state``, also the final state (B, H, V, d) in float32
        (float64 for float64).

    Raises:
        TypeError: Complex, integer or mixed float64 and other types.
        ValueError: Mismatched shapes, an odd d, an empty sequence, no heads, a negative decay, tensors on different
            devices, an unknown form or backend.
        RuntimeError: The named backend does not have the operator.
    """
    op = 'retention'
    tensors = {'q': q, 'k': k, 'v': v, 'decay': decay, 'freq': freq, 'initial_state': initial_state}
    compute = compute_dtype(op, tensors)
    check_arguments(op, q, k, v, decay, freq)
    batch, heads, _, channels = q.shape
    state_shape = (batch, heads, v.shape[-1], channels)
    check_shape(op, 'initial_state', initial_state, state_shape, '(batch, heads, value channels, channels)')
    if form not in _FORMS:
        raise ValueError(f'{op}: expected form to be one of {", ".join(_FORMS)}, got {form!r}')
    unsupported = {'cpp': None if form == 'chunkwise' else f"its kernels compute form='chunkwise', got {form!r}"}
    backend = requested_backend(backend, q.device, compute, ('cpp', 'reference'), unsupported)
    scale = channels**-0.5 if scale is None else scale
    if backend == 'cpp' or (backend is None and form == 'chunkwise' and can_run_cpp(q.device, compute) is None):
        y, last_state = _by_kernels(q, k, v, decay, freq, initial_state, return_last_state, scale, compute)
    else:
        # Autocast would move the products back into half types; the meta device has no autocast to switch off.
        with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
            query, key, value = (x.to(compute).contiguous() for x in (q, k, v))
            query = query * scale
            decay = query.new_zeros(heads, channels // 2) if decay is None else decay.to(compute)
            state = query.new_zeros(state_shape) if initial_state is None else initial_state.to(compute)
            if backend == 'reference':
                freq = torch.zeros_like(decay) if freq is None else freq.to(compute)
                y, last_state = retention_reference(query, key, value, decay, freq, state)
            else:
                y, last_state = retention_by_form(query, key, value, decay, freq, state, form)
    y = y.to(q.dtype)
    return (y, last_state) if return_last_state else y


def _by_kernels(q, k, v, decay, freq, initial_state, return_last_state, scale, compute) -> tuple[Tensor, Tensor]:
    tensors, parameters = kernel_arguments(q, k, v, decay, freq, compute)
    state = None
    if initial_state is not None:
        state = _rotate_state(initial_state.to(compute), freq, -q.shape[2])
        if decay is not None:  # from the token that it follows to the first token
            state = state * torch.exp(-decay.to(compute)).repeat_interleave(2, dim=1)[:, None]
    inputs = (*tensors, *parameters, state)
    save_states = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    y, last_state, _ = torch.ops.mmdefocus.fused_retention(*inputs, scale, return_last_state, save_states)
    return y, last_state


def retention_by_form(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor | None, state: Tensor, form: Form
) -> tuple[Tensor, Tensor]:
    """Compute :func:`retention` in plain PyTorch.

    Args:
        q, k, v: Contiguous, float32 or float64; ``q`` includes the scale.
        decay, freq, state, form: As there; ``state`` is the initial state.

    Returns:
        (B, H, L, V), and the final state (B, H, V, d).
    """
    length = q.shape[2]
    self_logits = (q * k).sum(-1, keepdim=True)  # (B, H, L, 1)
    # The last token is at position 0: a state counts its phases from the token that it follows.
    q, k = apply_rotary(torch.stack((q, k)), freq, 1 - length).unbind()
    state = _rotate_state(state, freq, -length)
    decay = decay.repeat_interleave(2, dim=1)  # (H, d)
    if form == 'recurrent':
        return _token_by_token(q, k, v, self_logits, decay, state)
    return _in_chunks(q, k, v, self_logits, decay, state, length if form == 'parallel' else min(CHUNK, length))


def _rotate_state(state: Tensor, freq: Tensor | None, position: int) -> Tensor:
    """Rotate the key channels of a state (B, H, V, d) by ``position`` times the frequency."""
    batch, heads, values, channels = state.shape
    rows = state.transpose(1, 2).reshape(-1, heads, 1, channels)  # (B V, H, 1, d)
    return apply_rotary(rows, freq, position).reshape(batch, values, heads, channels).transpose(1, 2)
