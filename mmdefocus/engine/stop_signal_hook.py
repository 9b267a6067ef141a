"""Save and end a training at SIGTERM, which schedulers of clusters send, and at SIGINT (Ctrl-C)."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .checkpoint_hook import DefocusCheckpointHook

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def catch_stop_signals(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install a handler for the signals that stop a training, except where they are ignored, as by ``nohup``.

    Args:
        handler: Function of the number of the signal and the interrupted frame.

    Returns:
        The former handlers by signal; none outside the main thread, which alone may install handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    caught = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in caught}


@HOOKS.register_module()
class DefocusStopSignalHook(Hook):
    """At SIGTERM or SIGINT, save a checkpoint after the current step of the optimiser and end the process.

    The checkpoint, ``iter_N.pth``, is that of :meth:`DefocusCheckpointHook.save_now`. At the end of an epoch, and
    during a validation, the checkpoint of the epoch is used if there is one. Before the first iteration nothing is
    saved. The process ends with the status 128 + signal. A second SIGINT ends it at once.

    If one of several processes receives the signal, all stop after the same step: they exchange one number per step. In
    a validation, every process must receive it; torchrun, Slurm and Ctrl-C signal all.

    Args:
        resume_command: Command that the message recommends to continue the training.

    Raises:
        SystemExit: With the status, after saving.
    """

    priority = 'LOWEST'  # after the checkpoint hook
    _received = 0
    _agreed = 0
    _is_started = False

    def __init__(self, resume_command: str = 'the same command with --resume') -> None:
        self.resume_command = resume_command

    def before_train(self, runner: Runner) -> None:
        """Find the hook that saves, and begin to listen to the signals."""
        self._runner = runner
        self._saver = next((hook for hook in runner.hooks if isinstance(hook, DefocusCheckpointHook)), None)
        if self._saver is None:
            runner.logger.warning(
                'This run has no DefocusCheckpointHook: SIGTERM and Ctrl-C will not save, and a process that is killed '
                "while it writes can lose its checkpoints. Set default_hooks.checkpoint.type='DefocusCheckpointHook', "
                "which takes the arguments of MMEngine's CheckpointHook"
            )
        self._process = os.getpid()
        self._former = catch_stop_signals(self._receive)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Note that there is something to save from now on."""
        self._is_started = True

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Stop if a process was asked to; between two steps of the optimiser, accumulated gradients would be lost."""
        if not _is_after_step(runner):
            return
        self._agreed = _largest(self._received)
        is_saved = self._saver is not None and self._saver.saved_iter == runner.iter + 1
        if self._agreed and (is_saved or not self.end_of_epoch(runner.train_dataloader, batch_idx)):
            self._stop(self._agreed, runner.iter + 1, ended_epoch=False)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop, unless the training is complete."""
        if self._agreed and runner.iter < runner.max_iters:
            self._stop(self._agreed, runner.iter, ended_epoch=True)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: list | None = None
    ) -> None:
        """Stop if the training was saved just before the validation; otherwise after the next step."""
        if self._received and (self._saver is None or self._saver.saved_iter == runner.iter):
            self._stop(self._received, runner.iter, ended_epoch=True)

    def after_train(self, runner: Runner) -> None:
        """Leave the signals to those who had them."""
        for number, former in self._former.items():
            signal.signal(number, former)
        del self._runner

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = self._received or number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if os.getpid() != self._process:
            # A worker of the data loader has these handlers too, and Ctrl-C reaches it. It continues until its parent
            # stops, which may insist.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        elif not self._is_started:
            name = signal.Signals(number).name
            self._runner.logger.warning(f'Stopped by {name} before the first iteration; nothing was saved')
            raise SystemExit(128 + number)

    def _stop(self, number: int, iteration: int, ended_epoch: bool) -> None:
        name = signal.Signals(number).name
        begin = f'Stopped by {name} after iteration {iteration} of {self._runner.max_iters}'
        if self._saver is None:
            state = 'without saving'
        elif self._saver.saved_iter == iteration:
            state = f'which {self._saver.last_ckpt} holds'
        else:
            state = f'saved to {self._saver.save_now(self._runner, ended_epoch)}'
        self._runner.logger.warning(f'{begin}, {state}. To continue: {self.resume_command}')
        raise SystemExit(128 + number)


def _is_after_step(runner: Runner) -> bool:
    wrapper = runner.optim_wrapper
    wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(one.should_update() for one in wrappers)


def _largest(number: int) -> int:
    if get_world_size() == 1:
        return number
    numbers = torch.tensor(number)
    all_reduce(numbers, 'max')
    return int(numbers)
