"""The attention maps of one layer, by blocks of rows, and their check against the layer.

Shapes: B batch, L tokens, E channels of the values, K maps of the result, T rows of a block.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.models.precision import at_least_float32, autocast_off

from .mixer_calls import MixerCall

Reduce = Literal['none', 'group', 'mean']

# Largest relative difference between the maps' effect and the layer's. Half types round the layer's output, and values
# on the way to it.
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_BLOCK_BYTES = 64 * 2**20
_MAX_ROWS = 128
_FEW_QUERIES = 16  # are faster row by row


class LayerMaps(ABC):
    """The maps of one call of a mixer.

    A subclass computes rows of the maps, and in another way, with the operators of the mixer, the mixer's response to
    values. Two comparisons tie the maps to the layer: the response to the layer's own values must be what the layer
    gave to its output projection, and rows of the maps, multiplied by random values, must be the response to them.
    Differences are relative to the largest value of a channel group or head.

    Args:
        call: The call.
        groups: Number of channel groups or heads.
        channels: Number of channels of a group or head.
        reduce: ``'none'``, a map per channel; ``'group'``, the mean over the channels of a group; ``'mean'``, over all.
    """

    def __init__(self, call: MixerCall, groups: int, channels: int, reduce: Reduce) -> None:
        self.call = call
        self.groups, self.channels, self.reduce = groups, channels, reduce
        self.length = call.x.shape[1]
        self.dtype = torch.promote_types(call.output.dtype, torch.float32)
        self._probe: tuple[Tensor, Tensor, Tensor] | None = None

    @abstractmethod
    def respond(self, values: Tensor) -> Tensor:
        """Return what the maps make of values, (B, L, E) → (B, L, E), computed with the operators of the mixer."""

    @abstractmethod
    def output(self) -> Tensor:
        """Return what the layer gives to its output projection, (B, L, E), computed from :meth:`respond`."""

    @abstractmethod
    def compute_rows(self, start: int, stop: int) -> Tensor:
        """Return the rows ``start`` to ``stop`` - 1, (B, K, T, at most L), with one map per group for ``'mean'``."""

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield all rows in order, as pairs of the first row's number and (B, K, T, L)."""
        for start, stop in self._spans():
            yield start, self.rows(start, stop)

    def rows_at(self, positions: Sequence[int]) -> Tensor:
        """Return the rows at positions, (B, K, len(positions), L)."""
        wanted = sorted(set(positions))
        spans = [(position, position + 1) for position in wanted] if len(wanted) <= _FEW_QUERIES else self._spans()
        found = []
        for start, stop in spans:
            inside = [position - start for position in wanted if start <= position < stop]
            if inside:
                found.append(self.rows(start, stop)[:, :, inside])
        rows = torch.cat(found, 2)
        return rows if wanted == list(positions) else rows[:, :, [wanted.index(position) for position in positions]]

    def _spans(self) -> list[tuple[int, int]]:
        """Return first and last + 1 row of blocks of at most 64 MiB, or of one row."""
        maps = self.groups * (self.channels if self.reduce == 'none' else 1)
        row_bytes = self.call.x.shape[0] * maps * self.length * self.dtype.itemsize
        size = max(1, min(_MAX_ROWS, _BLOCK_BYTES // row_bytes))
        return [(start, min(start + size, self.length)) for start in range(0, self.length, size)]

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        """Return the rows ``start`` to ``stop`` - 1, (B, K, T, L).

        Raises:
            RuntimeError: The rows do not reproduce the layer's output.
        """
        with autocast_off(self.call.x.device):
            if self._probe is None:
                self._check_output()
                self._probe = self._probe_layer()
            values, response, scale = self._probe
            rows = self.compute_rows(start, stop)
            rows = F.pad(rows, (0, self.length - rows.shape[-1]))
            if self.reduce == 'mean':
                rows = rows.mean(1, keepdim=True)
            self._compare('rows', rows @ values, response[..., start:stop], scale, self.dtype)
        return rows

    def _check_output(self) -> None:
        """Compare the layer's output with that which the maps' values give through the mixer's operators."""
        computed, recorded = (
            at_least_float32(x).unflatten(-1, (self.groups, self.channels)) for x in (self.output(), self.call.output)
        )
        scale = recorded.abs().amax((1, 3), keepdim=True)  # (B, 1, groups, 1)
        self._compare('values', computed, recorded, scale, self.call.output.dtype)

    def _probe_layer(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return random values (L), every map's response to them (B, K, L), and the size of the responses (B, K, 1).

        The size is the largest response of a channel of the group, or of any channel for their mean: responses of
        channels may cancel in a mean, but their rounding errors do not.
        """
        probe = torch.randn(self.length, generator=torch.Generator().manual_seed(0), dtype=self.dtype)
        probe = probe.to(self.call.x.device)
        # torch's attention computes L × L weights of values that are not contiguous.
        values = probe[:, None].repeat(self.call.x.shape[0], 1, self.groups * self.channels)
        groups = 1 if self.reduce == 'mean' else self.groups
        response = self.respond(values).mT.unflatten(1, (groups, -1))  # (B, groups, channels, L)
        size = response.abs().amax((2, 3))[..., None]  # (B, groups, 1)
        if self.reduce == 'none':
            return probe, response.flatten(1, 2), size.repeat_interleave(self.channels, 1)
        return probe, response.mean(2), size

    def _compare(self, what: str, computed: Tensor, expected: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        difference = (computed - expected).abs() / scale.clamp(min=torch.finfo(scale.dtype).tiny)
        error = difference.max().item()
        if not error <= _TOLERANCES[dtype]:  # not: NaN is an error, too
            raise RuntimeError(
                f'attention maps of layer {self.call.layer} ({self.call.name}): their {what} do not reproduce '
                f"the layer's output. The largest difference is {error:.1e} of the largest value, expected at most "
                f'{_TOLERANCES[dtype]:.0e} ({dtype}). Check that the output of the network is finite, and that no hook '
                f'or subclass changes what {type(self.call.mixer).__name__} computes'
            )
