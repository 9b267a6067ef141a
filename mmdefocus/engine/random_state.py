"""State of the random number generators of a process, to repeat a training step."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = dict[str, Any]


def random_state() -> State:
    """Return the state of the generators of this process, as tensors and plain Python values.

    A GPU is not waited for.
    """
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return dict(
        python=random.getstate(),
        numpy=[name, torch.from_numpy(np.array(keys, np.int64)), *rest],
        torch=torch.get_rng_state(),
        cuda=_cuda_state(),
    )


def restore_random_state(state: State) -> None:
    """Set the generators of this process to a state of :func:`random_state`."""
    random.setstate(_tuples(state['python']))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002 (transforms draw from it)
    torch.set_rng_state(state['torch'])
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def _cuda_state() -> Tensor | None:
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
