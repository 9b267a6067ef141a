"""Attention maps against literal loops over the formulas."""

import math

import pytest
import torch
from toy_networks import build, images_of, watch

from mmdefocus.analysis.attention_maps import attention_maps
from mmdefocus.analysis.maps.selective_scan import ScanMatrix, scan_rows

ROPE_SCALE, DELTA_SCALE = 3.0, 1.5


def softplus(value):
    return math.log1p(math.exp(value))


def silu(value):
    return value / (1 + math.exp(-value))


def rotated(vector, position, freq):
    """Rotate the pairs (2i, 2i + 1) of a list, each channel with its own frequency."""
    partner = [-vector[n + 1] if n % 2 == 0 else vector[n - 1] for n in range(len(vector))]
    return [
        a * math.cos(position * f) + b * math.sin(position * f) for a, b, f in zip(vector, partner, freq, strict=True)
    ]


def loop_over_scan(delta, a, b, c):
    """α_ij = Σ_n C_i,n exp(Σ_{k=j+1..i} Δ_k A_n) Δ_j B_j,n of one channel."""
    length, state = b.shape
    alpha = torch.zeros(length, length, dtype=torch.float64)
    for i in range(length):
        for j in range(i + 1):
            for n in range(state):
                decay = 1.0
                for k in range(j + 1, i + 1):
                    decay *= math.exp(delta[k] * a[n])
                alpha[i, j] += c[i, n] * decay * delta[j] * b[j, n]
    return alpha


@torch.no_grad()
def mamba_by_loops(model, images, layer, include):
    mixer, seen = watch(model, images, layer)
    x, z = (seen['mixer'][0][0][0] @ mixer.in_proj.weight.T).chunk(2, -1)  # (L, E)
    length, channels = x.shape
    u = torch.zeros_like(x)
    sigma = torch.zeros_like(x)
    for t in range(length):
        for e in range(channels):
            taps = [(t - 2 + k, float(mixer.conv1d.weight[e, 0, k])) for k in range(3)]
            c = float(mixer.conv1d.bias[e]) + sum(weight * float(x[s, e]) for s, weight in taps if s >= 0)
            u[t, e], sigma[t, e] = silu(c), 1 / (1 + math.exp(-c))
    r, b, c = (u @ mixer.x_proj.weight.T).split((2, 4, 4), -1)
    freq = [0.0] * 4 if mixer.freq is None else mixer.freq.tolist()
    b, c = (
        torch.tensor([rotated(row.tolist(), t / ROPE_SCALE, freq) for t, row in enumerate(v)], dtype=x.dtype)
        for v in (b, c)
    )
    steps = r @ mixer.dt_proj.weight.T + mixer.dt_proj.bias
    delta = [[softplus(float(steps[t, e])) / DELTA_SCALE for t in range(length)] for e in range(channels)]
    decay = (-mixer.A_log.exp()).tolist()
    alpha = torch.stack([loop_over_scan(delta[e], decay[e], b, c) for e in range(channels)])
    y = torch.stack([alpha[e] @ u[:, e] for e in range(channels)], -1)
    for e in range(channels):
        group = e // 6 * 6
        for i in range(length):
            if 'gate' in include:
                scale = 1 / math.sqrt(float(y[i, group : group + 6].square().mean()) + 1e-6)
                alpha[e, i] *= scale
                alpha[e, i, i] += mixer.D[e]
                alpha[e, i] *= silu(float(z[i, e]))
    if 'conv' not in include:
        return alpha
    result = torch.zeros_like(alpha)
    for e in range(channels):
        for i in range(length):
            for j in range(i + 1):
                for k in range(3):
                    if j - 2 + k >= 0:
                        result[e, i, j - 2 + k] += alpha[e, i, j] * sigma[j, e] * mixer.conv1d.weight[e, 0, k]
    return result


def logits_by_loops(q, k, decay, freq):
    """Re Σ_j q_t,j conj(k_s,j) exp(-λ_j |t - s| + i θ_j (t - s)) / √d of one head, for all t and s."""
    length, channels = q.shape
    logits = torch.zeros(length, length, dtype=torch.float64)
    for t in range(length):
        for s in range(length):
            for j in range(channels // 2):
                query, key = complex(*q[t, 2 * j : 2 * j + 2]), complex(*k[s, 2 * j : 2 * j + 2])
                angle = float(freq[j]) * (t - s)
                turned = query * key.conjugate() * complex(math.cos(angle), math.sin(angle))
                logits[t, s] += turned.real * math.exp(-float(decay[j]) * abs(t - s)) / math.sqrt(channels)
    return logits


@torch.no_grad()
def bandpass_by_loops(model, images, layer, include):
    mixer, seen = watch(model, images, layer)
    band_pass = mixer.band_pass
    softmax = hasattr(mixer, 'qkv')
    q, k, v = seen['qkv'][1][0].chunk(3, -1) if softmax else (seen[f'{name}_proj'][1][0] for name in 'qkv')
    channels = v.shape[-1] // 2
    maps = []
    for head in range(2):
        own = slice(4 * head, 4 * head + 4)
        decay = [0.0, 0.0] if band_pass is None else band_pass.log_decay[head].exp() / DELTA_SCALE
        freq = [0.0, 0.0] if band_pass is None else band_pass.freq[head] / ROPE_SCALE
        weights = logits_by_loops(q[:, own], k[:, own], decay, freq)
        for t in range(len(weights)):
            seen_keys = len(weights) if softmax and not mixer.causal else t + 1
            if softmax:
                exponentials = [math.exp(value) for value in weights[t, :seen_keys]]
                weights[t, :seen_keys] = torch.tensor(exponentials, dtype=torch.float64) / sum(exponentials)
            weights[t, seen_keys:] = 0
        y = weights @ v[:, channels * head : channels * (head + 1)]
        for channel in range(channels):
            rows = weights.clone()
            if 'gate' in include:
                gate = seen['gate_proj'][1][0][:, channels * head + channel]
                for t in range(len(rows)):
                    rows[t] *= silu(float(gate[t])) / math.sqrt(float(y[t].square().mean()) + 1e-6)
            maps.append(rows)
    return torch.stack(maps)


@pytest.mark.parametrize(
    ('kind', 'include', 'by_loops'),
    [
        *[('mamba', include, mamba_by_loops) for include in ((), ('gate',), ('conv',), ('gate', 'conv'))],
        ('mamba without rotary', (), mamba_by_loops),
        *[(kind, (), bandpass_by_loops) for kind in ('vit', 'non-causal vit', 'plain vit', 'retnet', 'plain retnet')],
        ('retnet', ('gate',), bandpass_by_loops),
    ],
)
def test_maps_are_the_formula(kind, include, by_loops):
    model = build(kind, img_size=(4, 6), rope_scale=ROPE_SCALE, delta_scale=DELTA_SCALE)
    images = images_of(4, 6, count=1)
    computed = attention_maps(model, images, [1], 'none', include)[1][0]
    expected = by_loops(model, images, 1, include)
    assert computed.shape == (expected.shape[0], 7, 7)
    torch.testing.assert_close(computed, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('length', [1, 2, 3, 17, 65])
def test_rows_of_a_scan_are_the_formula_for_all_lengths_and_ranges(length):
    torch.manual_seed(length)
    delta, row_weight, diagonal = torch.rand(3, 2, length, 3, dtype=torch.float64)
    b, c = torch.randn(2, 2, length, 4, dtype=torch.float64)
    columns = torch.randn(2, 2, length, 3, dtype=torch.float64)
    decay = -torch.rand(3, 4, dtype=torch.float64)
    matrix = ScanMatrix(delta, b, c, row_weight, diagonal, columns)
    expected = torch.zeros(2, 2, 3, length, length, dtype=torch.float64)
    for image in range(2):
        for channel in range(3):
            sums = delta[image, :, channel].cumsum(0)
            gaps = (sums[:, None] - sums).tril()  # sum of Δ over k = j+1 … i
            alpha = torch.einsum('in,ijn,jn->ij', c[image], (gaps[..., None] * decay[channel]).exp(), b[image])
            alpha = (alpha * delta[image, :, channel]).tril() * row_weight[image, :, channel, None]
            alpha += diagonal[image, :, channel].diag()
            expected[:, image, channel] = alpha * columns[:, image, None, :, channel]
    for start, stop in {(0, length), (length - 1, length), (length // 2, length), (length // 3, 1 + length // 2)}:
        rows = scan_rows(matrix, decay, start, stop, mean=False)
        torch.testing.assert_close(rows, expected[..., start:stop, :stop], rtol=1e-10, atol=1e-12)
        rows = scan_rows(matrix, decay, start, stop, mean=True)
        torch.testing.assert_close(rows, expected[..., start:stop, :stop].mean(2, True), rtol=1e-10, atol=1e-12)
