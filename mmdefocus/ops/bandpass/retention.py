"""Retention with a learnable band-pass per channel pair: gated linear attention with a constant gate per channel.

Queries, keys and states are rotated once; after that, a decay per channel of the keys is all that is left.

Shapes: B batch, G chunks, H heads, C tokens of a chunk, L tokens, d channels of a head, V channels of a value.
"""

from contextlib import nullcontext
from typing import Literal, overload

import torch
from torch import Tensor

from mmdefocus.ops.backends import requested_backend
from mmdefocus.ops.validation import check_shape, compute_dtype

from .arguments import check_arguments
from .reference import retention_reference
from .registration import attend
from .rotary import apply_rotary
from .tiles import decay_factors, scale_by_distance

_CHUNK = 64


def _in_chunks(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, state: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Compute linear attention within chunks of ``size`` tokens, and pass a state from chunk to chunk."""
    length = q.shape[2]
    factors = decay_factors(decay, size)
    outputs = []
    # The remainder is a shorter chunk of its own.
    whole = length - length % size
    for start, stop, width in ((0, whole, size), (whole, length, length - whole)):
        if start < stop:
            tensors = (x[:, :, start:stop].unflatten(2, (-1, width)).transpose(1, 2) for x in (q, k, v, self_logits))
            query, key, value, own = (x.contiguous() for x in tensors)  # (B, G, H, C, ·)
            y, state = _equal_chunks(query, key, value, own, decay, factors, state)
            outputs.append(y.transpose(1, 2).flatten(2, 3))
    return torch.cat(outputs, dim=2), state


def _equal_chunks(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, factors: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute retention of chunks (B, G, H, C, d) or, for v, (B, G, H, C, V)."""
    (batch, chunks), size = q.shape[:2], q.shape[3]
    folded = (x.flatten(0, 1) for x in (q, k, v, self_logits))
    intra_chunk = attend(*folded, decay, causal=True, softmax=False)[0].unflatten(0, (batch, chunks))
    # Contribution of each chunk to the state after its last token.
    local_states = v.mT @ scale_by_distance(k, factors, 1 - size)  # (B, G, H, V, d)
    initial_states = []
    for local_state in local_states.unbind(1):
        initial_states.append(state)
        state = _decay_state(state, factors, size) + local_state
    return intra_chunk + scale_by_distance(q, factors, 1) @ torch.stack(initial_states, dim=1).mT, state


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
        backend: 'reference' for the loop that defines the result; MMDEFOCUS_BACKEND=reference selects it, too. By
            default ``form`` in plain PyTorch, on any device.

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
    batch, heads, length, channels = q.shape
    state_shape = (batch, heads, v.shape[-1], channels)
    check_shape(op, 'initial_state', initial_state, state_shape, '(batch, heads, value channels, channels)')
    if form not in _FORMS:
        raise ValueError(f'{op}: expected form to be one of {", ".join(_FORMS)}, got {form!r}')
    use_reference = requested_backend(backend, q.device, implemented=('reference',)) is not None
    scale = channels**-0.5 if scale is None else scale

    # Autocast would move the products back into half types; the meta device has no autocast to switch off.
    with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
        query, key, value = (x.to(compute).contiguous() for x in (q, k, v))
        query = query * scale
        decay = query.new_zeros(heads, channels // 2) if decay is None else decay.to(compute)
        state = query.new_zeros(state_shape) if initial_state is None else initial_state.to(compute)
        if use_reference:
            freq = torch.zeros_like(decay) if freq is None else freq.to(compute)
            y, last_state = retention_reference(query, key, value, decay, freq, state)
        else:
            self_logits = (query * key).sum(-1, keepdim=True)  # (B, H, L, 1)
            # The last token is at position 0: a state counts its phases from the token that it follows.
            query, key = apply_rotary(torch.stack((query, key)), freq, 1 - length).unbind()
            state = _rotate_state(state, freq, -length)
            decay = decay.repeat_interleave(2, dim=1)  # (H, d)
            if form == 'recurrent':
                y, last_state = _token_by_token(query, key, value, self_logits, decay, state)
            else:
                size = length if form == 'parallel' else min(_CHUNK, length)
                y, last_state = _in_chunks(query, key, value, self_logits, decay, state, size)
    y = y.to(q.dtype)
    return (y, last_state) if return_last_state else y


def _rotate_state(state: Tensor, freq: Tensor | None, position: int) -> Tensor:
    """Rotate the key channels of a state (B, H, V, d) by ``position`` times the frequency."""
    batch, heads, values, channels = state.shape
    rows = state.transpose(1, 2).reshape(-1, heads, 1, channels)  # (B V, H, 1, d)
    return apply_rotary(rows, freq, position).reshape(batch, values, heads, channels).transpose(1, 2)
