"""Repeat a captured training step, and find the operator that makes its first non-finite value."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.engine.errors import SetupError
from mmdefocus.engine.magnitudes import Magnitudes
from mmdefocus.engine.non_finite_modules import origin_of_gradients
from mmdefocus.engine.non_finite_origin import OperatorKey, Origin, Summaries
from mmdefocus.engine.operator_watch import ModuleCall, OperatorWatch
from mmdefocus.engine.plain_batch import from_plain
from mmdefocus.engine.random_draws import RandomDraws
from mmdefocus.engine.random_state import random_state, restore_random_state
from mmdefocus.engine.step_capture import read_capture
from mmdefocus.engine.training_step import autocast_as
from mmdefocus.models.checkpoint import CheckpointError

from .errors import UsageError
from .replay_model import build_captured_model, load_captured_state, numeric_settings_of, use_checkpoint
from .replay_types import FloatsAs

TYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Run:
    """One repetition of the step.

    Attributes:
        name: Floating-point type: ``float32``, ``float64``, or of autocast, such as ``bfloat16``.
        is_original: The step ran as it did in the training.
        losses: Losses by name.
        error: Error that ended the step, or None.
        origin: Origin of the first non-finite value, or None if loss and gradients are finite.
        calls: Calls of modules in the order of their beginning.
        operator: Inputs and output of the operator that made the first non-finite value in the original type.
    """

    name: str
    is_original: bool
    losses: dict[str, float]
    error: str | None
    origin: Origin | None
    calls: Sequence[ModuleCall]
    operator: tuple[Summaries, Magnitudes] | None

    @property
    def is_finite(self) -> bool:
        """Return True if the step ran to its end with finite loss and gradients."""
        return self.error is None and self.origin is None


@dataclass(frozen=True)
class Replay:
    """Repetitions of a step: the original first, then those in float32 and float64 that differ from it.

    Attributes:
        capture: Content of the file.
        runs: Repetitions.
        images: Files of the images with the largest magnitude of their pixels.
        device: Device of the repetitions.
    """

    capture: dict[str, Any]
    runs: Sequence[Run]
    images: Sequence[tuple[str, float]]
    device: str

    @property
    def original(self) -> Run:
        """The repetition as in the training."""
        return self.runs[0]

    @property
    def different_losses(self) -> list[str]:
        """Names of the losses that differ from the recorded ones; NaN equals NaN."""
        recorded = {name: value.item() for name, value in self.capture['losses'].items()}
        losses = self.original.losses
        return [name for name, value in recorded.items() if not _equal(value, losses.get(name))]


def replay_step(
    path: str | Path, device: str | None = None, import_code: bool = False, checkpoint: str | Path | None = None
) -> Replay:
    """Repeat a captured step in its original type, in float32 and in float64.

    Args:
        path: File of :class:`~mmdefocus.engine.DefocusFiniteLossHook`.
        device: Device; by default that of the training if this machine has one of its kind, else the CPU.
        import_code: Import the modules that the captured config names.
        checkpoint: Checkpoint whose weights replace the captured ones.

    Returns:
        The repetitions.

    Raises:
        UsageError: The step cannot be repeated.
    """
    try:
        capture = read_capture(Path(path))
    except SetupError as error:
        raise UsageError(str(error)) from error
    if capture['batch'] is None or (capture['model'] is None and checkpoint is None):
        left_out = ' and '.join(capture['left_out'])
        remedy = (
            'give a checkpoint of the training with --checkpoint'
            if capture['batch'] is not None
            else ('raise max_capture_bytes of DefocusFiniteLossHook in the next training')
        )
        raise UsageError(f"'{path}' was saved without {left_out}, which was too large; {remedy}")
    place = _device(capture, device)
    state = random_state()
    try:
        model = build_captured_model(capture, import_code).to(place)
        try:
            if checkpoint is not None:
                use_checkpoint(model, capture, checkpoint)
            batch = from_plain(capture['batch'], place)
        except (ValueError, CheckpointError) as error:
            raise UsageError(str(error)) from error
        with numeric_settings_of(capture):
            original, draws = _run(model, capture, batch, None, place)
            if original.error is not None and original.origin is None:
                raise UsageError(f'the step ends with an error that non-finite values do not explain: {original.error}')
            runs = [original]
            key = None if original.origin is None else original.origin.key
            for dtype in TYPES:
                if _name(dtype) != original.name:
                    runs.append(_run(model, capture, batch, dtype, place, draws, key)[0])
    finally:
        restore_random_state(state)
    return Replay(capture, runs, _images(capture, batch), str(place))


def _run(
    model: Any,
    capture: dict[str, Any],
    batch: dict[str, Any],
    dtype: torch.dtype | None,
    device: torch.device,
    draws: RandomDraws | None = None,
    key: OperatorKey | None = None,
) -> tuple[Run, RandomDraws]:
    load_captured_state(model, capture)
    name = next(iter(capture['autocast'].values()), _parameter_type(model)) if dtype is None else _name(dtype)
    if dtype is not None:
        model.to(dtype)
    model.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = {}
    error = origin = None
    restore_random_state(capture['random'])
    watch = OperatorWatch(model, batch, draws, key)
    with ExitStack() as stack:
        if dtype is None:
            stack.enter_context(autocast_as(_autocast_on(device, capture)))
        else:
            stack.enter_context(FloatsAs(dtype, device))
        stack.enter_context(watch)
        try:
            output = model(*batch['args'], **batch['kwargs'])
            total, losses = model.parse_losses(output)
            origin = watch.origin_of(total)
            if origin is None:
                stack.enter_context(autocast_as({}))
                (total / capture['loss_divisor'] * capture['loss_scale']).backward()
                origin = origin_of_gradients(model, watch)
        except Exception as problem:  # noqa: BLE001  # such as that of a matching with NaN costs
            error, origin = f'{type(problem).__name__}: {problem}', watch.latest
    values = {name: float(value.detach()) for name, value in losses.items()}
    return Run(name, dtype is None, values, error, origin, watch.calls, watch.seen), watch.draws


def _device(capture: dict[str, Any], name: str | None) -> torch.device:
    kind = torch.device(capture['device']).type
    if name is None:
        return torch.device('cuda' if kind == 'cuda' and torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device takes cpu, cuda or cuda:1, got '{name}'") from error
    if device.type not in ('cpu', 'cuda') or (device.type == 'cuda' and not torch.cuda.is_available()):
        raise UsageError(f'--device {name}: PyTorch finds no such device here')
    return device


def _autocast_on(device: torch.device, capture: dict[str, Any]) -> dict[str, str]:
    """Return the autocast types of the training, for a step that moves from its device to another."""
    kind = torch.device(capture['device']).type
    return {device.type if name == kind else name: dtype for name, dtype in capture['autocast'].items()}


def _images(capture: dict[str, Any], batch: dict[str, Any]) -> list[tuple[str, float]]:
    images = batch['kwargs'].get('inputs', batch['args'][0] if batch['args'] else ())
    if not isinstance(images, (Tensor, list, tuple)) or len(images) != len(capture['images']):
        images = [torch.full((1,), torch.nan)] * len(capture['images'])
    return [(name, float(image.abs().max())) for name, image in zip(capture['images'], images, strict=True)]


def _parameter_type(model: nn.Module) -> str:
    return _name(next(x.dtype for x in model.parameters()))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _equal(first: float, second: float | None) -> bool:
    return first == second or (first != first and second is not None and second != second)
