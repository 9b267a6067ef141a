"""The De-focus Mamba mixer: a selective state space whose decay and positions form a learnable band-pass filter.

Shapes: B batch, L tokens, C embed_dims, E inner_dims, N state_dims, R dt_rank, K conv_kernel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdefocus.ops import causal_conv1d, defocus_scan

from ..linear_halves import linear_halves
from ..positions import initial_frequencies
from ..precision import at_least_float32, autocast_off
from .token_mixer import TokenMixer

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class MambaMixer(TokenMixer):
    """De-focus Mamba mixer (section 3 of the paper, arXiv 2406.04342), (B, L, C) → (B, L, C), causal.

    The mixer follows autocast, but convolution, softplus, phases, scan and group norm compute in at least float32.

    Args:
        embed_dims: C.
        inner_dims: E, a multiple of ``group_size``.
        state_dims: N, even with ``rotary``.
        conv_kernel: K, width of the causal depthwise convolution.
        dt_rank: R, rank of the projection that gives the step size.
        group_size: Number of channels per group of the norm after the scan.
        rotary: If True, a learnable rotary position embedding is applied to B and C of the state space model.

    Raises:
        ValueError: If ``group_size`` does not divide ``inner_dims``, or if ``state_dims`` is odd with ``rotary``.
    """

    def __init__(
        self,
        embed_dims: int,
        inner_dims: int,
        state_dims: int,
        conv_kernel: int,
        dt_rank: int,
        group_size: int,
        rotary: bool = True,
    ) -> None:
        super().__init__()
        if inner_dims % group_size:
            raise ValueError(f'inner_dims must be a multiple of group_size ({group_size}), got {inner_dims}')
        if rotary and state_dims % 2:
            raise ValueError(f'state_dims must be even with rotary=True (channels rotate in pairs), got {state_dims}')
        self.dt_rank = dt_rank
        self.state_dims = state_dims
        self.group_size = group_size

        self.A_log = nn.Parameter(torch.empty(inner_dims, state_dims))
        self.D = nn.Parameter(torch.empty(inner_dims))
        self.freq = nn.Parameter(torch.empty(state_dims)) if rotary else None
        self.conv1d = nn.Conv1d(inner_dims, inner_dims, conv_kernel, groups=inner_dims)
        self.in_proj = nn.Linear(embed_dims, 2 * inner_dims, bias=False)
        self.x_proj = nn.Linear(inner_dims, dt_rank + 2 * state_dims, bias=False)
        self.dt_proj = nn.Linear(dt_rank, inner_dims)
        self.out_proj = nn.Linear(inner_dims, embed_dims, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the published initial values."""
        inner_dims = self.D.shape[0]
        for projection in (self.in_proj, self.x_proj, self.out_proj):
            nn.init.trunc_normal_(projection.weight, std=0.02)
        self.conv1d.reset_parameters()
        self.A_log.copy_(torch.arange(1, self.state_dims + 1).log().expand(inner_dims, -1))
        self.D.fill_(1.0)
        if self.freq is not None:
            self.freq.copy_(initial_frequencies(self.state_dims))
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        dt = torch.linspace(math.log(DT_MIN), math.log(DT_MAX), inner_dims).exp().clamp(min=DT_FLOOR)
        # Inverse of softplus, in the form that keeps full precision for small dt.
        self.dt_proj.bias.copy_(dt + (-torch.expm1(-dt)).log())

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Mix the tokens; see :meth:`TokenMixer.forward`. ``delta_scale`` divides the step size Δ."""
        u, gate = linear_halves(x, self.in_proj.weight)  # (B, L, E)
        u = causal_conv1d(
            u.transpose(1, 2), self.conv1d.weight.squeeze(1), self.conv1d.bias, activation='silu'
        ).transpose(1, 2)
        sizes = (self.dt_rank, self.state_dims, self.state_dims)
        dt, b, c = self.x_proj(u).split(sizes, dim=-1)
        dt = F.linear(dt, self.dt_proj.weight)  # (B, L, E)
        with autocast_off(x.device):
            decay = -at_least_float32(self.A_log).exp()  # (E, N)
        y = defocus_scan(
            u,
            dt,
            decay,
            b,
            c,
            self.D,
            gate,
            self.dt_proj.bias,
            freq=self.freq,
            positions=positions,
            delta_scale=delta_scale,
            group_size=self.group_size,
        )
        return self.out_proj(y)
