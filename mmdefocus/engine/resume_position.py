"""Where in its data a training was when it wrote a checkpoint, and whether another run can continue there."""

from collections.abc import Mapping
from math import gcd
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import BatchSampler

from .errors import SetupError
from .numbered_batches import number_batches
from .train_loops import DefocusEpochBasedTrainLoop, DefocusIterBasedTrainLoop

KEY = 'position'
_LOOPS = {True: 'iterations', False: 'epochs'}

Position = dict[str, Any]


def store_position(runner: Runner, checkpoint: dict[str, Any], epoch_begin: tuple[int, int]) -> None:
    """Add the position in the data to a checkpoint, as ``meta['position']``, and gradients as ``gradients``.

    Args:
        runner: Runner of the training.
        checkpoint: Checkpoint that is about to be written.
        epoch_begin: The last epoch that began, and the iteration at which it did.
    """
    meta = checkpoint['meta']
    counts = _accumulative_counts(runner)
    accumulated = 0 if counts == 1 or runner.optim_wrapper.should_update() else meta['iter'] % counts
    if _counts_iterations(runner):
        first_batch = meta['iter']
    else:  # At the end of an epoch, MMEngine saves the number of the next one.
        first_batch = meta['iter'] - epoch_begin[1] if meta['epoch'] == epoch_begin[0] else 0
    kept = {key: [getattr(part, name) for name in names] for key, (part, names) in parts_with_state(runner).items()}
    meta[KEY] = {
        **_data_of(runner),
        'first_batch': first_batch,
        'accumulated': accumulated,
        # With a new best score, MMEngine saves the checkpoint of the epoch again.
        'is_validated': runner.message_hub.get_info('loop_stage') == 'val',
        'kept': kept,
    }
    if accumulated and 'optimizer' in checkpoint and get_world_size() == 1:
        checkpoint['gradients'] = {
            name: parameter.grad.cpu()
            for name, parameter in _unwrapped(runner.model).named_parameters()
            if parameter.grad is not None
        }


def continue_at_position(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Start the loop of a training, and its accumulated gradients, where the checkpoint was written.

    Raises:
        SetupError: The checkpoint is from the middle of an epoch and the loop starts only at its beginning.
    """
    loop = runner.train_loop
    meta, position, own = checkpoint['meta'], position_of(checkpoint), _data_of(runner)
    first_batch = position.get('first_batch', 0)
    changed = [f'{key}={own[key]} instead of {position[key]}' for key in own if own[key] != position.get(key, own[key])]
    if changed:
        runner.logger.warning(f'Differs from the uninterrupted training, as it continues with {", ".join(changed)}')
    if isinstance(loop, DefocusEpochBasedTrainLoop | DefocusIterBasedTrainLoop):
        loop.start_at(meta['epoch'], meta['iter'], first_batch, position.get('is_validated', False))
        if first_batch:
            runner.logger.info(f'Omits the {first_batch} batches before the checkpoint, without loading them')
    elif first_batch:
        raise SetupError(
            f'{runner._load_from} was saved after {first_batch} batches of an epoch, and {type(loop).__name__} cannot '
            "start there: set train_cfg.type to 'DefocusEpochBasedTrainLoop' or 'DefocusIterBasedTrainLoop', or train "
            'with tools/train.py, which does so for the loops of MMEngine; or resume a checkpoint from the end of an '
            'epoch'
        )
    parameters = dict(_unwrapped(runner.model).named_parameters())
    for name, gradient in checkpoint.get('gradients', {}).items():
        parameters[name].grad = gradient.to(parameters[name].device)
    if position.get('accumulated'):
        runner.logger.info(
            f'Restored the gradients of the {position["accumulated"]} batches since the last step of the optimiser: a '
            'warning that they are lost is wrong'
        )
    for key, (part, names) in parts_with_state(runner).items():
        for name, value in zip(names, position.get('kept', {}).get(key, ()), strict=False):
            setattr(part, name, value)


def checkpoints_within_steps(runner: Runner) -> list[str]:
    """Describe the checkpoints to come that lack gradients, as several processes do not save them.

    Args:
        runner: Runner of a training.

    Returns:
        One sentence per checkpoint hook with such checkpoints.
    """
    counts = _accumulative_counts(runner)
    found = []
    for hook in runner.hooks if get_world_size() > 1 else ():
        if isinstance(hook, CheckpointHook) and hook.interval > 0:
            batches = hook.interval * (len(runner.train_dataloader) if hook.by_epoch else 1)
            if batches % counts:
                found.append(
                    f'Checkpoints are {batches} iterations apart, no multiple of optim_wrapper.accumulative_counts='
                    f'{counts}: only one in {counts // gcd(batches, counts)} can be resumed, as the gradients of '
                    'several processes are not saved'
                )
    return found


def parts_with_state(runner: Runner) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Return the parts whose state MMEngine does not save, by name, with the attributes that hold it."""
    parts: dict[str, tuple[Any, tuple[str, ...]]] = {
        f'early stopping by {hook.monitor}': (hook, ('wait_count', 'best_score'))
        for hook in runner.hooks
        if isinstance(hook, EarlyStoppingHook)
    }
    if parts:
        parts['training loop'] = (runner.train_loop, ('stop_training',))
    for name, module in runner.model.named_modules():
        # Of MMDetection, which need not be installed.
        if type(module).__name__ == 'BatchSyncRandomResize':
            parts[name] = (module, ('_input_size',))
    return parts


def position_of(checkpoint: Mapping[str, Any]) -> Position:
    """Return the position that a checkpoint holds, or an empty one."""
    return checkpoint['meta'].get(KEY) or {}


def position_differences(runner: Runner, checkpoint: Mapping[str, Any]) -> list[str]:
    """List the differences in the data that forbid to continue at the position of a checkpoint.

    At the end of an epoch, number of processes, batch size and images may change. In its middle, and in a training by
    iterations, the remaining batches must be those of the uninterrupted training.

    Args:
        runner: Runner with its dataloader and a freshly built optimiser.
        checkpoint: Checkpoint of MMEngine.

    Returns:
        One sentence per difference.
    """
    own, saved = _data_of(runner), position_of(checkpoint)
    if not saved:
        return []
    if own['loop'] != saved['loop']:
        return [f'the training counts {own["loop"]} in the config and {saved["loop"]} in the checkpoint']
    found = _accumulation_differences(own, saved, checkpoint['meta']['iter'])
    if saved['first_batch']:
        found += _order_differences(runner, own, saved)
    return found


def missing_position(runner: Runner, checkpoint: Mapping[str, Any]) -> str | None:
    """Say what a checkpoint lacks to continue exactly where it was saved, if it is not from the end of an epoch."""
    saved, meta = position_of(checkpoint), checkpoint['meta']
    counts = saved.get('accumulative_counts', _accumulative_counts(runner))
    info = checkpoint['message_hub'].get('runtime_info', {})
    length = len(runner.train_dataloader)  # of an epoch, if the checkpoint does not tell
    if info.get('max_iters') and info.get('max_epochs'):
        length = info['max_iters'] // info['max_epochs']
    if not saved and _counts_iterations(runner) and meta['iter']:
        return 'position in the data'
    if not saved and not _counts_iterations(runner) and meta['iter'] != meta['epoch'] * length:
        return f'position in the data, and its iteration {meta["iter"]} is not the end of an epoch of {length} batches'
    accumulated = saved.get('accumulated', meta['iter'] % counts if meta['iter'] != info.get('max_iters') else 0)
    if accumulated and 'gradients' not in checkpoint:
        return (
            f'gradients of the {accumulated} batches since the last step of the optimiser (a training of several '
            f'processes does not save them); its iteration {meta["iter"]} is no multiple of '
            f'optim_wrapper.accumulative_counts={counts}'
        )
    return None


def _data_of(runner: Runner) -> Position:
    loader = runner.train_dataloader
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    return {
        'loop': _LOOPS[_counts_iterations(runner)],
        'processes': get_world_size(),
        'batch_size': getattr(loader.batch_sampler, 'batch_size', None),
        'images': len(loader.dataset) if hasattr(loader.dataset, '__len__') else None,
        'sampler': type(sampler).__name__,
        'accumulative_counts': _accumulative_counts(runner),
    }


def _accumulation_differences(own: Position, saved: Position, iteration: int) -> list[str]:
    counts = own['accumulative_counts'], saved['accumulative_counts']
    if counts[0] == counts[1] or not (saved['accumulated'] or iteration % counts[0]):
        return []
    return [
        f'optim_wrapper.accumulative_counts is {counts[0]} in the config and {counts[1]} in the checkpoint, and '
        f'iteration {iteration} is no multiple of both'
    ]


def _order_differences(runner: Runner, own: Position, saved: Position) -> list[str]:
    found = [
        f'{name} is {own[key]} in the config and {saved[key]} in the checkpoint, which is from the middle of an epoch'
        for key, name in (('images', 'the number of training images'), ('sampler', 'train_dataloader.sampler.type'))
        if own[key] != saved[key]
    ]
    if own['processes'] == saved['processes']:
        if own['batch_size'] != saved['batch_size']:
            found.append(
                f'train_dataloader.batch_size is {own["batch_size"]} in the config and {saved["batch_size"]} in the '
                'checkpoint, which is from the middle of an epoch'
            )
    elif not found and not _has_the_same_steps(runner, own, saved):
        shown = [f'{one["processes"]} processes with batches of {one["batch_size"]}' for one in (own, saved)]
        found.append(
            f'this run has {shown[0]}, the checkpoint is from the middle of an epoch of {shown[1]}, and the steps of '
            'the remaining epoch would consist of other images'
        )
    transforms = sorted({type(found).__name__ for found in stateful_transforms(runner.train_dataloader.dataset)})
    if transforms:
        found.append(
            f'{", ".join(transforms)} of the training set mixes in images of earlier batches, and the checkpoint is '
            'from the middle of an epoch'
        )
    return found


def _has_the_same_steps(runner: Runner, own: Position, saved: Position) -> bool:
    """Return whether the steps of two numbers of processes consist of the same images."""
    batches = getattr(number_batches(runner.train_dataloader), 'batches', None)
    # Others group images within a process.
    if type(batches) is not BatchSampler or type(batches.sampler) not in (DefaultSampler, InfiniteSampler):
        return False
    padded = [-(-own['images'] // one['processes']) * one['processes'] for one in (own, saved)]
    totals = [one['processes'] * one['batch_size'] for one in (own, saved)]
    return totals[0] == totals[1] and padded[0] == padded[1]


def stateful_transforms(part: Any) -> list[Any]:
    """Return the transforms of a data set that keep images."""
    if isinstance(part, (list, tuple)):
        return [found for item in part for found in stateful_transforms(item)]
    inner = [getattr(part, name, None) for name in ('dataset', 'datasets', 'pipeline', 'transforms')]
    own = [part] if hasattr(part, 'results_cache') else []
    return own + stateful_transforms([item for item in inner if item is not None])


def _counts_iterations(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _accumulative_counts(runner: Runner) -> int:
    return getattr(runner.optim_wrapper, '_accumulative_counts', 1)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.get_submodule('module') if is_model_wrapper(model) else model
