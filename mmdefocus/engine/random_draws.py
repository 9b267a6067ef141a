"""Random numbers of a training step, to use them again in another floating-point type.

A generator in the same state gives other numbers in float64 than in float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_DRAWS = {'bernoulli', 'exponential', 'multinomial', 'normal', 'rand', 'randint', 'randn', 'random', 'uniform'}
_DRAWS |= {'rand_like', 'randint_like', 'randn_like', 'randperm', 'normal_functional', 'geometric', 'cauchy'}
_DROPOUT = 'native_dropout'


class RandomDraws:
    """Calls operators; records the results of those that draw random numbers, or repeats recorded ones."""

    def __init__(self) -> None:
        self._draws: list[tuple[str, Tensor]] = []
        self._next: int | None = None

    def again(self) -> 'RandomDraws':
        """Return draws that repeat the recorded ones from the beginning."""
        draws = RandomDraws()
        draws._draws, draws._next = self._draws, 0
        return draws

    def call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call an operator of PyTorch."""
        name = function._schema.name.removeprefix('aten::').removesuffix('_')
        if name not in _DRAWS and name != _DROPOUT:
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        drawn = result[1] if name == _DROPOUT else tree_leaves(result)[0]
        if self._next is None:
            self._draws.append((name, drawn.detach().cpu().clone()))
            return result
        recorded_name, recorded = self._draws[self._next] if self._next < len(self._draws) else ('', drawn)
        self._next += 1
        if recorded_name != name or recorded.shape != drawn.shape:
            return result  # another path through the model
        drawn.copy_(recorded)
        if name == _DROPOUT:
            probability = args[1]
            scale = 0.0 if probability == 1 else 1 / (1 - probability)
            result = (torch.where(drawn, args[0] * scale, 0.0).to(args[0].dtype), drawn)
        return result
