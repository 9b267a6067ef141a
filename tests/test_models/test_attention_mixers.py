"""The mixers of De-focus ViT and De-focus RetNet, and their band-pass."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_golden import BFLOAT16_TOLERANCE, assert_parity

from mmdefocus.models.mixers import AttentionMixer, RetentionMixer
from mmdefocus.models.mixers.bandpass import Bandpass
from mmdefocus.models.positions import initial_frequencies, token_positions

MIXERS = {
    'attention': lambda **changes: AttentionMixer(**{'embed_dims': 16, 'num_heads': 2, **changes}),
    'retention': lambda **changes: RetentionMixer(**{'embed_dims': 16, 'num_heads': 2, 'value_dims': 32, **changes}),
}
BOTH = pytest.mark.parametrize('kind', MIXERS)


def make(kind, **changes):
    """A mixer whose parameters are far from their initial values, so that all of them matter."""
    torch.manual_seed(0)
    mixer = MIXERS[kind](**changes)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return mixer


def run(mixer, x, rope_scale=1.0, delta_scale=1.0):
    positions = token_positions(x.shape[1], rope_scale, like=x.float() if x.dtype.itemsize < 4 else x)
    return mixer(x, positions, delta_scale)


def filtered_logits(q, k, band_pass, rope_scale=1.0, delta_scale=1.0):
    """Logits of one head, q and k (L, d), token by token and pair by pair."""
    length, channels = q.shape
    logits = torch.zeros(length, length, dtype=q.dtype)
    for t in range(length):
        for s in range(length):
            for j in range(channels // 2):
                decay, freq = band_pass.log_decay[0, j].exp() / delta_scale, band_pass.freq[0, j] / rope_scale
                product = torch.complex(q[t, 2 * j], q[t, 2 * j + 1]) * torch.complex(k[s, 2 * j], -k[s, 2 * j + 1])
                angle = torch.exp(torch.complex(-decay * abs(t - s), freq * (t - s)))
                logits[t, s] += (product * angle).real / math.sqrt(channels)
    return logits


# Band-pass


def test_band_pass_spreads_half_lives_over_heads_and_frequencies_over_pairs():
    decay, freq = Bandpass(num_heads=6, embed_dims=6 * 16)(torch.arange(9.0), 1.0)
    half_lives = math.log(2) / decay
    torch.testing.assert_close(half_lives[:, 0], 4 * 4 ** torch.arange(6.0))
    torch.testing.assert_close(half_lives, half_lives[:, :1].expand(-1, 8))
    torch.testing.assert_close(freq, initial_frequencies(8).expand(6, -1))


def test_band_pass_follows_both_scales():
    band_pass = Bandpass(num_heads=2, embed_dims=16)
    decay, freq = band_pass(torch.arange(9.0), 1.0)
    scaled_decay, scaled_freq = band_pass(torch.arange(9.0) / 4, 2.0)
    torch.testing.assert_close(scaled_decay, decay / 2)
    torch.testing.assert_close(scaled_freq, freq / 4)


@pytest.mark.parametrize(('dtype', 'expected'), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_band_pass_is_at_least_float32(dtype, expected):
    band_pass = Bandpass(num_heads=2, embed_dims=16).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = band_pass(torch.arange(3, dtype=expected), 1.0)
    assert [output.dtype for output in outputs] == [expected, expected]


def test_one_token_sees_itself_whatever_the_band_pass():
    x = torch.randn(1, 1, 16)
    attention, retention = make('attention'), make('retention')
    value = x @ attention.qkv.weight[32:].T + attention.qkv.bias[32:]
    torch.testing.assert_close(run(attention, x), attention.out_proj(value))
    before = run(retention, x)
    with torch.no_grad():
        retention.band_pass.log_decay += 1
        retention.band_pass.freq += 1
    assert torch.equal(run(retention, x), before)


# Mixers


@pytest.mark.parametrize('causal', [True, False])
def test_attention_is_the_written_formula(causal):
    mixer = make('attention', num_heads=1, causal=causal).double()
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    q, k, v = (x[0] @ mixer.qkv.weight.T + mixer.qkv.bias).split(16, dim=-1)
    logits = filtered_logits(q, k, mixer.band_pass, rope_scale=4.0, delta_scale=2.0)
    if causal:
        logits = logits.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    expected = mixer.out_proj(logits.softmax(-1) @ v)
    torch.testing.assert_close(run(mixer, x, rope_scale=4.0, delta_scale=2.0)[0], expected)


def test_retention_is_the_written_formula():
    mixer = make('retention', num_heads=1).double()
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    q, k, v, gate = (x[0] @ getattr(mixer, name).weight.T for name in ('q_proj', 'k_proj', 'v_proj', 'gate_proj'))
    y = filtered_logits(q, k, mixer.band_pass, rope_scale=4.0, delta_scale=2.0).tril() @ v
    y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = mixer.out_proj(y * gate * torch.sigmoid(gate))
    torch.testing.assert_close(run(mixer, x, rope_scale=4.0, delta_scale=2.0)[0], expected)


@pytest.mark.parametrize('causal', [True, False])
def test_attention_without_a_band_pass_is_torch_multi_head_attention(causal):
    mixer = make('attention', causal=causal, band_pass=False)
    reference = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    reference.load_state_dict(
        {
            'in_proj_weight': mixer.qkv.weight,
            'in_proj_bias': mixer.qkv.bias,
            'out_proj.weight': mixer.out_proj.weight,
            'out_proj.bias': mixer.out_proj.bias,
        }
    )
    x = torch.randn(2, 9, 16)
    mask = torch.ones(9, 9).triu(1).bool() if causal else None
    torch.testing.assert_close(run(mixer, x), reference(x, x, x, attn_mask=mask)[0])


def test_heads_of_retention_do_not_mix_before_the_projection():
    mixer = make('retention')
    x = torch.randn(1, 5, 16)
    mixer.out_proj = torch.nn.Identity()
    before = run(mixer, x)
    with torch.no_grad():
        mixer.k_proj.weight[:8] += 1
    changed = (run(mixer, x) - before).abs().amax((0, 1))
    assert changed[:16].any()
    assert not changed[16:].any()


@BOTH
def test_is_causal(kind):
    x = torch.randn(1, 9, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(run(make(kind), x)[0, 5].sum(), x)
    assert not gradient[0, 6:].any()
    assert (gradient[0, :6].abs().sum(-1) > 0).all()


@BOTH
def test_positions_matter_with_a_band_pass_only(kind):
    x = torch.randn(1, 9, 16)
    swapped = x[:, [1, 0, *range(2, 9)]]
    last = run(make(kind), x)[:, -1]
    assert not torch.allclose(run(make(kind), swapped)[:, -1], last)
    plain = make(kind, band_pass=False)
    assert not any('band_pass' in name for name, _ in plain.named_parameters())
    torch.testing.assert_close(run(plain, swapped)[:, -1], run(plain, x)[:, -1])


@BOTH
def test_every_parameter_receives_a_gradient(kind):
    mixer = make(kind)
    run(mixer, torch.randn(2, 5, 16)).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@BOTH
def test_reset_restores_initial_values(kind):
    mixer = make(kind)
    mixer.reset_parameters()
    fresh = MIXERS[kind]()
    assert torch.equal(mixer.band_pass.log_decay, fresh.band_pass.log_decay)
    assert torch.equal(mixer.band_pass.freq, fresh.band_pass.freq)
    for name, parameter in mixer.named_parameters():
        if name.endswith('bias'):
            assert not parameter.any(), name
        elif name.endswith('weight'):
            assert 0.01 < parameter.std() < 0.03, name


@BOTH
def test_dtypes(kind):
    mixer, x = make(kind), torch.randn(2, 40, 16)
    expected = run(mixer, x)
    with torch.autocast('cpu', torch.bfloat16):
        cast = run(mixer, x)
    assert cast.dtype == torch.bfloat16
    assert_parity(cast.float(), expected, 'autocast', BFLOAT16_TOLERANCE)
    rough = run(make(kind).bfloat16(), x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert_parity(rough.float(), expected, 'bfloat16 parameters', BFLOAT16_TOLERANCE)
    exact = run(make(kind).double(), x.double())
    assert exact.dtype == torch.float64
    assert_parity(expected, exact.float(), 'float32')


def test_sizes_that_do_not_fit_are_refused():
    for make_mixer in MIXERS.values():
        with pytest.raises(ValueError, match=r'embed_dims must be a multiple of num_heads \(3\), got 16'):
            make_mixer(num_heads=3)
        with pytest.raises(ValueError, match=r'embed_dims must be a multiple of 2 \* num_heads \(32; .*\), got 16'):
            make_mixer(num_heads=16)
    with pytest.raises(ValueError, match=r'value_dims must be a multiple of num_heads \(2\), got 31'):
        MIXERS['retention'](value_dims=31)
    assert MIXERS['attention'](num_heads=16, band_pass=False).band_pass is None


def test_keys_of_zero_make_the_last_token_the_mean_of_all_values():
    mixer = make('attention', num_heads=1)
    with torch.no_grad():
        mixer.qkv.weight[16:32] = 0
        mixer.qkv.bias[16:32] = 0
    x = torch.randn(1, 7, 16)
    mean = F.linear(x, mixer.qkv.weight[32:], mixer.qkv.bias[32:]).mean(1)
    torch.testing.assert_close(run(mixer, x)[:, -1], mixer.out_proj(mean))
