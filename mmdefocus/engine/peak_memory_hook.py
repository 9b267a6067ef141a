"""Peak memory of a training, in its log."""

import resource
import sys

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_BYTES = 1 if sys.platform == 'darwin' else 1024


def peak_resident_bytes() -> int:
    """Return the largest amount of memory that this process has had, in bytes, without its worker processes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES


@HOOKS.register_module()
class DefocusPeakMemoryHook(Hook):
    """Log the peak memory of the process as ``peak_gib``, in GiB. MMEngine logs that of a GPU, and none on a CPU."""

    priority = 'NORMAL'

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        """Record the memory for the next line of the log."""
        runner.message_hub.update_scalar('train/peak_gib', peak_resident_bytes() / 2**30)
