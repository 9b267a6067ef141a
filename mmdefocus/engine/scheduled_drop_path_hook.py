"""Drop path with a rate that changes from epoch to epoch."""

from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

MODES = ('linear', 'constant')


@HOOKS.register_module()
class DefocusScheduledDropPathHook(Hook):
    """Set the drop path of the backbone's blocks before each training epoch (section 4 of the paper).

    In epoch e of T, counted from 0, the rate is min_rate + (max_rate - min_rate) · e / (T - 1), and block i of D drops
    its mixer with probability rate · i / (D - 1). The rate depends on the epoch alone, so that a resumed training
    continues the schedule. It is logged as ``drop_path_rate``. With two such hooks, the one registered last sets the
    rates: one in ``custom_hooks`` overrides that in ``default_hooks``.

    Args:
        max_rate: Rate of the last block in the last epoch.
        min_rate: Rate of the last block in the first epoch.
        mode: ``'linear'`` as above, or ``'constant'``: ``max_rate`` in all epochs.

    Raises:
        ValueError: An argument is outside its range, or, at the start of the training, the backbone has no blocks with
            drop path.
        RuntimeError: At the start of the training, if it counts iterations instead of epochs.
    """

    def __init__(self, max_rate: float, min_rate: float = 0.0, mode: str = 'linear') -> None:
        if mode not in MODES:
            raise ValueError(f'mode must be one of {list(MODES)}, got {mode!r}')
        if not 0 <= min_rate <= max_rate < 1:
            raise ValueError(f'expected 0 <= min_rate <= max_rate < 1, got min_rate={min_rate} and max_rate={max_rate}')
        self.max_rate = max_rate
        self.min_rate = min_rate
        self.mode = mode

    def rate(self, epoch: int, max_epochs: int) -> float:
        """Return the rate of the last block in an epoch, counted from 0."""
        if self.mode == 'constant':
            return self.max_rate
        return self.min_rate + (self.max_rate - self.min_rate) * epoch / max(max_epochs - 1, 1)

    def before_train(self, runner: Runner) -> None:
        """Check that the training counts epochs and that the backbone has drop path."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise RuntimeError(
                f'{type(self).__name__} counts epochs, but {type(runner.train_loop).__name__} counts iterations; set '
                "train_cfg.type='EpochBasedTrainLoop', or remove the hook and set drop_path_rate of the backbone"
            )
        self._drop_paths(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Set and log the rate of the coming epoch."""
        rate = self.rate(runner.epoch, runner.max_epochs)
        drop_paths = self._drop_paths(runner)
        for index, drop_path in enumerate(drop_paths):
            drop_path.drop_prob = rate * index / max(len(drop_paths) - 1, 1)
        runner.message_hub.update_scalar('train/drop_path_rate', rate)

    @staticmethod
    def _drop_paths(runner: Runner) -> list[DropPath]:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = getattr(model, 'backbone', None)
        drop_paths = [getattr(block, 'drop_path', None) for block in getattr(backbone, 'layers', ())]
        if not drop_paths or not all(isinstance(drop_path, DropPath) for drop_path in drop_paths):
            raise ValueError(
                'DefocusScheduledDropPathHook needs a backbone whose `layers` each have a DropPath of MMCV as '
                f'`drop_path`, such as DefocusMamba; the backbone is {type(backbone).__name__}'
            )
        return drop_paths
