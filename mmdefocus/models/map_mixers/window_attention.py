"""Attention within windows and shifted windows, the block types L and S of DAT v1.

Shapes: B batch, C channels, H and W rows and columns of the map, w side of a window, R and S rows and columns of
windows, N = w² pixels of a window, h heads, d = C / h channels of a head.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to the logits of pairs that the shift brought together; the value is in the official files.
MASKED_LOGIT = -100.0


class WindowAttentionMixer(nn.Module):
    """Multi-head attention within w × w windows, (B, C, H, W) → (B, C, H, W) (arXiv 2201.00520; Swin, 2103.14030).

    With a shift the map is rolled up and to the left before it is cut into windows, and back afterwards. A mask then
    separates pixels of a window that the roll brought together from opposite sides of the map.

    The map may have any size. As in Swin, zeros after the norm pad it at the bottom and on the right to multiples of
    the window, take part as keys, and are cropped from the output. The original accepts only multiples, and with a
    shift only the nominal size; there, nothing is padded.

    The buffers follow from the arguments, but official files contain them, and so does the state dict. Loading other
    values is an error.

    Args:
        channels: C.
        num_heads: h, divides C.
        window_size: w.
        shift: Pixels by which the windows move, 0 … w - 1. DAT v1 uses 0 and ceil(w / 2), Swin 0 and floor(w / 2).
        map_size: Nominal side of the map, for which the buffer ``attn_mask`` is made; a mixer without shift has none.

    Attributes:
        relative_position_bias_table: Logit by offset of query from key and by head, ((2w - 1)², h).
        relative_position_index: Row of the table for every pair of pixels of a window, (N, N).
        attn_mask: Mask of the windows of the nominal map, (R · S, N, N), 0 or -100.

    Raises:
        ValueError: If ``channels`` does not divide into heads, or if an argument is outside its range.
    """

    relative_position_index: Tensor
    attn_mask: Tensor

    def __init__(self, channels: int, num_heads: int, window_size: int, shift: int, map_size: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'channels must be a multiple of num_heads ({num_heads}), got {channels}')
        if window_size < 1 or map_size < 1:
            raise ValueError(f'window_size and map_size must be positive, got {window_size} and {map_size}')
        if not 0 <= shift < window_size:
            raise ValueError(f'shift must be from 0 to window_size - 1 = {window_size - 1}, got {shift}')
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift = shift
        self.map_size = map_size
        self.proj_qkv = nn.Linear(channels, 3 * channels)
        self.proj_out = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        self.register_buffer('relative_position_index', offset_index(window_size))
        if shift:
            self.register_buffer('attn_mask', shift_mask(map_size, map_size, window_size, shift))
        self.reset_parameters()
        self._register_load_state_dict_pre_hook(_compare_buffers, with_module=True)

    def reset_parameters(self) -> None:
        """Set the initial values of the official code: PyTorch's for the projections, a small table."""
        self.proj_qkv.reset_parameters()
        self.proj_out.reset_parameters()
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of each window.

        Args:
            x: (B, C, H, W), normalised.

        Returns:
            (B, C, H, W), in the dtype of the projections. Bias and mask are added in the dtype of the queries, because
            kernels for attention demand it.
        """
        side, (height, width) = self.window_size, x.shape[2:]
        x = F.pad(x, (0, -width % side, 0, -height % side)).permute(0, 2, 3, 1)  # (B, H', W', C), R w × S w
        bias = self._logit_bias(*x.shape[:3])
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        windows = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)  # (B, R, S, w, w, C)
        qkv = self.proj_qkv(windows.reshape(-1, side**2, x.shape[-1]))  # (B R S, N, 3 C)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B R S, h, N, d)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        y = self.proj_out(y.transpose(1, 2).flatten(2)).view(windows.shape)
        y = y.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, H', W', C)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        return y[:, :height, :width].permute(0, 3, 1, 2)

    def _logit_bias(self, batch: int, height: int, width: int) -> Tensor:
        """Return what is added to the logits of a padded map, (1, h, N, N) or with a shift (B R S, h, N, N)."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]  # (1, h, N, N)
        if not self.shift:
            return bias
        nominal = self.map_size + -self.map_size % self.window_size
        mask = self.attn_mask
        if (height, width) != (nominal, nominal):
            mask = shift_mask(height, width, self.window_size, self.shift, mask.device)
        return (bias + mask[:, None]).repeat(batch, 1, 1, 1)


def offset_index(window_size: int) -> Tensor:
    """Return the row of the bias table for every (query, key) pair of a window, (N, N), in Swin's order.

    A pair that is y rows and x columns apart (query minus key) has the row (y + w - 1)(2w - 1) + x + w - 1.
    """
    rows, columns = torch.meshgrid(torch.arange(window_size), torch.arange(window_size), indexing='ij')
    y, x = (axis.flatten()[:, None] - axis.flatten()[None, :] + window_size - 1 for axis in (rows, columns))
    return y * (2 * window_size - 1) + x


def shift_mask(height: int, width: int, window_size: int, shift: int, device: torch.device | None = None) -> Tensor:
    """Return the mask between pixels of the windows of a rolled map, (R · S, N, N): -100 if they come from two sides.

    Args:
        height, width: Sides of the map; multiples of the window, or rounded up to them.
        window_size: w.
        shift: Pixels by which the map was rolled up and to the left.
        device: Device of the mask.
    """
    sides = (-(-length // window_size) * window_size for length in (height, width))
    # 0 before the last window of an axis, 1 in its first part, 2 in the part that the roll moved there.
    rows, columns = (
        (positions >= len(positions) - window_size).int() + (positions >= len(positions) - shift)
        for positions in (torch.arange(side, device=device) for side in sides)
    )
    regions = 3 * rows[:, None] + columns  # (R w, S w)
    windows = regions.unflatten(1, (-1, window_size)).unflatten(0, (-1, window_size)).transpose(1, 2)  # (R, S, w, w)
    windows = windows.reshape(-1, window_size**2)  # (R S, N)
    is_masked = windows[:, :, None] != windows[:, None, :]
    return torch.zeros(is_masked.shape, device=device).masked_fill(is_masked, MASKED_LOGIT)


def _compare_buffers(
    mixer: WindowAttentionMixer,
    state_dict: Mapping[str, Tensor],
    prefix: str,
    _metadata: Mapping[str, Any],
    _strict: bool,
    _missing_keys: list[str],
    _unexpected_keys: list[str],
    errors: list[str],
) -> None:
    expected = {'relative_position_index': offset_index(mixer.window_size)}
    if mixer.shift:
        expected['attn_mask'] = shift_mask(mixer.map_size, mixer.map_size, mixer.window_size, mixer.shift)
    for name, value in expected.items():
        loaded = state_dict.get(prefix + name)
        if loaded is None or loaded.shape != value.shape:  # PyTorch reports both.
            continue
        if not torch.equal(loaded.double().cpu(), value.double()):
            errors.append(
                f'expected in {prefix}{name} the values that follow from window_size={mixer.window_size} and '
                f'shift={mixer.shift}, got others; give the network the window_size and shift of the weights, or '
                'download the file again if it is damaged'
            )
