"""Saving of checkpoints that loses none when the process is killed or the disk is full."""

import os.path as osp
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import FileClient, HardDiskBackend, LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .safe_writing import BACKEND, SavingError, check_writable, remove_unfinished, write_safely

_INTERRUPTIONS = 'interruption_ckpts'


@HOOKS.register_module()
class DefocusCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with all its arguments, which removes a checkpoint after its successor is safe.

    On local and network file systems, a checkpoint goes to a temporary file, to the disk, to its name, and its SHA-256
    to ``NAME.pth.sha256``. Then ``last_checkpoint`` is written, and only then are the checkpoints beyond
    ``max_keep_ckpts``, or the former best one, removed. MMEngine removes first and writes in place. With another
    storage backend (``backend_args``), the order is the same and the backend writes the file.

    Raises:
        SavingError: In all processes, if the main process cannot write; the former files are unchanged.

    Attributes:
        saved_iter: Number of iterations in the newest checkpoint of this run with the state of the training, or None.
    """

    file_client_args: dict[str, Any] | None
    backend_args: dict[str, Any] | None
    keep_ckpt_ids: deque[int]
    saved_iter: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Choose the backend, remove what a killed run left unfinished, and check that the directory is writable."""
        directory = self.out_dir or runner.work_dir
        if self.file_client_args is None:
            backend = get_file_backend(directory, backend_args=self.backend_args)
        else:
            backend = FileClient.infer_client(self.file_client_args, directory).client
        is_local = type(backend) in (LocalBackend, HardDiskBackend)  # A subclass may do anything.
        if is_local:
            self.file_client_args, self.backend_args = None, dict(backend=BACKEND)
        super().before_train(runner)
        with _failing_together():
            if is_local and is_main_process():
                check_writable(self.out_dir)
                names = sorted({*remove_unfinished(self.out_dir), *remove_unfinished(runner.work_dir)})
                if names:
                    runner.logger.info(f'Removed files that were not written completely: {", ".join(names)}')

    def save_now(self, runner: Runner, ended_epoch: bool = False) -> str:
        """Save an interrupted training as ``iter_N.pth``. All processes must call it.

        The next checkpoint of this training, regular or not, replaces the file.

        Args:
            runner: Runner after a step of the optimiser, in ``after_train_iter`` or, with ``ended_epoch``, in
                ``after_train_epoch``.
            ended_epoch: The epoch is complete.

        Returns:
            Path of the file.

        Raises:
            SavingError: It could not be written.
        """
        if ended_epoch:
            meta = dict(epoch=runner.epoch + 1, iter=runner.iter)
        else:
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        name = f'iter_{meta["iter"]}.pth'
        former = runner.message_hub.get_info(_INTERRUPTIONS) or []
        runner.message_hub.update_info(_INTERRUPTIONS, [*former, name])
        path = self._save_training(runner, name, meta)
        self._remove(former, keep=name)
        return path

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        hub, name = runner.message_hub, self.filename_tmpl.format(step)
        kept: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [*(number for number in self.keep_ckpt_ids if number != step), step]
            # With the numbers that are about to be removed: if this process is killed before, the resumed one does it.
            hub.update_info('keep_ckpt_ids', kept)
        self._save_training(runner, name, meta)
        interruptions = hub.get_info(_INTERRUPTIONS) or []
        if interruptions:
            self._remove(interruptions, keep=name)
            hub.update_info(_INTERRUPTIONS, [])
        if self.max_keep_ckpts > 0:
            self._remove([self.filename_tmpl.format(number) for number in kept[: -self.max_keep_ckpts]], keep=name)
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_training(self, runner: Runner, name: str, meta: dict[str, Any]) -> str:
        path = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', path)
        with _failing_together():
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_safely(osp.join(runner.work_dir, 'last_checkpoint'), path.encode())
        self.last_ckpt, self.saved_iter = path, meta['iter']
        return path

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        count, unit = (runner.epoch, 'epoch') if self.by_epoch else (runner.iter, 'iter')
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        hub, former = runner.message_hub, []
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            suffix = '' if len(self.key_indicators) == 1 else f'_{key}'
            best = hub.get_info(f'best_score{suffix}', self.init_value_map[rule])
            score = metrics[key]
            if score is None or not self.is_better_than[key](score, best):
                continue
            name = f'best_{key}_{self.filename_tmpl.format(count)}'.replace('/', '_')
            path = self.file_backend.join_path(self.out_dir, name)
            former.append((self._best_path(key), path))
            hub.update_info(f'best_score{suffix}', score)
            hub.update_info(f'best_ckpt{suffix}', path)
            self._set_best_path(key, path)
            with _failing_together():
                runner.save_checkpoint(
                    self.out_dir,
                    filename=name,
                    file_client_args=self.file_client_args,
                    save_optimizer=False,
                    save_param_scheduler=False,
                    meta=dict(meta),
                    by_epoch=False,
                    backend_args=self.backend_args,
                )
            runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {count} {unit} is saved to {name}.')
        # The checkpoint of this epoch was saved before the validation, and names the former best one.
        if former and self.last_ckpt is not None:
            self._save_checkpoint_with_step(runner, count, meta)
        for old, new in former:
            if old is not None and old != new:
                self._remove_path(old)

    def _best_path(self, key: str) -> str | None:
        return self.best_ckpt_path if len(self.key_indicators) == 1 else self.best_ckpt_path_dict[key]

    def _set_best_path(self, key: str, path: str) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _remove(self, names: Iterable[str], keep: str) -> None:
        for name in names:
            if name != keep:
                self._remove_path(self.file_backend.join_path(self.out_dir, name))

    def _remove_path(self, path: str) -> None:
        if not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as DeepSpeed writes
            self.file_backend.rmtree(path)


@contextmanager
def _failing_together() -> Iterator[None]:
    """Raise an error of the main process in all: the others would wait for it in their next collective."""
    error: Exception | None = None
    try:
        yield
    except Exception as raised:  # noqa: BLE001
        error = raised
    messages = [error and (str(error) or repr(error))]
    broadcast_object_list(messages)
    if error is not None:
        raise error
    if messages[0] is not None:
        raise SavingError(messages[0])
