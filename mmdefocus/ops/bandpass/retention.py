"""Retention with a learnable band-pass per channel pair: the token mixing of De-focus RetNet.

Legend: B batch, H heads, G chunks, C tokens of a chunk, L tokens, d channels of a head, P = d / 2 pairs, V channels of
a value.
"""

from contextlib import nullcontext
from typing import Literal, overload

import torch
from torch import Tensor

from mmdefocus.ops.backends import requested_backend
from mmdefocus.ops.bandpass import bandpass_factors, block_logits, turn
from mmdefocus.ops.bandpass_arguments import check_arguments, or_zeros, scaled
from mmdefocus.ops.bandpass_reference import retention_reference
from mmdefocus.ops.validation import check_shape, compute_dtype

_CHUNK = 64


def _retain_by_chunks(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, state: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """Products inside chunks; what came before a chunk reaches it through the state."""
    length = q.shape[2]
    factors = bandpass_factors(decay, freq, min(chunk, length))
    outputs = []
    # What is left over is a chunk of its own.
    whole = length - length % chunk
    for start, stop, size in ((0, whole, chunk), (whole, length, length - whole)):
        if start < stop:
            query, key, value = (x[:, :, start:stop].unflatten(2, (-1, size)).contiguous() for x in (q, k, v))
            y, state = _retain_chunks(query, key, value, factors, state)
            outputs.append(y.flatten(2, 3))
    assert state is not None
    return torch.cat(outputs, dim=2), state


def _retain_chunks(q: Tensor, k: Tensor, v: Tensor, factors: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Retention over chunks (B, H, G, C, d) or, for v, (B, H, G, C, V)."""
    size = q.shape[3]
    y = block_logits(q, k, factors, causal=True) @ v  # (B, H, G, C, V)
    # The state of a token counts from this token, so that of a chunk from its last one.
    added = v.mT @ turn(k, factors, 1 - size)  # (B, H, G, V, d)
    if state is None:
        state = torch.zeros_like(added[:, :, 0])
    states = []
    for chunk in added.unbind(2):
        states.append(state)
        state = _age(state, factors, size) + chunk
    return y + turn(q, factors, 1) @ torch.stack(states, dim=2).mT, state


def _age(state: Tensor, factors: Tensor, tokens: int) -> Tensor:
    """The state (B, H, V, d) as seen ``tokens`` later."""
    return turn(state.unsqueeze(-2), factors, -tokens).squeeze(-2)


def _retain_in_parallel(q, k, v, decay, freq, state):
    return _retain_by_chunks(q, k, v, decay, freq, state, chunk=q.shape[2])


def _retain_chunkwise(q, k, v, decay, freq, state):
    return _retain_by_chunks(q, k, v, decay, freq, state, _CHUNK)


def _retain_recurrently(q, k, v, decay, freq, state):
    """One token after the other; the state is all that one leaves to the next."""
    if state is None:
        state = q.new_zeros(*q.shape[:2], v.shape[-1], q.shape[-1])
    factors = bandpass_factors(decay, freq, 1)
    outputs = []
    for query, key, value in zip(q.unbind(2), k.unbind(2), v.unbind(2), strict=True):
        state = _age(state, factors, 1) + value[..., None] * key[..., None, :]
        outputs.append((state @ query[..., None]).squeeze(-1))
    return torch.stack(outputs, dim=2), state


Form = Literal['parallel', 'chunkwise', 'recurrent']
_FORMS = {'parallel': _retain_in_parallel, 'chunkwise': _retain_chunkwise, 'recurrent': _retain_recurrently}


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
    """Linear attention whose logits pass a learnable band-pass (RetNet, arXiv 2307.08621, with λ and θ learnable).

    With the channels 2j and 2j + 1 of a head as one complex number q_j::

        logit(t, s) = scale · Re sum over j of q_{t,j} conj(k_{s,j}) exp((-λ_j + i θ_j) (t - s))
        y_t = sum over s ≤ t of logit(t, s) v_s

    The same as a recurrence, from S_{-1} = ``initial_state``: S_t = S_{t-1} exp(-λ - i θ) + v_t k_tᵀ, whose rows over
    the channels of keys turn in the same pairs, and y_t = scale · S_t q_t. Norm and gate are the caller's. Half types
    compute in float32, whatever autocast says.

    Args:
        q, k: (B, H, L, d), d even; float16, bfloat16, float32 or float64.
        v: (B, H, L, V).
        decay: λ ≥ 0 per token, the width of the band-pass, (H, d / 2). Infinity leaves every token to itself. None for
            λ = 0. A negative value is an error on a CPU; elsewhere, and in a compiled graph, nobody looks.
        freq: θ in radians per token, the centre of the band-pass, (H, d / 2). None for θ = 0.
        form: how to compute what is the same in all forms: 'parallel' makes the whole matrix of logits, L² of them;
            'chunkwise' does so in chunks, with time and memory linear in L; 'recurrent' takes token after token, as
            when they arrive one by one.
        initial_state: (B, H, V, d), float32 (float64 for float64); by default 0.
        return_last_state: whether the state after the last token is returned too. It is differentiable, and as the
            ``initial_state`` of a second call it continues the sequence.
        scale: 1 / sqrt(d) by default.
        backend: 'reference' for the loop that defines the result; MMDEFOCUS_BACKEND=reference asks for it, too. By
            default ``form`` in plain PyTorch, on any device.

    Returns:
        (B, H, L, V), of the type of ``q``; with ``return_last_state``, also the state (B, H, V, d) in float32 (float64
        for float64).

    Raises:
        TypeError: complex, integer or mixed float64 and other types.
        ValueError: shapes that do not fit, an odd d, an empty sequence, no heads, a negative decay, tensors on several
            devices, an unknown form or backend.
        RuntimeError: the named backend does not have the operator.
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
    reference = requested_backend(backend, q.device, implemented=('reference',)) is not None
    implementation = retention_reference if reference else _FORMS[form]

    # Autocast would move the products back into half types; the meta device has none to switch off.
    with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
        query, key, value = (x.to(compute).contiguous() for x in (q, k, v))
        state = None if initial_state is None else initial_state.to(compute).contiguous()
        query = scaled(query, scale)
        y, last_state = implementation(query, key, value, or_zeros(decay, query), or_zeros(freq, query), state)
    y = y.to(q.dtype)
    return (y, last_state) if return_last_state else y
