"""MMEngine's loops of training with a start at any batch, to resume a training where it was interrupted."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from .numbered_batches import NumberedBatches, number_batches


@LOOPS.register_module()
class DefocusEpochBasedTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that can start in the middle of an epoch. The tools use it in place of MMEngine's.

    It does not load the batches before. A training that resumes at the end of an epoch first runs the validation that
    belongs to this epoch, unless the checkpoint was saved after it: it may not have come to its end.

    Attributes:
        first_batch: Number of the first batch of the coming epoch, other than 0 only after resuming.
        is_validated: The checkpoint was saved after the validation of its epoch.
    """

    first_batch = 0
    is_validated = False

    def start_at(self, epoch: int, iteration: int, first_batch: int, is_validated: bool) -> None:
        """Start at a batch of an epoch; epoch, iteration and batch are counted from 0."""
        self.first_batch, self.is_validated = first_batch, is_validated
        # The epochs before may have had another number of batches.
        self._max_iters = iteration - first_batch + (self._max_epochs - epoch) * len(self.dataloader)

    def run(self) -> nn.Module:
        """Train and validate."""
        self.runner.call_hook('before_train')
        if self._epoch > 0 and not self.first_batch and not self.is_validated:
            self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for one epoch, or for what remains of it."""
        logged = self.runner.message_hub.state_dict() if self.first_batch else None
        self.runner.call_hook('before_train_epoch')
        if logged is not None:  # The hooks logged the beginning of this epoch before the interruption.
            self.runner.message_hub.load_state_dict(logged)
        self.runner.model.train()
        batches = number_batches(self.dataloader)
        if batches is not None:
            batches.skip = self.first_batch
        for index, batch in enumerate(self.dataloader, self.first_batch):
            self.run_iter(index, batch)
        self.first_batch = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _validate(self) -> None:
        self._decide_current_val_interval()
        last = self._epoch == self._max_epochs
        if (
            self.runner.val_loop is not None
            and self._epoch >= self.val_begin
            and (last or self._epoch % self.val_interval == 0)
        ):
            self.runner.val_loop.run()


@LOOPS.register_module()
class DefocusIterBasedTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that can start at any iteration. The tools use it in place of MMEngine's.

    With any sampler, it does not load the batches before, and keeps the workers where MMEngine's starts new ones after
    every pass over the data set. The order of the images is the same. A resumed training first runs the validation
    that belongs to the last iteration.

    Attributes:
        first_batch: Number of the first batch, other than 0 only after resuming.
        is_validated: The checkpoint was saved after the validation of its iteration.
    """

    first_batch = 0
    is_validated = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        batches = number_batches(self.dataloader)
        if batches is not None:
            batches.endless = True
            self.dataloader_iterator = _Batches(self.dataloader, batches)

    def start_at(self, epoch: int, iteration: int, first_batch: int, is_validated: bool) -> None:
        """Start at an iteration, counted from 0; ``epoch`` has no meaning here."""
        self.first_batch, self.is_validated = first_batch, is_validated

    def run(self) -> nn.Module:
        """Train and validate."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.dataloader_iterator.skip_iter(self.first_batch)
        if self._iter > 0 and not self.is_validated:
            self._validate()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validate(self) -> None:
        self._decide_current_val_interval()
        last = self._iter == self._max_iters
        if (
            self.runner.val_loop is not None
            and self._iter >= self.val_begin
            and (last or self._iter % self.val_interval == 0)
        ):
            self.runner.val_loop.run()


class _Batches:
    """The batches of a dataloader without an end, as MMEngine's loop reads them."""

    def __init__(self, loader: DataLoader, batches: NumberedBatches) -> None:
        self._loader = loader
        self._batches = batches
        self._iterator: Iterator[Any] | None = None

    def skip_iter(self, number: int) -> None:
        self._batches.skip = number

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._loader)
        return next(self._iterator)


def with_resumable_loop(train_cfg: Any) -> Any:
    """Replace MMEngine's loops in the ``train_cfg`` of a runner by those of this module.

    Args:
        train_cfg: Config of the loop. A loop of another type is left as it is.

    Returns:
        A new config, or ``train_cfg`` itself.
    """
    if not isinstance(train_cfg, dict):
        return train_cfg
    options = dict(train_cfg)
    kind = options.pop('type', None)
    if kind is None and 'by_epoch' in options:
        kind = EpochBasedTrainLoop if options.pop('by_epoch') else IterBasedTrainLoop
    elif isinstance(kind, str):
        kind = LOOPS.get(kind)
    own = {EpochBasedTrainLoop: DefocusEpochBasedTrainLoop, IterBasedTrainLoop: DefocusIterBasedTrainLoop}.get(kind)
    return train_cfg if own is None else dict(type=own, **options)
