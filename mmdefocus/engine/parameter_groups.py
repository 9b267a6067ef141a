"""Merging and description of the parameter groups of an optimiser."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

# What constructors add to a group for information only: ``lr`` and ``weight_decay`` hold the effect.
LABELS = frozenset({'param_name', 'param_names', 'layer_id', 'lr_scale', 'lr_mult', 'decay_mult'})

Group = dict[str, Any]


def settings_of(group: Mapping[str, Any]) -> Group:
    """Return the settings of a parameter group, without its parameters and labels."""
    return {key: value for key, value in group.items() if key != 'params' and key not in LABELS}


def merge_groups(groups: Sequence[Group], module: nn.Module, optimizer_cfg: Mapping[str, Any]) -> list[Group]:
    """Merge the parameter groups with equal settings.

    Args:
        groups: Groups as an optimiser takes them.
        module: Module that holds the parameters.
        optimizer_cfg: Arguments of the optimiser, the settings of groups that do not set them.

    Returns:
        New groups, which name their parameters in ``param_names``. Those with the optimiser's own learning rate come
        first: loggers show the learning rate of the first group. Otherwise groups are in the order of their first
        parameters; parameters keep their order.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    defaults = {key: optimizer_cfg[key] for group in groups for key in settings_of(group) if key in optimizer_cfg}
    merged: list[Group] = []
    for group in groups:
        settings = defaults | settings_of(group)
        same = next((other for other in merged if settings_of(other) == settings), None)
        if same is None:
            same = {'params': [], 'param_names': [], **settings}
            merged.append(same)
        same['params'] += group['params']
        same['param_names'] += [names[parameter] for parameter in group['params']]
    return sorted(merged, key=lambda group: group.get('lr') != defaults.get('lr'))


def describe_groups(groups: Sequence[Mapping[str, Any]]) -> str:
    """Describe parameter groups that have ``param_names``.

    Args:
        groups: Parameter groups.

    Returns:
        A line per group with its settings, the number of its parameters, and their names. ``neck.*`` stands for all
        parameters of a module, ``layers.0-11.weight`` for those of a list of modules.
    """
    lines = [f'The optimiser has {len(groups)} parameter groups:']
    for number, group in enumerate(groups):
        others = [name for other in groups if other is not group for name in other['param_names']]
        settings = ', '.join(f'{key}={_show(value)}' for key, value in sorted(settings_of(group).items()))
        count = len(group['param_names'])
        names = ', '.join(abbreviate_names(group['param_names'], others))
        lines.append(f'group {number} ({settings}), {count} parameters: {names}')
    return '\n'.join(lines)


def abbreviate_names(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Abbreviate dotted names to patterns that match none of the ``others``."""
    taken = {parent for name in others for parent in _parents(name)}
    modules = []
    for name in names:
        module = next((parent for parent in _parents(name) if parent not in taken), name)
        modules.append(tuple((module if module == name else f'{module}.*').split('.')))
    patterns = list(dict.fromkeys(modules))
    for position in range(max(map(len, patterns), default=0)):
        patterns = _with_ranges(patterns, position)
    return ['.'.join(pattern) for pattern in patterns]


def _parents(name: str) -> Iterator[str]:
    """Yield the modules that hold a parameter, from the outermost on, and the parameter itself."""
    parts = name.split('.')
    return ('.'.join(parts[:length]) for length in range(1, len(parts) + 1))


def _with_ranges(patterns: Iterable[tuple[str, ...]], position: int) -> list[tuple[str, ...]]:
    """Unite the patterns that differ only in the number at a position."""
    united: dict[tuple[str, ...], list[int]] = {}
    for pattern in patterns:
        is_number = position < len(pattern) and pattern[position].isdecimal()
        key = (*pattern[:position], '', *pattern[position + 1 :]) if is_number else pattern
        united.setdefault(key, []).extend([int(pattern[position])] if is_number else [])
    return [
        (*key[:position], _ranges(numbers), *key[position + 1 :]) if numbers else key for key, numbers in united.items()
    ]


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ','.join(str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)


def _show(value: Any) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)
