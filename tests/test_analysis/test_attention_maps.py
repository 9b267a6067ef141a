"""Attention maps of the networks of this package: exact, causal, consistent."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_networks import CASES, build, images_of, layer_values, watch

from mmdefocus.analysis.attention_maps import attention_blocks, attention_maps

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
EVERY_CASE = pytest.mark.parametrize(('kind', 'include'), CASES)


def apply(maps, values):
    """Multiply values (B, L, E) by maps (B, E, L, L) of their channels."""
    return (maps @ values.mT[..., None])[..., 0].mT


def rms(values, size, eps=1e-6):
    groups = values.unflatten(-1, (-1, size))
    return (groups.square().mean(-1, keepdim=True) + eps).sqrt().expand_as(groups).flatten(-2)


def expected_output(model, images, layer, include, maps):
    """Return the layer's output before its output projection, by the maps (B, E, L, L) and what they do not include."""
    mixer, seen = watch(model, images, layer)
    values, _ = layer_values(model, images, layer, include)
    y = apply(maps, values)
    if hasattr(mixer, 'qkv') or include == ('gate',):
        return y
    x = seen['mixer'][0][0]
    if hasattr(mixer, 'v_proj'):
        return F.silu(seen['gate_proj'][1]) * y / rms(y, y.shape[-1] // mixer.num_heads)
    if 'conv' in include:  # the maps do not contain the bias of the convolution
        c = F.conv1d(F.pad(values.mT, (2, 0)), mixer.conv1d.weight, mixer.conv1d.bias, groups=12).mT
        without = attention_maps(model, images, [layer], 'none', [part for part in include if part != 'conv'])[layer]
        y = y + apply(without, torch.sigmoid(c) * mixer.conv1d.bias)
    if 'gate' in include:
        return y
    gate = F.silu(F.linear(x, mixer.in_proj.weight.chunk(2)[1]))
    return gate * (y / rms(y, mixer.group_size) + mixer.D * seen['x_proj'][0][0])


@EVERY_CASE
@pytest.mark.parametrize('dtype', TOLERANCES)
@torch.no_grad()
def test_maps_times_values_are_the_output_of_the_layer(kind, include, dtype):
    model, images = build(kind, dtype, rope_scale=4.0, delta_scale=2.0), images_of(dtype=dtype)
    for layer, maps in attention_maps(model, images, reduce='none', include=include).items():
        _, output = layer_values(model, images, layer, include)
        computed = expected_output(model, images, layer, include, maps)
        assert maps.dtype == dtype
        assert (computed - output).abs().max() <= TOLERANCES[dtype] * output.abs().max()


@EVERY_CASE
def test_reductions_are_means_of_the_maps_of_channels(kind, include):
    model, images = build(kind), images_of()
    by_reduction = {
        reduce: attention_maps(model, images, [1], reduce, include)[1] for reduce in ('none', 'group', 'mean')
    }
    of_channels = by_reduction['none']
    channels = 12 if 'vit' not in kind else 8
    assert of_channels.shape == (2, channels, 17, 17)
    assert by_reduction['group'].shape == (2, 2, 17, 17)
    torch.testing.assert_close(by_reduction['group'], of_channels.unflatten(1, (2, -1)).mean(2))
    torch.testing.assert_close(by_reduction['mean'], of_channels.mean(1, keepdim=True))


@EVERY_CASE
def test_causal_maps_are_exactly_lower_triangular(kind, include):
    for reduce in ('none', 'group', 'mean'):
        maps = attention_maps(build(kind), images_of(), [0], reduce, include)[0]
        assert maps.isfinite().all()
        if kind == 'non-causal vit':
            assert (maps > 0).all()
        else:
            assert (maps.triu(1) == 0).all()
            assert (maps.tril().abs().sum(1) > 0).sum() == 2 * 17 * 18 / 2


@EVERY_CASE
@pytest.mark.parametrize(('height', 'width'), [(2, 2), (2, 4), (16, 16), (21, 27)])
def test_lengths_and_window_order_with_padding(kind, include, height, width):
    """Sequences of 2, 3 and 65 tokens, and 2 × 2 windows of 16 × 16 pixels and padding, checked against the layers."""
    windows = {'token_order': 'window', 'pretrain_size': 16, 'rope_scale': 'auto', 'delta_scale': 'auto'}
    model, images = build(kind, **(windows if height == 21 else {})), images_of(height, width, count=1)
    length = 2 * 2 * 64 + 1 if height == 21 else height * width // 4 + 1
    for maps in attention_maps(model, images, include=include).values():
        assert maps.shape == (1, 2, length, length)


@EVERY_CASE
def test_queries_select_rows(kind, include):
    model, images = build(kind), images_of()
    whole = attention_maps(model, images, [0], include=include)[0]
    some = attention_maps(model, images, [0], include=include, queries=[16, 3, -2, 3])[0]
    torch.testing.assert_close(some, whole[:, :, [16, 3, 15, 3]])
    many = attention_maps(model, images, [0], include=include, queries=range(16, -1, -1))[0]
    torch.testing.assert_close(many, whole.flip(2))


@EVERY_CASE
def test_blocks_are_the_rows_in_order(kind, include, monkeypatch):
    model, images = build(kind), images_of()
    for reduce in ('none', 'group', 'mean'):
        whole = attention_maps(model, images, None, reduce, include)
        with monkeypatch.context() as patch:
            patch.setattr('mmdefocus.analysis.maps.layer_maps._BLOCK_BYTES', 5 * 2 * 2 * 17 * 8)
            blocks = list(attention_blocks(model, images, [-1, 0], reduce, include))
        size = 1 if reduce == 'none' else 5
        starts = list(range(0, 17, size))
        assert [(layer, start) for layer, start, _ in blocks] == [
            (layer, start) for layer in (1, 0) for start in starts
        ]
        for layer in (0, 1):
            rows = torch.cat([rows for number, _, rows in blocks if number == layer], 2)
            torch.testing.assert_close(rows, whole[layer])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_strong_and_absent_decays_neither_overflow_nor_vanish(dtype):
    model, images = build('mamba', dtype), images_of(32, 32, dtype)
    mixer = model.layers[0].mixer
    mixer.dt_proj.bias.data = torch.linspace(-60, 400, 12, dtype=dtype)  # steps of 1e-26 to 400
    mixer.A_log.data = torch.linspace(-40, 8, 48, dtype=dtype).view(12, 4)
    for include in ((), ('conv', 'gate')):
        maps = attention_maps(model, images, [0], 'none', include)[0]
        assert maps.isfinite().all()
        assert (maps.diagonal(dim1=-2, dim2=-1) != 0).any(-1).all()


@pytest.mark.parametrize('kind', ['mamba', 'vit', 'non-causal vit', 'plain vit', 'retnet'])
@pytest.mark.parametrize('mode', ['autocast', 'bfloat16', 'float16'])
def test_half_types(kind, mode):
    """The maps are those of the rounded values, in float32."""
    if mode == 'autocast':
        model, images = build(kind, torch.float32), images_of(dtype=torch.float32)
        with torch.autocast('cpu', torch.bfloat16):
            maps = attention_maps(model, images)
    else:
        dtype = getattr(torch, mode)
        model, images = build(kind, dtype), images_of(dtype=dtype)
        maps = attention_maps(model, images)
    exact = attention_maps(model.float(), images.float())
    for layer, rounded in maps.items():
        assert rounded.dtype == torch.float32
        assert (rounded - exact[layer]).abs().max() < 0.1 * exact[layer].abs().max()


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        # A stride of 0 is a value that is stored once.
        sizes = [x.untyped_storage().nbytes() // x.itemsize for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


@pytest.mark.parametrize(
    ('kind', 'include'),
    [('mamba', ()), ('mamba', ('conv', 'gate')), ('vit', ()), ('plain vit', ()), ('retnet', ('gate',))],
)
def test_blocks_need_no_tensor_of_the_size_of_a_map(kind, include, monkeypatch):
    monkeypatch.setattr('mmdefocus.analysis.maps.layer_maps._MAX_ROWS', 16)
    model, images = build(kind), images_of(48, 48, count=1)
    blocks = attention_blocks(model, images, [0], include=include)
    length = 24 * 24 + 1
    with LargestTensor() as largest:
        count = sum(rows.shape[2] for _, _, rows in blocks)
    assert count == length
    assert largest.numel < length**2 / 4  # of the maps of two groups or heads, and of their operators
