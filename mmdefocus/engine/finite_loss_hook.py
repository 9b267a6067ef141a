"""Stop at a loss or a gradient that is not finite, locate its origin and save the step."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from .gradient_check import UNSCALED, GradientCheck
from .non_finite_modules import first_non_finite_gradient, first_non_finite_output
from .step_capture import capture_step, write_capture
from .training_step import TrainingStep, as_it_began, begin_step

REMEDIES = (
    'Lower the learning rate or lengthen its warm-up, clip gradients (optim_wrapper.clip_grad), train in float32 '
    "(optim_wrapper.type='OptimWrapper'), or inspect the images and labels of this batch"
)


@HOOKS.register_module()
class DefocusFiniteLossHook(Hook):
    """Stop at a loss or a gradient that is not finite, before the optimiser uses it, and save the step.

    The hook normally costs one check of the loss per iteration, and one of the gradients per optimiser step, which uses
    the norm of gradient clipping where there is one. If the loss is infinite or NaN, or an error interrupts its
    computation (as in DINO's matching), the same batch runs through the model again, with the same random numbers and
    a check of every module; for a gradient, with a check of every operator. An error without non-finite values in
    modules or parameters is raised unchanged.

    With a gradient scaler (``AmpOptimWrapper``), which skips steps with non-finite gradients and lowers its scale, such
    a gradient is an error only at a scale of at most 1. With accumulated gradients, the micro-batch that made
    the first non-finite one is reported, when the optimiser step is due.

    The model, the micro-batch and the random states are written to
    ``<work_dir>/non_finite/iter_<iteration>_rank_<rank>.pt``, once per process; ``tools/replay.py`` repeats the step
    (docs/nonfinite.md).

    Args:
        max_capture_bytes: Limit for the micro-batch and the model in the file. What does not fit is left out: the model
            first. With 0 there is no file.

    Raises:
        RuntimeError: In training, for such a loss or gradient. The message names the iteration, the losses or the
            error, the module whose inputs are finite and whose output is not, its parameters if they are not finite,
            remedies, and the file or the reason why it could not be written.
        ValueError: ``max_capture_bytes`` is negative.
    """

    def __init__(self, max_capture_bytes: int = 2 * 2**30) -> None:
        if max_capture_bytes < 0:
            raise ValueError(f'max_capture_bytes must not be negative, got {max_capture_bytes}')
        self.max_capture_bytes = max_capture_bytes

    def before_train(self, runner: Runner) -> None:
        """Start to check the losses and the gradients of the model."""
        self._runner = runner
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._is_tracing = False
        self._own_forward = vars(self._model).get('forward')
        self._forward = self._model.forward
        self._step: TrainingStep | None = None
        self._suspect: TrainingStep | None = None  # the first micro-batch with a non-finite gradient
        wrapper = runner.optim_wrapper
        self._wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self._checks = [GradientCheck(wrapper, self._stop_at_gradient) for wrapper in self._wrappers]
        # A hook of the runner would see the loss after the optimiser step, which has destroyed the weights by then; a
        # hook of the module would not see errors.
        self._model.forward = self._checked_forward

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Release the batch, unless the check of its gradients is pending."""
        if all(check.unread is None for check in self._checks):
            self._step = None

    def after_train(self, runner: Runner) -> None:
        """Restore the methods of the model and of the optimiser wrapper."""
        del self._model.forward
        if self._own_forward is not None:
            self._model.forward = self._own_forward
        for check in self._checks:
            check.remove()

    def _checked_forward(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get('mode') != 'loss' or self._is_tracing:
            return self._forward(*args, **kwargs)
        runner = self._runner
        step = begin_step(self._model, self._wrappers[0], args, kwargs, runner.iter, runner.epoch)
        previous, self._step = self._step, step
        try:
            output = self._forward(*args, **kwargs)
        except Exception as error:
            found = False
            with suppress(RuntimeError):  # after some errors a GPU is unusable
                found, origin = self._trace(step)
            if not found:
                raise
            problem = f'cannot be computed ({type(error).__name__}: {error})'
            self._stop(step, 'error', f'the loss of iteration {step.iteration} {problem}. {origin}', error)
        total, losses = self._model.parse_losses(output)
        step.losses = {name: value.detach() for name, value in losses.items()}
        if not self._read_checks(total, step, previous):
            _, origin = self._trace(step)
            self._stop(step, 'loss', f'the loss of iteration {step.iteration} is not finite {_values(step)}. {origin}')
        return output

    def _read_checks(self, total: Tensor, step: TrainingStep, previous: TrainingStep | None) -> bool:
        """Return True if the loss is finite; read the pending checks with it, so that a GPU is waited for once."""
        pending = [check for check in self._checks if check.unread is not None]
        gradients = [check.unread.isfinite() for check in pending if check.unread is not None]
        values = [total.isfinite(), *gradients, *([] if step.loss_scale is None else [step.loss_scale])]
        finite, *rest = torch.stack([value.detach().float() for value in values]).tolist()
        for check, is_finite in zip(pending, rest, strict=False):
            check.unread = None
            if not is_finite and self._suspect is None:
                self._suspect = previous
        if step.loss_scale is not None:
            self._checks[0].is_unscaled = rest[-1] <= UNSCALED
        return bool(finite)

    def _trace(self, step: TrainingStep) -> tuple[bool, str]:
        # The losses of a distributed detector wait for the other processes, which do not repeat the batch.
        mode = 'loss' if get_world_size() == 1 else 'tensor'
        self._is_tracing = True
        try:
            with as_it_began(self._model, step):
                return first_non_finite_output(self._model, step.args, step.kwargs | {'mode': mode})
        finally:
            self._is_tracing = False

    def _stop_at_gradient(self) -> NoReturn:
        """Stop in all processes: they share the gradients of parallel models, and come here together."""
        step = self._suspect or self._step
        assert step is not None
        scale = 1.0 if step.loss_scale is None else float(step.loss_scale)
        self._is_tracing = True
        try:
            with as_it_began(self._model, step):
                found, origin = first_non_finite_gradient(self._model, step.args, step.kwargs, step.loss_divisor, scale)
        except Exception as error:  # noqa: BLE001  # the search must not hide what it was for
            found, origin = False, f'Its origin is unknown: a second run failed ({type(error).__name__}: {error})'
        finally:
            self._is_tracing = False
        ranks = [rank for rank, own in enumerate(all_gather_object(found)) if own]
        message = f'the gradient of iteration {step.iteration} is not finite {_values(step)}. '
        if ranks and not found:
            message += f'The micro-batch of this process gives finite gradients, that of rank {ranks[0]} does not'
            capture = f'Rank {ranks[0]} saves its step'
        else:
            message += origin
            capture = self._capture(step, 'gradient', message)
        all_gather_object(None)  # the launcher ends all processes when one ends: wait for the files
        raise RuntimeError(f'{message}. {REMEDIES}. {capture}')

    def _stop(self, step: TrainingStep, problem: str, message: str, error: Exception | None = None) -> NoReturn:
        raise RuntimeError(f'{message}. {REMEDIES}. {self._capture(step, problem, message)}') from error

    def _capture(self, step: TrainingStep, problem: str, message: str) -> str:
        """Write the capture and return a sentence about it, without its full stop."""
        if self.max_capture_bytes == 0:
            return 'The step is not saved: max_capture_bytes=0'
        rank = get_rank()
        path = Path(self._runner.work_dir) / 'non_finite' / f'iter_{step.iteration}_rank_{rank}.pt'
        facts = dict(problem=problem, message=message, rank=rank, world_size=get_world_size())
        try:
            content, left_out = capture_step(self._model, self._runner.cfg, step, self.max_capture_bytes, **facts)
            write_capture(content, path)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not hide the message
            return f'The step could not be saved to {path} ({type(error).__name__}: {error})'
        if left_out:
            limit = f'max_capture_bytes={self.max_capture_bytes:,}'
            return f'The step is saved to {path} without {" and ".join(left_out)}, which exceed {limit}'
        return f'"python tools/replay.py {path}" repeats this step operator by operator'


def _values(step: TrainingStep) -> str:
    values = [f'{name}={value.item():g}' for name, value in step.losses.items() if 'loss' in name]
    return f'({", ".join(values)})'
