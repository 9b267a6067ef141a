"""Attention within windows and shifted windows, the block types L and S of DAT v1."""

import math

import pytest
import torch
from mmpretrain.models.utils import ShiftWindowMSA
from timm.models.swin_transformer import WindowAttention
from torch.nn import functional as F

from mmdefocus.models.map_mixers.window_attention import WindowAttentionMixer, offset_index, shift_mask

LAYOUTS = pytest.mark.parametrize('shift', [0, 2], ids=['windows', 'shifted'])


def make(window_size=3, shift=0, map_size=6, channels=8, num_heads=2):
    """A mixer in float64 whose parameters are far from their initial values, so that all of them matter."""
    torch.manual_seed(0)
    mixer = WindowAttentionMixer(channels, num_heads, window_size, shift, map_size).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return mixer


def maps(height, width, batch=2, channels=8):
    return torch.randn(batch, channels, height, width, dtype=torch.float64, requires_grad=True)


def literal(mixer, x):
    """The mixer pixel by pixel, without a roll, a mask or an index: a pixel attends to those of its moved window."""
    side, shift, heads = mixer.window_size, mixer.shift, mixer.num_heads
    batch, channels, height, width = x.shape
    padded = F.pad(x, (0, -width % side, 0, -height % side))
    rows, columns = padded.shape[2:]
    q, k, v = (padded.permute(0, 2, 3, 1) @ mixer.proj_qkv.weight.T + mixer.proj_qkv.bias).chunk(3, -1)
    table = mixer.relative_position_bias_table.view(2 * side - 1, 2 * side - 1, heads)

    def window(position, length):
        # The shift moves the windows to the right, so those at the two ends have `shift` and `side - shift` pixels.
        return (position - shift) // side, (position - shift) % side

    def place(y, x):
        (row, y_in), (column, x_in) = window(y, rows), window(x, columns)
        return (row, column), y_in, x_in

    pixels = [(y, x) for y in range(rows) for x in range(columns)]
    out = torch.zeros(batch, channels, height, width, dtype=x.dtype)
    d = channels // heads
    for b in range(batch):
        for y, x_ in [(y, x) for y, x in pixels if y < height and x < width]:
            where, y_in, x_in = place(y, x_)
            keys = [(place(*key)[1:], key) for key in pixels if place(*key)[0] == where]
            mixed = []
            for head in range(heads):
                part = slice(head * d, (head + 1) * d)
                logits = torch.stack(
                    [
                        q[b, y, x_, part] @ k[b, key_y, key_x, part] / math.sqrt(d)
                        + table[y_in - key_y_in + side - 1, x_in - key_x_in + side - 1, head]
                        for (key_y_in, key_x_in), (key_y, key_x) in keys
                    ]
                )
                values = torch.stack([v[b, key_y, key_x, part] for _, (key_y, key_x) in keys])
                mixed.append(logits.softmax(0) @ values)
            out[b, :, y, x_] = torch.cat(mixed) @ mixer.proj_out.weight.T + mixer.proj_out.bias
    return out


@LAYOUTS
@pytest.mark.parametrize('size', [(6, 6), (6, 9), (5, 7), (2, 4)], ids=str)
def test_the_mixer_is_the_written_loop(shift, size):
    mixer = make(shift=shift)
    x = maps(*size)
    expected = literal(mixer, x)
    y = mixer(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(y)
    inputs = [x, *mixer.parameters()]
    gradients = [torch.autograd.grad((out * weights).sum(), inputs) for out in (y, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('shift', [0, 3], ids=['windows', 'shifted'])
@pytest.mark.parametrize('size', [(14, 14), (16, 20)], ids=['nominal', 'padded'])
def test_the_mixer_is_swins_window_attention(shift, size):
    mixer = make(window_size=7, shift=shift, map_size=14)
    swin = ShiftWindowMSA(8, 2, 7, shift_size=shift, pad_small_map=True).double()
    names = {'proj_qkv': 'w_msa.qkv', 'proj_out': 'w_msa.proj'}
    swin.load_state_dict(
        {
            f'{names[name]}.{leaf}': getattr(getattr(mixer, name), leaf).data
            for name in names
            for leaf in ('weight', 'bias')
        }
        | {
            'w_msa.relative_position_bias_table': mixer.relative_position_bias_table.data,
            'w_msa.relative_position_index': swin.w_msa.relative_position_index,
        }
    )
    x = maps(*size)
    y = swin(x.flatten(2).transpose(1, 2), size).transpose(1, 2).unflatten(2, size)
    torch.testing.assert_close(mixer(x), y, rtol=1e-12, atol=1e-12)


def test_the_buffers_are_those_of_the_official_files():
    mixer = make(window_size=7, shift=4, map_size=56)
    assert [(name, tuple(value.shape)) for name, value in mixer.state_dict().items()] == [
        ('relative_position_bias_table', (169, 2)),
        ('relative_position_index', (49, 49)),
        ('attn_mask', (64, 49, 49)),
        ('proj_qkv.weight', (24, 8)),
        ('proj_qkv.bias', (24,)),
        ('proj_out.weight', (8, 8)),
        ('proj_out.bias', (8,)),
    ]
    assert 'attn_mask' not in make().state_dict()


def test_the_index_is_that_of_timm():
    index = offset_index(7)
    assert index.dtype == torch.int64
    assert torch.equal(index, WindowAttention(8, 2, window_size=7).relative_position_index)


def test_the_mask_separates_the_two_sides_of_the_map_and_nothing_else():
    mask = shift_mask(6, 9, window_size=3, shift=2)
    assert mask.dtype == torch.float32
    # The first window of the three columns and two rows is far from the borders that the roll brings together.
    assert [int((window != 0).sum()) for window in mask] == [0, 0, 36, 36, 36, 56]
    assert set(mask.unique().tolist()) == {0.0, -100.0}
    assert not torch.signbit(mask[mask == 0]).any()


@LAYOUTS
def test_a_pixel_depends_on_its_window_alone(shift):
    mixer = make(shift=shift)
    x = maps(6, 6, batch=1)
    mixer(x)[0, :, 2, 2].sum().backward()
    seen = x.grad[0].abs().sum(0) > 1e-30  # masked weights are exp(-100) at most
    rows = slice(0, 3) if shift == 0 else slice(2, 5)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[rows, rows] = True
    assert torch.equal(seen, expected)


def test_initial_values_are_those_of_the_official_code():
    torch.manual_seed(0)
    mixer = WindowAttentionMixer(64, 4, window_size=7, shift=4, map_size=14)
    assert mixer.relative_position_bias_table.std().item() == pytest.approx(0.01, rel=0.1)
    assert mixer.proj_qkv.weight.abs().max() <= 1 / 8
    assert mixer.proj_qkv.weight.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)
    before = mixer.proj_out.weight.clone()
    mixer.reset_parameters()
    assert not torch.equal(mixer.proj_out.weight, before)


@LAYOUTS
def test_it_runs_in_bfloat16(shift):
    mixer, x = make(shift=shift).float(), maps(5, 7).detach().float()
    expected = mixer(x)
    with torch.autocast('cpu', torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())
    y = mixer.bfloat16()(x.bfloat16())
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize('name', ['relative_position_index', 'attn_mask'])
def test_loading_other_buffers_is_an_error(name):
    mixer = make(shift=2)
    state_dict = mixer.state_dict()
    mixer.load_state_dict(state_dict)
    state_dict[name] = state_dict[name].flip(0)
    for strict in (True, False):
        with pytest.raises(
            RuntimeError,
            match=rf'expected in {name} the values that follow from window_size=3 and shift=2, '
            r'got others; give the network the window_size',
        ):
            mixer.load_state_dict(state_dict, strict=strict)


def test_loading_another_shift_is_an_error():
    with pytest.raises(
        RuntimeError, match=r'expected in attn_mask the values that follow from window_size=3 and shift=1'
    ):
        make(shift=1).load_state_dict(make(shift=2).state_dict())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(num_heads=3), r'channels must be a multiple of num_heads \(3\), got 8'),
        (dict(shift=3), r'shift must be from 0 to window_size - 1 = 2, got 3'),
        (dict(shift=-1), r'shift must be from 0 to window_size - 1 = 2, got -1'),
        (dict(window_size=0), r'window_size and map_size must be positive, got 0 and 6'),
        (dict(map_size=0), r'window_size and map_size must be positive, got 3 and 0'),
    ],
)
def test_arguments_outside_their_range_are_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
