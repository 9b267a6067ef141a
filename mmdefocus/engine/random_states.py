"""States of the random number generators of all processes, to continue a training in the middle of an epoch."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank
from torch import Tensor

State = dict[str, Any]


def gather_random_states() -> list[State]:
    """Return the states of the generators of every process, by rank.

    All processes must call it. The states hold tensors and plain Python values only, so that a checkpoint with them can
    be read without running code.
    """
    return all_gather_object(random_state())


def restore_random_states(states: list[State]) -> None:
    """Set the generators of this process to the state of its rank."""
    restore_random_state(states[get_rank()])


def random_state() -> State:
    """Return the state of the generators of this process. A GPU is not waited for."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return dict(
        python=random.getstate(),
        numpy=[name, torch.from_numpy(np.array(keys)), *rest],
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
