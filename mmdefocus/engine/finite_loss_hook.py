"""Stops a training whose loss is not finite, and says where that began."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop at a loss that is not finite, before the optimiser uses it, and name the first module that produced it.

    In normal running it costs one look at the loss per iteration. When that is infinite or NaN, the same batch runs
    through the model once more, with the same random numbers and a look at every module.

    Raises:
        RuntimeError: In training, at such a loss. The message names the iteration, the losses, the module whose inputs
            are finite and whose output is not, its parameters if they are not finite, and remedies.
    """

    def before_train(self, runner: Runner) -> None:
        """Begin to look at the losses of the model."""
        self._runner = runner
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # A hook of the runner would see the loss after the step of the optimiser, with the weights already lost.
        self._handles = [
            model.register_forward_pre_hook(self._remember_random_state),
            model.register_forward_hook(self._check, with_kwargs=True),
        ]

    def after_train(self, runner: Runner) -> None:
        """Stop looking."""
        for handle in self._handles:
            handle.remove()

    def _remember_random_state(self, *_: Any) -> None:
        self._cpu_state = torch.get_rng_state()
        self._cuda_state = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def _check(self, model: BaseModel, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if kwargs.get('mode') != 'loss':
            return
        total, losses = model.parse_losses(output)
        if total.isfinite():
            return
        torch.set_rng_state(self._cpu_state)
        if self._cuda_state is not None:
            torch.cuda.set_rng_state(self._cuda_state)
        # The losses are left out: those of a distributed detector wait for the other processes.
        origin = _first_non_finite(model, args, kwargs | {'mode': 'tensor'})
        values = ', '.join(f'{name}={value.item():g}' for name, value in losses.items() if 'loss' in name)
        raise RuntimeError(
            f'the loss of iteration {self._runner.iter} is not finite ({values}). {origin}. Lower the learning rate or '
            'lengthen its warm-up, clip gradients (optim_wrapper.clip_grad), train in float32 '
            "(optim_wrapper.type='OptimWrapper'), or look at the images and labels of this batch"
        )


@torch.no_grad()
def _first_non_finite(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str:
    """Sentence about where the first value that is not finite comes from, without the final stop."""
    running: list[tuple[str, bool]] = []  # name and whether the inputs are finite, outermost module first
    origins: list[str] = []

    def enter(name: str, *inputs: Any) -> None:
        running.append((name, _is_finite(inputs)))

    def leave(name: str, output: Any) -> None:
        if not origins and not _is_finite(output):
            # A module that was given such values is innocent; what called it then made them between its modules.
            origins.append(next((name for name, finite in reversed(running) if finite), 'inputs'))
        running.pop()

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda _, *inputs, name=name: enter(name, *inputs), with_kwargs=True),
            module.register_forward_hook(lambda _, inputs, output, name=name: leave(name, output)),
        ]
    failure = None
    try:
        model(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError) as error:  # the model has no such mode, or refuses such values
        failure = error
    finally:
        for handle in handles:
            handle.remove()

    broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if failure is not None and not origins:
        where = f'Where it began is not known: a second look at the model failed ({type(failure).__name__}: {failure})'
    elif not origins:
        where = 'All outputs of modules are finite, the loss itself is not'
    elif origins == ['inputs']:
        where = 'The images of the batch are not finite'
    else:
        (name,) = origins
        kind = type(model.get_submodule(name)).__name__
        where = f'The first module with finite inputs and an output that is not is {name or "the model"} ({kind})'
        broken.sort(key=lambda parameter: not parameter.startswith(f'{name}.'))
    if broken:
        where += f'; {len(broken)} parameters are not finite since an earlier step, among them {broken[0]}'
    return where


def _is_finite(value: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
