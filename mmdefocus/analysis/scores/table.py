"""The scores of a network as a table.

Shapes: I images, K heads or groups of channels.
"""

import json
import math
from dataclasses import asdict, dataclass, field

from torch import Tensor

from ..errors import AnalysisError
from .registry import SCORES

JSON_VERSION = 1


@dataclass
class ScoreTable:
    """Scores of the layers of a network, per image and head.

    Attributes:
        network: Name of the network.
        layers: Indices of the layers, from 0.
        layer_names: Names of their modules.
        values: By score, one tensor (I, K) per layer, float32 on the CPU; K is 1 for scores without heads. NaN where a
            score does not exist.
        sinks: Per layer, the position in the sequence of the most attended token, (I, K), int64; None without
            attention. It is a sink where ``sink_rate`` is 1.
        notes: What could not be computed, and why.
    """

    network: str
    layers: list[int]
    layer_names: list[str]
    values: dict[str, list[Tensor]]
    sinks: list[Tensor | None]
    notes: list[str] = field(default_factory=list)

    def mean_std(self, name: str, layer: int) -> tuple[float, float]:
        """Return mean and standard deviation over the images of a score that is averaged over the heads.

        Heads and images without the score are left out. The deviation is NaN for fewer than two images.

        Args:
            name: Name of the score.
            layer: Index of the layer.

        Raises:
            AnalysisError: The table does not have the score or the layer.
        """
        if name not in self.values or layer not in self.layers:
            raise AnalysisError(
                f'expected one of the layers {self.layers} and of the scores {", ".join(self.values)}, got layer '
                f'{layer} and {name!r}'
            )
        return _mean_std(self.values[name][self.layers.index(layer)].nanmean(1))

    def to_json(self) -> str:
        """Return everything as JSON; NaN is null.

        ``scores`` has, for every score, its formula and, for every layer, the ``values`` of every image and head, and
        ``mean`` and ``std`` over the images: a list over the heads, and ``all_heads`` for the mean of the heads.
        """
        content = {
            'version': JSON_VERSION,
            'network': self.network,
            'layers': self.layers,
            'layer_names': self.layer_names,
            'scores': {
                name: {
                    **_description(name),
                    'layers': [self._layer_json(name, row) for row in range(len(self.layers))],
                }
                for name in self.values
            },
            'sinks': [None if sinks is None else sinks.tolist() for sinks in self.sinks],
            'notes': self.notes,
        }
        return json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1)

    def to_markdown(self) -> str:
        """Return a table with layers as rows and the scores that exist as columns: mean ± deviation over the images."""
        names = [name for name, values in self.values.items() if any(value.isfinite().any() for value in values)]
        lines = [
            ' | '.join(('layer', *(SCORES[name].title for name in names))),
            ' | '.join(('--:',) * (1 + len(names))),
            *(
                ' | '.join((str(layer), *(_cell(*self.mean_std(name, layer)) for name in names)))
                for layer in self.layers
            ),
        ]
        return '\n'.join([*(f'| {line} |' for line in lines), *(f'\n{note}' for note in self.notes)]) + '\n'

    def _layer_json(self, name: str, row: int) -> dict[str, object]:
        values = self.values[name][row]
        heads = [_mean_std(column) for column in values.T]
        mean, std = self.mean_std(name, self.layers[row])
        return {
            'values': [[_number(value) for value in image] for image in values.tolist()],
            'mean': [_number(mean) for mean, _ in heads],
            'std': [_number(std) for _, std in heads],
            'all_heads': {'mean': _number(mean), 'std': _number(std)},
        }


def _mean_std(values: Tensor) -> tuple[float, float]:
    values = values[~values.isnan()]
    std = values.std().item() if len(values) > 1 else math.nan
    return values.mean().item(), std


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _description(name: str) -> dict[str, object]:
    fields = asdict(SCORES[name])
    high = fields['high']
    return fields | {'high': _number(high)}


def _cell(mean: float, std: float) -> str:
    if math.isnan(mean):
        return '-'
    return f'{mean:.3f}' if math.isnan(std) else f'{mean:.3f} ± {std:.3f}'
