"""Sizes of a DAT backbone, inferred from the names and shapes of its tensors."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

NUM_STAGES = 4
# The tensor that only this type of block has; a shifted window also has the table of an unshifted one.
_LETTERS = {
    'rpb': 'N',
    'rpe_table.weight': 'D',
    'attn_mask': 'S',
    'relative_position_bias_table': 'L',
}
_BLOCK = re.compile(r'stages\.(\d)\.(\d+)\.')


class DATSizes(NamedTuple):
    """Sizes of a backbone, None where its tensors do not determine them.

    Attributes:
        arch: Values by key of the arch; those of stages may contain None.
        img_size, window_size: Arguments of the backbone.
    """

    arch: dict[str, Any]
    img_size: int | None
    window_size: int | None

    def matching_archs(self, zoo: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the names of the archs in ``zoo`` that have these tensors."""
        return [name for name, arch in zoo.items() if all(_agree(value, arch[key]) for key, value in self.arch.items())]

    def complete_arch(self, zoo: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return a complete arch; what no tensor depends on is that of the first arch in ``zoo`` with these tensors.

        Raises:
            ValueError: A tensor that determines the widths or types of blocks is missing.
        """
        stages = zip(self.arch['embed_dims'], self.arch['blocks'], strict=True)
        lacking = [i for i, (width, blocks) in enumerate(stages) if width is None or not blocks or '?' in blocks]
        if lacking:
            raise ValueError(f'the state dict lacks tensors that give the width and the blocks of the stages {lacking}')
        known = dict(zoo[next(iter(self.matching_archs(zoo)), 'tiny')])
        return {key: _fill(self.arch.get(key), value) for key, value in known.items()}

    def describe(self, zoo: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the arguments that give a backbone these tensors, as text."""
        archs = ' or '.join(f'arch={name!r}' for name in self.matching_archs(zoo)) or 'another arch'
        sizes = f'embed_dims={list(self.arch["embed_dims"])}, blocks={list(self.arch["blocks"])}'
        nominal = [
            f'{name}={value}' for name, value in zip(self._fields[1:], self[1:], strict=True) if value is not None
        ]
        return f'{", ".join([archs, *nominal])} ({sizes})'


def find_sizes(weights: Mapping[str, Tensor]) -> DATSizes:
    """Infer what the tensors of a backbone, with its own names, tell about its sizes."""
    stages = [_Stage(weights, stage) for stage in range(NUM_STAGES)]
    arch = dict(
        embed_dims=tuple(stage.width for stage in stages),
        blocks=tuple(stage.letters for stage in stages),
        num_heads=tuple(stage.num_heads() for stage in stages),
        num_groups=tuple(stage.num_groups() for stage in stages),
        offset_kernels=tuple(stage.offset_kernel() for stage in stages),
        overlap_patches='downsample_layers.0.3.weight' in weights,
        local_perception=any('.lpu.' in name for name in weights),
        conv_ffn=any('.ffn.dwconv.' in name for name in weights),
    )
    windows = (stage.window_size() for stage in stages)
    images = (stage.img_size() for stage in stages)
    return DATSizes(arch, next(filter(None, images), None), next(filter(None, windows), None))


class _Stage:
    """What the tensors of a stage tell."""

    def __init__(self, weights: Mapping[str, Tensor], stage: int) -> None:
        self.weights, self.stage = weights, stage
        prefix = f'downsample_layers.{stage}.'
        convolutions = [value for name, value in weights.items() if name.startswith(prefix) and value.ndim == 4]
        self.width = len(convolutions[-1]) if convolutions else None
        numbers = {int(found[2]) for name in weights if (found := _BLOCK.match(name)) and int(found[1]) == stage}
        self.letters = ''.join(self._letter(b) for b in sorted(numbers))

    def num_heads(self) -> int | None:
        tables = (*self._tensors('attn.rpb'), *self._tensors('attn.rpe_table.weight'))
        windows = self._tensors('attn.relative_position_bias_table')
        return next((len(table) for table in tables), None) or next((table.shape[1] for table in windows), None)

    def num_groups(self) -> int | None:
        kernels = self._tensors('attn.conv_offset.0.weight')
        return next((self.width // len(kernel) for kernel in kernels if self.width), None)

    def offset_kernel(self) -> int | None:
        return next((kernel.shape[-1] for kernel in self._tensors('attn.conv_offset.0.weight')), None)

    def window_size(self) -> int | None:
        sides = [table.shape[-1] for table in self._tensors('attn.rpb')]
        sides += [round(len(table) ** 0.5) for table in self._tensors('attn.relative_position_bias_table')]
        return (sides[0] + 1) // 2 if sides else None

    def img_size(self) -> int | None:
        tables = self._tensors('attn.rpe_table.weight')
        return next(((table.shape[-1] + 1) // 2 * 4 * 2**self.stage for table in tables), None)

    def _tensors(self, rest: str) -> Iterator[Tensor]:
        names = (f'stages.{self.stage}.{b}.{rest}' for b in range(len(self.letters)))
        return (self.weights[name] for name in names if name in self.weights)

    def _letter(self, b: int) -> str:
        prefix = f'stages.{self.stage}.{b}.attn.'
        return next((letter for name, letter in _LETTERS.items() if prefix + name in self.weights), '?')


def _agree(found: Any, known: Any) -> bool:
    """Return True if a found value is None or the known one, per stage."""
    if isinstance(found, tuple):
        return all(_agree(*pair) for pair in zip(found, known, strict=True))
    return found is None or found == known


def _fill(found: Any, default: Any) -> Any:
    if isinstance(found, tuple):
        return tuple(_fill(*pair) for pair in zip(found, default, strict=True))
    return default if found is None else found
