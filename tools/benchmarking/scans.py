"""Benchmark cases of the scans, the convolution and the mixer, on random values scaled as at initialisation.

Shapes: B batch, L tokens, E channels, N state, R rank of the step sizes.
"""

from functools import partial

import torch
import torch.nn.functional as F
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Function, Operator, Shape
from torch import Tensor

from mmdefocus.ops import causal_conv1d, defocus_scan, selective_scan
from mmdefocus.ops.backends import BACKENDS
from mmdefocus.ops.defocus_scan.reference import defocus_scan_reference
from mmdefocus.ops.defocus_scan.rotary import learnable_rotary

STATE = 16
GROUP = 64
DT_RANK = 48
KERNEL_WIDTH = 4
# Largest number of state values for the reference, which stores several tensors of all B L E N of them.
MOST_STATES = 2**27


def normal(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def frequencies(*shape: int, device: torch.device) -> Tensor:
    """Draw frequencies from 0 to 1 radian per token, in multiples of 1 / 256.

    The phases of 65,536 tokens are then exact in float32. Other frequencies lose up to 2⁻²⁴ of the phase, 1e-5 at token
    200, in every float32 computation, and the check could not detect smaller errors.
    """
    return torch.rand(*shape, device=device).mul(256).round().div(256)


def make_defocus_scan(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Make random arguments; B and C are slices of a projection's output, as in the mixer."""
    batch, length, channels = shape
    activation = partial(normal, batch, length, dtype=dtype, device=device)
    projected = activation(DT_RANK + 2 * STATE)
    tensors = {
        'u': activation(channels),
        'dt': activation(channels) - 4,
        'A': -torch.arange(1.0, STATE + 1, device=device).repeat(channels, 1),
        'B': projected[..., DT_RANK : DT_RANK + STATE],
        'C': projected[..., DT_RANK + STATE :],
        'D': torch.ones(channels, device=device),
        'z': activation(channels),
        'dt_bias': torch.zeros(channels, device=device),
        'freq': frequencies(STATE, device=device),
    }
    tensors = {name: x.detach().requires_grad_() for name, x in tensors.items()}
    return {**tensors, 'positions': torch.arange(float(length), device=device)}


def make_selective_scan(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Make the arguments of the plain scan: softplus applied, time last, memory order (B, L, E)."""
    fused = {name: x.detach() for name, x in make_defocus_scan(shape, dtype, device).items()}
    tensors = {
        'u': fused['u'].transpose(1, 2),
        'delta': F.softplus(fused['dt'].float()).to(dtype).transpose(1, 2),
        'A': fused['A'],
        'B': fused['B'].transpose(1, 2),
        'C': fused['C'].transpose(1, 2),
    }
    return {name: x.requires_grad_() for name, x in tensors.items()}


def make_causal_conv1d(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    tensors = {
        'x': normal(*shape, dtype=dtype, device=device).transpose(1, 2),
        'weight': torch.randn(shape.channels, KERNEL_WIDTH, device=device),
        'bias': torch.randn(shape.channels, device=device),
    }
    return {name: x.requires_grad_() for name, x in tensors.items()}


def make_mixer(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Make the output of ``in_proj`` and the parameters up to ``out_proj``; projection weights have ``dtype``."""
    batch, length, channels = shape
    matrix = partial(normal, dtype=dtype, device=device)
    tensors = {
        'u': matrix(batch, length, channels),
        'z': matrix(batch, length, channels),
        'conv_weight': torch.randn(channels, KERNEL_WIDTH, device=device) / KERNEL_WIDTH**0.5,
        'conv_bias': torch.randn(channels, device=device),
        'x_proj': matrix(DT_RANK + 2 * STATE, channels) / channels**0.5,
        'dt_proj': matrix(channels, DT_RANK) / DT_RANK**0.5,
        'dt_bias': torch.full((channels,), -4.0, device=device),
        'A_log': torch.arange(1.0, STATE + 1, device=device).log().repeat(channels, 1),
        'D': torch.ones(channels, device=device),
        'freq': frequencies(STATE, device=device),
    }
    tensors = {name: x.detach().requires_grad_() for name, x in tensors.items()}
    return {**tensors, 'positions': torch.arange(float(length), device=device)}


def defocus_scan_by_chain(backend: str, **tensors: Tensor) -> Tensor:
    """Compute the fused scan by torch operators around a selective scan, in float32 (float64 for float64)."""
    dtype = tensors['u'].dtype
    compute = torch.promote_types(dtype, torch.float32)
    tensors = {name: x.to(compute) for name, x in tensors.items()}

    def scan(u, delta, A, B, C, initial_state):
        return selective_scan(u, delta, A, B, C, backend=backend), u.new_empty(0)

    y, _ = defocus_scan_reference(**tensors, initial_state=None, delta_scale=1.0, group_size=GROUP, eps=1e-6, scan=scan)
    return y.to(dtype)


def defocus_scan_by_mamba_ssm(u, dt, A, B, C, D, z, dt_bias, freq, positions) -> Tensor:
    """Compute the fused scan as users of mamba-ssm do: its kernel applies softplus, torch operators do the rest."""
    B, C = (learnable_rotary(x.float(), positions, freq).to(u.dtype).transpose(1, 2) for x in (B, C))
    x, step = u.transpose(1, 2), dt.transpose(1, 2)
    y = selective_scan(x, step, A, B, C, delta_bias=dt_bias, delta_softplus=True, backend='mamba_ssm')
    groups = y.transpose(1, 2).float().unflatten(-1, (-1, GROUP))
    normed = F.rms_norm(groups, (GROUP,), eps=1e-6).flatten(-2)
    return ((normed + D * u) * F.silu(z)).to(u.dtype)


def conv_by_torch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    weight, bias = weight.to(x.dtype).unsqueeze(1), bias.to(x.dtype)
    return F.silu(F.conv1d(F.pad(x, (weight.shape[-1] - 1, 0)), weight, bias, groups=x.shape[1]))


def mixer(conv: Function, scan: Function, u, z, conv_weight, conv_bias, x_proj, dt_proj, A_log, **rest) -> Tensor:
    """Compute :class:`mmdefocus.models.MambaMixer` between ``in_proj`` and ``out_proj``."""
    u = conv(u.transpose(1, 2), conv_weight, conv_bias).transpose(1, 2)
    dt, B, C = F.linear(u, x_proj).split((DT_RANK, STATE, STATE), dim=-1)
    return scan(u=u, dt=F.linear(dt, dt_proj), A=-A_log.exp(), B=B, C=C, z=z, **rest)


def by_backend(function: Function) -> dict[str, Function]:
    return {name: partial(function, backend=name) for name in BACKENDS}


def fewer_groups(shape: Shape) -> Shape:
    """Reduce channels, then images until the states fit into ``MOST_STATES``."""
    channels = max(1, MOST_STATES // (shape.length * STATE * GROUP)) * GROUP
    channels = min(shape.channels, channels)
    return shape._replace(
        batch=max(1, min(shape.batch, MOST_STATES // (shape.length * STATE * channels))), channels=channels
    )


def elements(shape: Shape) -> int:
    return shape.batch * shape.length * shape.channels


def decays(shape: Shape) -> int:
    """Count the exponentials of the recurrence; softplus and SiLU have three or four more per element."""
    return elements(shape) * STATE


def exp_yardstick(per_element: int):
    def seconds(machine: Machine, shape: Shape, dtype: torch.dtype) -> dict[str, float]:
        return dict.fromkeys(PASSES, machine.exp_seconds(elements(shape) * per_element))

    return 'exp', seconds


CONV = by_backend(partial(causal_conv1d, activation='silu'))
SCAN = by_backend(defocus_scan)
CHAINS = {'chain on mamba_ssm': defocus_scan_by_mamba_ssm, 'chain on cpp': partial(defocus_scan_by_chain, 'cpp')}

DEFOCUS_SCAN = Operator(
    name='defocus_scan',
    description=f'N = {STATE}, groups of {GROUP}. `exp` is `torch.exp` on B·E·N·L floats. A chain surrounds the '
    'compiled `selective_scan` of the named backend with torch operators, as the published code does.',
    make=make_defocus_scan,
    like='u',
    implementations=SCAN | CHAINS,
    rounding=('chain on mamba_ssm',),
    comparable=fewer_groups,
    exponentials=decays,
    yardstick=exp_yardstick(STATE),
)
SELECTIVE_SCAN = Operator(
    name='selective_scan',
    description=f'The recurrence alone, N = {STATE}. `exp` is `torch.exp` on B·E·N·L floats.',
    make=make_selective_scan,
    like='u',
    implementations=by_backend(selective_scan),
    comparable=fewer_groups,
    exponentials=decays,
    yardstick=exp_yardstick(STATE),
)
CAUSAL_CONV1D = Operator(
    name='causal_conv1d',
    description=f'Width {KERNEL_WIDTH}, with SiLU. `exp` is `torch.exp` on B·E·L floats; `torch` is `conv1d`.',
    make=make_causal_conv1d,
    like='x',
    implementations=CONV | {'torch': conv_by_torch},
    rounding=('torch',),
    comparable=lambda shape: shape,
    exponentials=elements,
    yardstick=exp_yardstick(1),
)
MIXER = Operator(
    name='mixer',
    description='The Mamba mixer between `in_proj` and `out_proj`: convolution, `x_proj`, `dt_proj` and scan. A chain '
    'uses `conv1d`, transposes and the chain above. `exp` is `torch.exp` on B·E·N·L floats.',
    make=make_mixer,
    like='u',
    implementations={name: partial(mixer, CONV[name], SCAN[name]) for name in BACKENDS}
    | {name: partial(mixer, conv_by_torch, chain) for name, chain in CHAINS.items()},
    rounding=(*BACKENDS, *CHAINS),
    comparable=fewer_groups,
    exponentials=decays,
    matrix_flops=lambda shape: elements(shape) * (4 * DT_RANK + 4 * STATE),
    yardstick=exp_yardstick(STATE),
)
