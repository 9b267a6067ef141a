"""Conversion of saved optimisers and schedules to another grouping of the same parameters."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from .parameter_groups import settings_of

# What MMEngine's schedules store per parameter group.
_PER_GROUP = ('base_values', '_last_value', 'min_values')

Groups = Sequence[Mapping[str, Any]]


def convert_groups(runner: Runner, checkpoint: dict[str, Any]) -> list[str]:
    """Give the optimiser and the schedules of a checkpoint the parameter groups of the run, in place.

    Parameters are found by their names; where the checkpoint has none, by the order of the model, in which MMEngine
    makes a group per parameter. Every parameter keeps its state and its settings. Nothing changes if the groups are
    the same already, or if the parameters are not those of the run.

    Args:
        runner: Runner with a freshly built optimiser.
        checkpoint: Checkpoint of MMEngine.

    Returns:
        One sentence per group of the run whose parameters have different settings in the checkpoint. The checkpoint is
        then unchanged.
    """
    wrapper, saved = runner.optim_wrapper, checkpoint['optimizer']
    if not isinstance(wrapper, OptimWrapper):  # several optimisers
        return []
    model, groups = _unwrapped(runner.model), saved.get('param_groups', [])
    names = {parameter: name for name, parameter in model.named_parameters()}
    own = [[names[parameter] for parameter in group['params']] for group in wrapper.optimizer.param_groups]
    theirs = _saved_names(model, saved, groups)
    place = {
        name: (index, number)
        for index, (group, listed) in enumerate(zip(groups, theirs, strict=False))
        for name, number in zip(listed, group['params'], strict=True)
    }
    order = [name for group in own for name in group]
    if own == theirs or set(order) != set(place):
        return []
    sources = [list(dict.fromkeys(place[name][0] for name in group)) for group in own]
    conflicts = [
        text
        for number, indices in enumerate(sources)
        for text in _conflicts(number, [settings_of(groups[index]) for index in indices])
    ]
    if conflicts:
        return conflicts
    firsts = [indices[0] for indices in sources]
    state, numbers = saved.get('state', {}), itertools.count()
    converted = {
        **saved,
        'state': {number: state[place[name][1]] for number, name in enumerate(order) if place[name][1] in state},
        'param_groups': [
            {**settings_of(groups[first]), 'params': [next(numbers) for _ in listed], 'param_names': listed}
            for first, listed in zip(firsts, own, strict=True)
        ],
    }
    if wrapper.base_param_settings is not None:
        converted.setdefault('base_param_settings', {**settings_of(groups[0]), 'params': torch.zeros(1)})
    checkpoint['optimizer'] = converted
    _convert_schedules(checkpoint, len(groups), firsts, 'base_param_settings' in converted)
    runner.logger.info(f'Converted the saved optimiser from {len(groups)} to {len(own)} parameter groups')
    return []


def _convert_schedules(checkpoint: dict[str, Any], groups: int, firsts: Sequence[int], has_base: bool) -> None:
    """Choose the values of the new groups among those that the schedules stored for the old ones."""
    for schedule in checkpoint.get('param_schedulers') or []:
        for key in _PER_GROUP:
            if isinstance(schedule.get(key), list):
                values = schedule[key]
                # MMEngine appends that of `base_param_settings` if there are several groups.
                base = [values[-1 if len(values) > groups else 0]] if has_base else []
                schedule[key] = [values[first] for first in firsts] + base


def _saved_names(model: nn.Module, saved: Mapping[str, Any], groups: Groups) -> list[list[str]]:
    """Return the parameter names of the saved groups; an empty list if they are unknown."""
    if all('param_names' in group for group in groups):
        return [list(group['param_names']) for group in groups]
    if all('param_name' in group for group in groups):
        return [[group['param_name']] for group in groups]
    count = sum(len(group['params']) for group in groups)
    if len(groups) not in (1, count):
        return []
    for parameters in (dict(model.named_parameters()), _trained(model)):
        if len(parameters) == count and _has_shapes(saved, groups, list(parameters.values())):
            names = iter(parameters)
            return [[next(names) for _ in group['params']] for group in groups]
    return []


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _has_shapes(saved: Mapping[str, Any], groups: Groups, parameters: Sequence[Tensor]) -> bool:
    """Return True if the saved tensors per parameter, such as moments, have the shapes of these parameters."""
    identifiers = [identifier for group in groups for identifier in group['params']]
    return all(
        value.dim() == 0 or value.shape == parameter.shape
        for identifier, parameter in zip(identifiers, parameters, strict=True)
        for value in saved.get('state', {}).get(identifier, {}).values()
        if isinstance(value, Tensor)
    )


def _conflicts(number: int, settings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for key in dict.fromkeys(key for group in settings for key in group):
        values = [group.get(key) for group in settings]
        differing = [value for index, value in enumerate(values) if value not in values[:index]]
        if len(differing) > 1:
            yield (
                f'the parameters of group {number} of the optimiser have one {key} in the config, but '
                f'{" and ".join(map(str, differing))} in the checkpoint; if no setting has changed, '
                'optim_wrapper.constructor=DefaultOptimWrapperConstructor (with layer_decay_rate: '
                'LearningRateDecayOptimWrapperConstructor) restores its groups'
            )


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.get_submodule('module') if is_model_wrapper(model) else model
