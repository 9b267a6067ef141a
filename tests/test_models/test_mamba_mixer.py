import math

import pytest
import torch
import torch.nn.functional as F
from test_golden import BFLOAT16_TOLERANCE, assert_parity

from mmdefocus.models.mixers import MambaMixer, mamba
from mmdefocus.models.positions import token_positions


def make_mixer(**changes):
    torch.manual_seed(0)
    sizes = {'embed_dims': 8, 'inner_dims': 32, 'state_dims': 4, 'conv_kernel': 4, 'dt_rank': 3, 'group_size': 16}
    return MambaMixer(**(sizes | changes))


def run(mixer, x, rope_scale=1.0, delta_scale=1.0):
    positions = token_positions(x.shape[1], rope_scale, like=x.float() if x.dtype.itemsize < 4 else x)
    return mixer(x, positions, delta_scale)


def test_initial_values_are_the_published_ones():
    mixer = make_mixer(inner_dims=64, state_dims=16)
    torch.testing.assert_close(mixer.A_log, torch.arange(1.0, 17).log().expand(64, -1))
    assert torch.equal(mixer.D, torch.ones(64))
    dt = F.softplus(mixer.dt_proj.bias)
    expected = [math.exp(math.log(1e-3) + i / 63 * math.log(100)) for i in range(64)]
    # The bias of the smallest step is near -7, where float32 rounds the logarithm of a step by 5e-7.
    torch.testing.assert_close(dt, torch.tensor(expected), rtol=1e-5, atol=0)
    assert mixer.dt_proj.weight.abs().max() <= 3**-0.5
    assert mixer.dt_proj.weight.abs().max() > 0.9 * 3**-0.5
    for projection in (mixer.in_proj, mixer.x_proj, mixer.out_proj):
        assert projection.bias is None
        assert 0.015 < projection.weight.std() < 0.025


def test_reset_restores_initial_values():
    mixer = make_mixer()
    mixer.D.data.zero_()
    mixer.dt_proj.bias.data.zero_()
    mixer.freq.data.zero_()
    mixer.reset_parameters()
    fresh = make_mixer()
    for name in ('D', 'freq', 'A_log', 'dt_proj.bias'):
        assert torch.equal(mixer.get_parameter(name), fresh.get_parameter(name))


def test_mixer_is_the_published_chain():
    """Literal evaluation of the steps, one token and one channel at a time."""
    mixer = make_mixer().double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    rope_scale, delta_scale = 4.0, 2.0
    u, z = mixer.in_proj(x[0]).split(32, dim=-1)
    padded = torch.cat((torch.zeros(3, 32, dtype=torch.float64), u))
    u = torch.stack([(padded[t : t + 4] * mixer.conv1d.weight[:, 0].T).sum(0) + mixer.conv1d.bias for t in range(6)])
    u = u * torch.sigmoid(u)
    r, b, c = mixer.x_proj(u).split((3, 4, 4), dim=-1)
    state = torch.zeros(32, 4, dtype=torch.float64)
    for t in range(6):
        theta = t / rope_scale * mixer.freq
        rotate = lambda v, theta=theta: v * theta.cos() + v[[1, 0, 3, 2]] * v.new_tensor([-1, 1, -1, 1]) * theta.sin()  # noqa: E731
        delta = torch.log1p(mixer.dt_proj(r[t]).exp()) / delta_scale
        state = torch.exp(-delta[:, None] * mixer.A_log.exp()) * state + delta[:, None] * rotate(b[t]) * u[t][:, None]
        y = (state * rotate(c[t])).sum(-1)
        y = torch.cat([g / (g.square().mean() + 1e-6).sqrt() for g in y.split(16)])
        expected = mixer.out_proj((y + mixer.D * u[t]) * F.silu(z[t]))
        torch.testing.assert_close(run(mixer, x, rope_scale, delta_scale)[0, t], expected, rtol=1e-10, atol=1e-12)


def test_mixer_is_causal():
    mixer = make_mixer()
    x = torch.randn(1, 9, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(run(mixer, x)[0, 5].sum(), x)
    assert (gradient[0, 6:] == 0).all()
    assert (gradient[0, :6].abs().sum(-1) > 0).all()


@pytest.mark.parametrize('length', [1, 2, 3])
def test_sequences_shorter_than_the_kernel(length):
    mixer = make_mixer()
    x = torch.randn(2, 8, 8)
    torch.testing.assert_close(run(mixer, x[:, :length]), run(mixer, x)[:, :length])


def test_without_rotary_positions_do_not_matter():
    mixer = make_mixer(rotary=False)
    assert mixer.freq is None
    x = torch.randn(2, 5, 8)
    assert torch.equal(run(mixer, x, rope_scale=1.0), run(mixer, x, rope_scale=7.0))


def test_every_parameter_receives_a_gradient():
    mixer = make_mixer()
    run(mixer, torch.randn(2, 5, 8)).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.fixture
def scan_dtypes(monkeypatch):
    """The scan receives activations and parameters of these dtypes; it computes in the dtype of the parameters."""
    seen = []
    scan = mamba.defocus_scan

    def record(u, dt, A, B, C, D, z, dt_bias, **rest):
        seen.append(({x.dtype for x in (u, dt, B, C, z)}, {A.dtype, rest['positions'].dtype}))
        return scan(u, dt, A, B, C, D, z, dt_bias, **rest)

    monkeypatch.setattr(mamba, 'defocus_scan', record)
    return seen


def test_autocast_reaches_activations_but_not_decay_and_positions(scan_dtypes):
    mixer = make_mixer()
    x = torch.randn(2, 40, 8)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = run(mixer, x)
    assert mixed.dtype == torch.bfloat16
    assert scan_dtypes == [({torch.bfloat16}, {torch.float32})]
    assert_parity(mixed.float(), run(mixer, x), 'autocast', BFLOAT16_TOLERANCE)


def test_half_parameters_keep_a_float32_scan(scan_dtypes):
    mixer = make_mixer().bfloat16()
    assert run(mixer, torch.randn(2, 4, 8).bfloat16()).dtype == torch.bfloat16
    assert scan_dtypes == [({torch.bfloat16}, {torch.float32})]


def test_float64_stays_float64(scan_dtypes):
    mixer = make_mixer().double()
    assert run(mixer, torch.randn(2, 4, 8, dtype=torch.float64)).dtype == torch.float64
    assert scan_dtypes == [({torch.float64}, {torch.float64})]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'inner_dims must be a multiple of group_size \(24\), got 32'):
        make_mixer(group_size=24)
    with pytest.raises(ValueError, match=r'state_dims must be even with rotary=True .*, got 3'):
        make_mixer(state_dims=3)
    make_mixer(state_dims=3, rotary=False)
