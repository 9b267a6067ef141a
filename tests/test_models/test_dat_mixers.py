"""Deformable and neighbourhood attention on maps: definition, chunks, precision and arguments."""

import itertools

import pytest
import torch
from torch import nn

from mmdefocus.models.map_mixers import DeformableAttentionMixer, NeighbourhoodAttentionMixer, deformable_attention
from mmdefocus.models.map_mixers.deformable_sampling import add_offsets, key_points, query_points, sample_features

BIASES = (dict(map_size=4), dict(position_bias='log_cpb'), dict(position_bias=None))


def deformable(channels=12, num_heads=6, num_groups=2, stride=2, kernel_size=3, **kwargs):
    """Return a mixer whose bias and offsets are large, with the same values each time."""
    if 'position_bias' not in kwargs:
        kwargs.setdefault('map_size', 4)
    torch.manual_seed(0)
    mixer = DeformableAttentionMixer(channels, num_heads, num_groups, stride, kernel_size, **kwargs)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def maps(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def interpolate(grid, y, x):
    """Bilinear sample of (rows, columns) at coordinates in [-1, 1], with zeros outside."""
    rows, columns = grid.shape
    y, x = (y + 1) / 2 * (rows - 1), (x + 1) / 2 * (columns - 1)
    total = torch.zeros((), dtype=grid.dtype)
    for i, j in itertools.product(range(rows), range(columns)):
        total = total + grid[i, j] * max(1 - abs(y - i), 0) * max(1 - abs(x - j), 0)
    return total


@torch.no_grad()
def test_attention_to_sampled_positions_is_the_formula():
    mixer = deformable().double()
    x = maps(1, 12, 3, 4)
    positions = mixer.sample_positions(x)[0].flatten(1, 2)  # (g, S, 2)
    sampled = torch.stack(
        [interpolate(x[0, c], *point) for c in range(12) for point in positions[c // 6].tolist()]
    ).view(1, 12, 2, 2)
    q, k, v = (
        projection(tokens)[0].flatten(1).view(6, 2, -1)
        for projection, tokens in ((mixer.proj_q, x), (mixer.proj_k, sampled), (mixer.proj_v, sampled))
    )
    expected = torch.empty(6, 2, 12, dtype=torch.float64)
    for head, n in itertools.product(range(6), range(12)):
        query = (2 * (n // 4) / 2 - 1, 2 * (n % 4) / 3 - 1)
        logits = torch.stack(
            [
                q[head, :, n] @ k[head, :, s] / 2**0.5
                + interpolate(mixer.rpe_table.weight[head], (query[0] - y) / 2, (query[1] - x_) / 2)
                for s, (y, x_) in enumerate(positions[head // 3].tolist())
            ]
        )
        weights = logits.softmax(0)
        torch.testing.assert_close(mixer.attention(x)[0, head, n], weights)
        expected[head, :, n] = v[head] @ weights
    torch.testing.assert_close(mixer(x), mixer.proj_out(expected.view(1, 12, 3, 4)))


@pytest.mark.parametrize('options', BIASES)
@torch.no_grad()
def test_attention_of_a_map_is_that_of_forward(options):
    mixer, x = deformable(**options).double(), maps(2, 12, 5, 7)
    weights = mixer.attention(x)
    assert weights.shape == (2, 6, 35, 12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, 35, dtype=torch.float64))
    sampled = sample_features(x, mixer.sample_positions(x))
    v = mixer.proj_v(sampled).flatten(2).unflatten(1, (6, 2))  # (B, h, d, S)
    y = torch.einsum('bhns,bhds->bhdn', weights, v).reshape(x.shape)
    torch.testing.assert_close(mixer.proj_out(y), mixer(x))


@pytest.mark.parametrize('options', [*BIASES, dict(offset_range=2.0, reference_points='Hk', map_size=4)])
@pytest.mark.parametrize('rows', [1, 4, 5, 35])
def test_results_do_not_depend_on_the_chunks(monkeypatch, options, rows):
    mixer = deformable(**options).double()
    x, direction = maps(2, 12, 5, 7).requires_grad_(), torch.randn(2, 12, 5, 7, dtype=torch.float64)
    values = (x, *mixer.parameters())
    expected = torch.autograd.grad((mixer(x) * direction).sum(), values)
    calls = []
    attend = mixer._attend
    monkeypatch.setattr(mixer, '_attend', lambda q, *rest: calls.append(q.shape[2]) or attend(q, *rest))
    monkeypatch.setattr(deformable_attention, 'LOGITS_PER_CHUNK', 2 * 6 * 12 * rows)
    y = mixer(x)
    assert calls == [min(rows, 35 - start) for start in range(0, 35, rows)]
    torch.testing.assert_close(y, deformable(**options).double()(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(torch.autograd.grad((y * direction).sum(), values), expected, rtol=1e-12, atol=1e-12)


def test_the_smallest_chunk_is_one_query(monkeypatch):
    mixer, x = deformable().double(), maps(1, 12, 3, 4)
    expected = mixer(x)
    monkeypatch.setattr(deformable_attention, 'LOGITS_PER_CHUNK', 1)
    torch.testing.assert_close(mixer(x), expected)


def test_backward_keeps_nothing_of_the_size_of_the_logits():
    """Every tensor that autograd keeps has less than N × S elements."""
    mixer, x = deformable(stride=1), maps(1, 12, 20, 20, dtype=torch.float32)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t):
        y = mixer(x.requires_grad_())
    assert max(sizes) < 400 * 400
    y.sum().backward()


@pytest.mark.parametrize('options', [{}, dict(offset_range=2.0, reference_points='Hk'), dict(position_bias='log_cpb')])
def test_gradients(options):
    mixer = deformable(4, 2, 2, **options).double()
    x = maps(1, 4, 3, 4).requires_grad_()
    names = [name for name, _ in mixer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(mixer, dict(zip(names, values, strict=True)), x)

    torch.autograd.gradcheck(run, (x, *mixer.parameters()))


def test_positions_are_clamped_and_their_gradient_ends_there():
    offsets = torch.zeros(1, 1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    positions = add_offsets(offsets, -1.0, 'Hk - 1')
    # 2 (i + 0.5) / 2 - 1 = -0.5, 0.5, 1.5
    assert positions[0, 0, :, 0, 0].tolist() == [-0.5, 0.5, 1.0]
    assert positions[0, 0, 0, :, 1].tolist() == [-0.5, 0.5, 1.0]
    positions.sum().backward()
    assert offsets.grad[0, 0, 0].tolist() == [[1] * 3, [1] * 3, [0] * 3]


def test_positions_of_a_range_may_leave_the_map():
    offsets = torch.full((1, 1, 2, 3, 4), 100.0, dtype=torch.float64)
    for reference_points, rows, columns in (('Hk - 1', 2, 3), ('Hk', 3, 4)):
        moved = add_offsets(offsets, 2.0, reference_points) - key_points(3, 4, reference_points, offsets)
        torch.testing.assert_close(moved[0, 0, ..., 0], torch.full((3, 4), 2 / rows, dtype=torch.float64))
        torch.testing.assert_close(moved[0, 0, ..., 1], torch.full((3, 4), 2 / columns, dtype=torch.float64))
    still = add_offsets(offsets, 0.0, 'Hk')
    assert torch.equal(still[0, 0], key_points(3, 4, 'Hk', offsets))


@pytest.mark.parametrize(('kernel_size', 'stride', 'side'), [(3, 3, 3), (3, 2, 5), (9, 8, 2), (1, 2, 5)])
def test_number_of_keys(kernel_size, stride, side):
    """The offset network pads its map by half a kernel, but not where kernels lie side by side."""
    mixer = deformable(stride=stride, kernel_size=kernel_size)
    positions = mixer.sample_positions(maps(1, 12, 10, 10, dtype=torch.float32))
    assert positions.shape == (1, 2, side, side, 2)


def test_points_of_queries():
    like = torch.zeros((), dtype=torch.float64)
    assert query_points(3, 2, 'Hk - 1', like).tolist() == [[y, x] for y in (-1, 0, 1) for x in (-1, 1)]
    torch.testing.assert_close(
        query_points(2, 4, 'Hk', like),
        torch.tensor([[y, x] for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)], dtype=torch.float64),
    )


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (4, 1)])
@pytest.mark.parametrize('reference_points', ['Hk - 1', 'Hk'])
def test_maps_of_one_row_or_column(size, reference_points):
    mixer = deformable(reference_points=reference_points)
    y = mixer(maps(2, 12, *size, dtype=torch.float32))
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_positions_are_float32_in_half_precision(dtype):
    """References of 41 keys are 1 / 20 apart, which half types round by up to 1 / 256."""
    mixer = deformable(stride=1, map_size=41)
    mixer.conv_offset[3].weight.zero_()
    x, expected = maps(1, 12, 41, 41, dtype=torch.float32), key_points(41, 41, 'Hk - 1', torch.zeros(1)).clamp(-1, 1)
    with torch.autocast('cpu', dtype):
        under_autocast, y = mixer.sample_positions(x), mixer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), mixer(x), rtol=0.05, atol=0.1)
    for positions in (under_autocast, mixer.to(dtype).sample_positions(x.to(dtype))):
        assert positions.dtype == torch.float32
        assert torch.equal(positions[0, 0], expected)


@pytest.mark.parametrize('options', BIASES[:2])
@torch.no_grad()
def test_the_bias_is_float32_in_half_precision(options):
    mixer = deformable(**options)
    keys, queries = mixer.sample_positions(maps(1, 12, 9, 9, dtype=torch.float32)).flatten(2, 3), torch.rand(5, 2)
    expected = mixer.rpe_table(queries, keys)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(mixer.rpe_table(queries, keys), expected)
    rounded = mixer.rpe_table.to(torch.bfloat16)(queries, keys)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, expected, rtol=0.02, atol=0.05)


def test_initial_values():
    mixer = DeformableAttentionMixer(64, 2, 1, 8, 9, map_size=56)
    other = DeformableAttentionMixer(64, 2, 1, 8, 9, position_bias='log_cpb')
    neighbourhood = NeighbourhoodAttentionMixer(64, 2)
    for module in (mixer, other, neighbourhood):
        for parameter in module.parameters():
            nn.init.constant_(parameter, 7)
        module.reset_parameters()
        assert not any((parameter == 7).any() for parameter in module.parameters())
    assert mixer.rpe_table.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert neighbourhood.rpb.std().item() == pytest.approx(0.02, rel=0.15)
    for layer in (mixer.conv_offset[0], mixer.conv_offset[3], mixer.proj_q, neighbourhood.qkv, other.rpe_table.linear1):
        bound = (layer.weight[0].numel()) ** -0.5  # kaiming uniform with a = sqrt(5)
        assert 0.8 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is None or 0 < layer.bias.abs().max() <= bound
    assert torch.equal(mixer.conv_offset[1].weight, torch.ones(64))


@torch.no_grad()
def test_a_small_map_is_padded_before_the_projections():
    """Keys of the padding are the bias of the projection, not zero; a larger map is not padded."""
    torch.manual_seed(0)
    mixer, x = NeighbourhoodAttentionMixer(8, 2, kernel_size=5).double(), maps(2, 8, 3, 9)
    padded = nn.functional.pad(x, (0, 0, 0, 2))
    torch.testing.assert_close(mixer(x), mixer(padded)[:, :, :3])
    mixer.qkv.bias[8:].add_(10)
    torch.testing.assert_close(mixer(x), mixer(padded)[:, :, :3])
    assert mixer(x).shape == x.shape


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: deformable(channels=13), r'channels must be a multiple of num_heads \(6\), got 13'),
        (lambda: deformable(num_groups=4), r'num_heads must be a multiple of num_groups \(4\), got 6'),
        (lambda: deformable(reference_points='H'), r"reference_points must be one of \['Hk - 1', 'Hk'\], got 'H'"),
        (lambda: deformable(position_bias='swin'), r"position_bias must be 'table', 'log_cpb' or None, got 'swin'"),
        (lambda: deformable(position_bias='table'), r"position_bias='table' needs map_size"),
        (lambda: deformable(position_bias='log_cpb', map_size=4), r"and the others do not; got 'log_cpb' and 4"),
        (lambda: NeighbourhoodAttentionMixer(10, 4), r'channels must be a multiple of num_heads \(4\), got 10'),
        (lambda: NeighbourhoodAttentionMixer(8, 4, 6), r'kernel_size must be odd and positive, got 6'),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
