"""Compare the settings of a training with those of the checkpoint to resume."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import Runner

# Settings that select an implementation of the same step, often by the machine.
_IMPLEMENTATION = {'foreach', 'fused', 'capturable', 'differentiable'}
# Arguments of a scheduler's constructor that are no settings.
_NO_SETTINGS = {'args', 'kwargs', 'optimizer', 'last_step', 'verbose'}


def missing_for_resuming(checkpoint: Any) -> list[str]:
    """List the entries that a checkpoint lacks to resume a training.

    Args:
        checkpoint: Content of a checkpoint file.

    Returns:
        Names of the missing entries. ``meta`` is among them unless MMEngine's runner wrote the file.
    """
    content = checkpoint if isinstance(checkpoint, Mapping) else {}
    entries = ('meta', 'state_dict', 'message_hub', 'optimizer')
    missing = [name for name in entries if not isinstance(content.get(name), Mapping)]
    if 'meta' not in missing and not all(isinstance(content['meta'].get(name), int) for name in ('epoch', 'iter')):
        missing.append('meta')
    return missing


def optimizer_differences(runner: Runner, checkpoint: Mapping[str, Any]) -> list[str]:
    """List the differences between the optimiser of the config and that of the checkpoint.

    MMEngine would continue with the checkpoint's hyperparameters, and with its moments regardless of their shapes.
    Learning rates are compared before any schedule.

    Args:
        runner: Runner with a freshly built optimiser.
        checkpoint: Checkpoint of MMEngine.

    Returns:
        One sentence per difference.
    """
    wrapper, saved = runner.optim_wrapper, checkpoint['optimizer']
    if isinstance(wrapper, OptimWrapperDict):
        pairs = [(own.optimizer.param_groups, saved.get(name, {})) for name, own in wrapper.items()]
    else:
        pairs = [(wrapper.optimizer.param_groups, saved)]
    return [text for own, state in pairs for text in _group_differences(own, state.get('param_groups', []))]


def _group_differences(own: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    sizes = [[len(group['params']) for group in groups] for groups in (own, saved)]
    if sizes[0] != sizes[1]:
        counts = [f'{sum(size)} parameters in {len(size)} groups' for size in sizes]
        yield f'the optimiser has {counts[0]} in the config and {counts[1]} in the checkpoint'
        return
    ours, theirs = ({key for group in groups for key in group} for groups in (own, saved))
    new, old = (_settings_in(names) for names in (ours - theirs, theirs - ours))
    if new and old:  # A newer PyTorch may add settings; only another optimiser also lacks some.
        yield f'the optimiser of the config has {", ".join(new)}, that of the checkpoint has {", ".join(old)} instead'
        return
    for key in _settings_in(ours & theirs):
        values = [
            (_unscheduled(first, key), _unscheduled(second, key)) for first, second in zip(own, saved, strict=True)
        ]
        differing = [pair for pair in values if pair[0] != pair[1]]
        if differing:
            where = '' if len(differing) == len(values) else f' in {len(differing)} of {len(values)} parameter groups'
            yield _difference(f'{key} of the optimiser', *differing[0], where)


def _settings_in(names: Iterable[str]) -> list[str]:
    return sorted(
        name
        for name in names
        if name not in {'params', 'param_names', *_IMPLEMENTATION} and not name.startswith('initial_')
    )


def _unscheduled(group: Mapping[str, Any], key: str) -> Any:
    if key == 'betas' and 'initial_momentum' in group:
        return (group['initial_momentum'], *group['betas'][1:])
    return group.get(f'initial_{key}', group.get(key))


def scheduler_differences(runner: Runner, checkpoint: Mapping[str, Any]) -> list[str]:
    """List the differences between the schedules of the config and those of the checkpoint.

    MMEngine would continue with the checkpoint's.

    Args:
        runner: Runner with freshly built schedulers.
        checkpoint: Checkpoint of MMEngine.

    Returns:
        One sentence per difference.
    """
    own, saved = _flat(runner.param_schedulers), _flat(checkpoint.get('param_schedulers'))
    if len(own) != len(saved):
        return [f'param_scheduler has {len(own)} schedules in the config and {len(saved)} in the checkpoint']
    return [
        text
        for index, (scheduler, state) in enumerate(zip(own, saved, strict=True))
        for text in _schedule_differences(f'param_scheduler.{index}', scheduler, state)
    ]


def _schedule_differences(name: str, scheduler: _ParamScheduler, saved: Mapping[str, Any]) -> Iterator[str]:
    own = scheduler.state_dict()
    if own.keys() != saved.keys():
        yield f'{name} is of the type {type(scheduler).__name__} in the config and of a different one in the checkpoint'
        return
    for key in sorted(_settings_of(type(scheduler)) & own.keys()):
        if own[key] != saved[key]:
            keeps = f'; to train longer with the schedule as it was, give {name} its former end' if key == 'end' else ''
            yield _difference(f'{name}.{key}', own[key], saved[key], keeps)


def _settings_of(kind: type) -> set[str]:
    """Return the constructor arguments; other attributes hold the progress or follow from the settings."""
    taken = {name for base in kind.__mro__[:-1] for name in inspect.signature(base).parameters}
    return taken - _NO_SETTINGS


def _flat(schedulers: Any) -> list[Any]:
    if isinstance(schedulers, Mapping):
        return [scheduler for name in sorted(schedulers) for scheduler in schedulers[name]]
    return list(schedulers or [])


def _difference(what: str, own: Any, saved: Any, more: str = '') -> str:
    return f'{what} is {_show(own)} in the config and {_show(saved)} in the checkpoint{more}'


def _show(value: Any) -> str:
    return str(list(value)) if isinstance(value, Mapping) else str(value)
