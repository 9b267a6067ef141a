"""DAT v1 (CVPR 2022): windows, shifted windows, and deformable attention with reference points by Hk."""

import math
import re

import pytest
import torch
from torch.nn import functional as F

from mmdefocus.models import DAT
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus

ARCH = DAT.arch_zoo['v1-tiny'] | dict(
    embed_dims=(16, 32, 48, 64),
    blocks=('LS', 'LS', 'LD', 'LD'),
    num_heads=(1, 2, 3, 4),
    num_groups=(1, 1, 3, 2),
)


def make(**changes):
    torch.manual_seed(0)
    return DAT(ARCH, **changes).eval()


def official_shapes(dims, blocks, heads, groups, window=7, side=224):
    """Names and shapes in an official classifier, written from the description of its files."""
    shapes = {'cls_norm.norm': [(dims[3],), (dims[3],)], 'cls_head': [(1000, dims[3]), (1000,)]}
    shapes |= {'patch_proj.0': [(dims[0], 3, 4, 4), (dims[0],)], 'patch_proj.1.norm': [(dims[0],), (dims[0],)]}
    tensors = {f'down_projs.{i}.0.weight': (dims[i + 1], dims[i], 2, 2) for i in range(3)}
    shapes |= {f'down_projs.{i}.1.norm': [(dims[i + 1],), (dims[i + 1],)] for i in range(3)}
    for i, (c, letters) in enumerate(zip(dims, blocks, strict=True)):
        nominal = side // 4 // 2**i
        for b, letter in enumerate(letters):
            stage, attn = f'stages.{i}.', f'stages.{i}.attns.{b}.'
            for number in (2 * b, 2 * b + 1):
                shapes[f'{stage}layer_norms.{number}.norm'] = [(c,), (c,)]
            shapes[f'{stage}mlps.{b}.chunk.linear1'] = [(4 * c, c), (4 * c,)]
            shapes[f'{stage}mlps.{b}.chunk.linear2'] = [(c, 4 * c), (c,)]
            if letter == 'D':
                width = c // groups[i]
                for name in 'q', 'k', 'v', 'out':
                    shapes[f'{attn}proj_{name}'] = [(c, c, 1, 1), (c,)]
                kernel = (9, 7, 5, 3)[i]
                shapes[f'{attn}conv_offset.0'] = [(width, 1, kernel, kernel), (width,)]
                shapes[f'{attn}conv_offset.1.norm'] = [(width,), (width,)]
                tensors[f'{attn}conv_offset.3.weight'] = (2, width, 1, 1)
                tensors[f'{attn}rpe_table'] = (heads[i], 2 * nominal - 1, 2 * nominal - 1)
                continue
            shapes[f'{attn}proj_qkv'], shapes[f'{attn}proj_out'] = [(3 * c, c), (3 * c,)], [(c, c), (c,)]
            tensors[f'{attn}relative_position_bias_table'] = ((2 * window - 1) ** 2, heads[i])
            tensors[f'{attn}relative_position_index'] = (window**2, window**2)
            if letter == 'S':
                tensors[f'{attn}attn_mask'] = ((nominal // window) ** 2, window**2, window**2)
    for name, (weight, bias) in shapes.items():
        tensors |= {f'{name}.weight': weight, f'{name}.bias': bias}
    return tensors


PUBLISHED = {
    'v1-tiny': ((96, 192, 384, 768), 3, (3, 6, 12, 24), (None, None, 3, 6), {}, 28_319_138),
    'v1-small': ((96, 192, 384, 768), 9, (3, 6, 12, 24), (None, None, 3, 6), {}, 49_700_402),
    'v1-base': ((128, 256, 512, 1024), 9, (4, 8, 16, 32), (None, None, 4, 8), {}, 87_881_632),
    'v1-base 384': (
        (128, 256, 512, 1024),
        9,
        (4, 8, 16, 32),
        (None, None, 4, 8),
        dict(window=12, side=384),
        88_178_272,
    ),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_networks_have_the_official_tensors(name):
    dims, pairs, heads, groups, nominal, parameters = PUBLISHED[name]
    options = dict(window_size=nominal['window'], img_size=nominal['side']) if nominal else {}
    with torch.device('meta'):
        backbone = DAT(name.split()[0], **options)
        head = torch.nn.Linear(dims[-1], 1000)
    assert sum(value.numel() for part in (backbone, head) for value in part.parameters()) == parameters
    ours = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    ours |= {f'head.fc.{name}': value for name, value in head.state_dict().items()}
    official = {name: tuple(value.shape) for name, value in mmdefocus_to_official(ours).items()}
    assert official == official_shapes(dims, ('LS', 'LS', 'LD' * pairs, 'LD'), heads, groups, **nominal)


def test_a_round_trip_of_official_weights_is_bit_equal():
    backbone = make()
    ours = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    official = mmdefocus_to_official(ours)
    shapes = official_shapes(*(ARCH[key] for key in ('embed_dims', 'blocks', 'num_heads', 'num_groups')))
    assert {name: tuple(value.shape) for name, value in official.items()} == {
        name: shape for name, shape in shapes.items() if not name.startswith('cls_head')
    }
    back = official_to_mmdefocus(official)
    assert list(back) == list(ours)
    assert all(back[name] is ours[name] for name in ours)
    other = DAT(ARCH)
    other.load_state_dict(official)
    for name, value in other.state_dict().items():
        assert torch.equal(value.view(-1).view(torch.uint8), backbone.state_dict()[name].view(-1).view(torch.uint8))


def test_only_shifted_windows_have_a_mask_and_shift_by_the_upper_half():
    for options, shift in (({}, 4), (dict(img_size=384, window_size=12), 6)):
        shifts = [getattr(block.attn, 'shift', None) for block in make(**options).layers]
        assert shifts == [0, shift, 0, shift, 0, None, 0, None]
    masked = [name for name in make().state_dict() if name.endswith('attn_mask')]
    assert masked == ['stages.0.1.attn.attn_mask', 'stages.1.1.attn.attn_mask']


@pytest.mark.parametrize('size', [(32, 32), (33, 35), (47, 64), (64, 96), (70, 61), (96, 96)], ids=str)
def test_images_of_any_size(size):
    torch.manual_seed(0)
    backbone = make(out_indices=(0, 1, 2, 3))
    maps = backbone(torch.randn(2, 3, *size))
    assert [feature.shape[1] for feature in maps] == [16, 32, 48, 64]
    for stride, feature in zip((4, 8, 16, 32), maps, strict=True):
        assert tuple(feature.shape[2:]) == tuple(side // stride for side in size)
        assert feature.isfinite().all()
    maps[-1].square().sum().backward()
    without = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    assert without == [f'norm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')]
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters() if parameter.grad is not None)


@torch.no_grad()
def test_positions_are_the_written_formula():
    """r = 2 (i + 0.5) / Hk - 1, o' = 2 tanh(o) / Hk, and no clamp."""
    mixer = make().stages[2][1].attn.double()
    mixer.conv_offset[3].weight.mul_(50)  # so that some positions leave the map
    torch.manual_seed(0)
    x = torch.randn(2, 48, 5, 3, dtype=torch.float64)
    positions = mixer.sample_positions(x)  # (B, g, Hk, Wk, 2)
    assert positions.shape == (2, 3, 5, 3, 2)
    depthwise, norm, pointwise = mixer.conv_offset[0], mixer.conv_offset[1], mixer.conv_offset[3]
    for b in range(2):
        for group in range(3):
            channels = slice(16 * group, 16 * group + 16)
            q = (mixer.proj_q.weight[:, :, 0, 0] @ x[b].flatten(1) + mixer.proj_q.bias[:, None]).view(48, 5, 3)
            u = F.conv2d(q[None, channels], depthwise.weight, depthwise.bias, padding=2, groups=16)[0]
            u = (u - u.mean(0)) / (u.var(0, correction=0) + 1e-5).sqrt()
            u = F.gelu(u * norm.weight[:, None, None] + norm.bias[:, None, None])
            o = torch.einsum('oc,cyx->oyx', pointwise.weight[:, :, 0, 0], u)
            for i in range(5):
                for j in range(3):
                    y = 2 * (i + 0.5) / 5 - 1 + 2 * math.tanh(o[0, i, j]) / 5
                    x_ = 2 * (j + 0.5) / 3 - 1 + 2 * math.tanh(o[1, i, j]) / 3
                    expected = torch.tensor([y, x_], dtype=torch.float64)
                    torch.testing.assert_close(positions[b, group, i, j], expected, rtol=1e-10, atol=1e-12)
    assert positions.abs().max() > 1.05


@torch.no_grad()
def test_the_position_bias_is_the_table_at_the_written_displacement():
    """e = (u - position) / 2 with u = 2 (i + 0.5) / H - 1, sampled bilinearly from the head's table."""
    mixer = make(img_size=64).stages[2][1].attn.double()
    torch.manual_seed(0)
    table = torch.nn.init.normal_(mixer.rpe_table.weight)  # (h, 7, 7) for a map of 4 x 4
    torch.nn.init.zeros_(mixer.proj_k.weight)
    torch.nn.init.zeros_(mixer.proj_k.bias)
    x = torch.randn(1, 48, 3, 2, dtype=torch.float64)
    positions = mixer.sample_positions(x)[0].flatten(1, 2)
    logits = mixer.attention(x)[0].log()  # (h, N, S)
    for head in range(3):
        for query, (i, j) in enumerate((i, j) for i in range(3) for j in range(2)):
            bias = []
            for y, x_ in positions[head]:
                row = ((2 * (i + 0.5) / 3 - 1 - y) / 2 + 1) / 2 * 6
                column = ((2 * (j + 0.5) / 2 - 1 - x_) / 2 + 1) / 2 * 6
                top, left = math.floor(row), math.floor(column)
                bias.append(
                    sum(
                        table[head, top + dy, left + dx] * (1 - abs(row - top - dy)) * (1 - abs(column - left - dx))
                        for dy in (0, 1)
                        for dx in (0, 1)
                        if 0 <= top + dy < 7 and 0 <= left + dx < 7
                    )
                )
            torch.testing.assert_close(logits[head, query], torch.stack(bias).log_softmax(0), rtol=1e-9, atol=1e-10)


def test_weights_of_another_nominal_size_are_refused_by_name():
    at_224, at_384 = make(), make(img_size=384, window_size=12)
    message = (
        r'expected weights of .*img_size=384, window_size=12 .*, got weights of .*img_size=224, window_size=7 .* '
        r'whose stages\.0\.0\.attn\.relative_position_bias_table is \(169, 1\), not \(529, 1\)'
    )
    with pytest.raises(RuntimeError, match=message):
        at_384.load_state_dict(at_224.state_dict())
    with pytest.raises(RuntimeError, match=r'got weights of .*img_size=384, window_size=12'):
        at_224.load_state_dict(at_384.state_dict())
    with pytest.raises(RuntimeError, match=r'attn_mask is \(64, 49, 49\), not \(256, 49, 49\)'):
        make(img_size=448).load_state_dict(at_224.state_dict())


@pytest.mark.parametrize('name', ['relative_position_index', 'attn_mask'])
def test_wrong_buffers_are_refused_in_a_whole_network(name):
    weights = make().state_dict()
    key = f'stages.1.1.attn.{name}'
    weights[key] = weights[key].flip(0)
    with pytest.raises(RuntimeError, match=rf'expected in {re.escape(key)} the values that follow from window_size=7'):
        make().load_state_dict(weights)


def test_weights_of_dat_plus_plus_are_refused():
    with pytest.raises(RuntimeError, match=r"got weights of arch='nano'"):
        make().load_state_dict(DAT('nano').state_dict())
