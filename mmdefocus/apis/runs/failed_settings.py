"""Errors of the settings of a config, found where they arise, as messages that name the setting.

A config is checked by the classes that it names, anywhere in OpenMMLab's packages or in PyTorch. The traceback of
their errors tells which part of the config it was.
"""

import contextlib
import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch import nn

from .registered import arguments_of
from .suggestions import did_you_mean

_SHOWN = 8
_BUILDERS = ('build_from_cfg', 'build_scheduler_from_cfg')


def describe_failure(error: Exception) -> str | None:
    """Describe an error that a part of the config has raised.

    Args:
        error: Error with its traceback.

    Returns:
        A message that names the setting, or None if the error did not arise in building or using a part of a config.
    """
    frames = list(_frames(error))
    cfg = next((value for frame in frames for value in frame.f_locals.values() if isinstance(value, Config)), None)
    # By the rule of this package, RuntimeError names its remedy; it is no contradiction of settings.
    own = isinstance(error, RuntimeError) and frames[-1].f_globals.get('__name__', '').startswith('mmdefocus.')
    if cfg is None or own:
        return None
    for frame in reversed(frames):
        if frame.f_code.co_name in _BUILDERS and isinstance(frame.f_locals.get('registry'), Registry):
            values = frame.f_locals
            target = values.get('obj_cls', values.get('scheduler_cls'))
            return _describe_building(error, values['cfg'], target, values['registry'], cfg)
    for frame in reversed(frames):
        # The runner wraps some errors of hooks.
        part = frame.f_locals.get('hook' if frame.f_code.co_name == 'call_hook' else 'self')
        if isinstance(part, nn.Module):
            return None if _is_later(frames) else _describe_module(error, part, frames)
        if isinstance(part, Hook | BaseMetric | BaseTransform):
            return _describe_use(error, _place_of_type(cfg, type(part).__name__), type(part).__name__)
    return None


def _is_later(frames: list[FrameType]) -> bool:
    """Return True after the first iteration of a training: parts that do not fit each other fail in the first."""
    runners = (frame.f_locals.get('self') for frame in frames)
    return any(isinstance(runner, Runner) and runner.iter > 0 for runner in runners)


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _describe_building(error: Exception, given: Any, target: Any, registry: Registry, cfg: Config) -> str:
    kind = given.get('type') if isinstance(given, Mapping) else None
    where = _place(cfg, lambda node: node is given or node == given or _contains(given, node))
    if kind is None:
        title = where or f'the {registry.name}'
        return f'{title} must be a dictionary with a type, got {given!r}; write dict(type=..., ...)'
    if isinstance(kind, str) and target is None:
        return unregistered(where, kind, registry)
    name = _short(kind)
    title = f'{where} ({name})' if where else name
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and unknown and unknown[1] in given:
        known = sorted(arguments_of(target, None) - {'self', 'args', 'kwargs'})
        close = difflib.get_close_matches(unknown[1], known, n=3)
        listing = '' if close else f'; its arguments are {", ".join(known)}'
        return f'{title} has no argument {unknown[1]!r}{did_you_mean(close)}{listing}'
    lacking = re.search(r'missing \d+ required \S+ arguments?: (.*)', str(error))
    if isinstance(error, TypeError) and lacking:
        return f'{title} needs {lacking[1]}, got {_listed(given)}; set what is missing in the config'
    wrong = _wrong_types(target, given)
    reason = '; '.join(wrong) if wrong else _reason(error)
    settings = '' if wrong or 'got' in reason else f'. Its settings are {_listed(given)}'
    return f'{title}: {reason}{settings}; correct it in the config, or with --cfg-options'


def unregistered(where: str | None, name: str, registry: Registry) -> str:
    """Say that a registry lacks a name, and suggest similar ones."""
    names: set[str] = set()
    node: Registry | None = registry
    while node is not None:
        names.update(node.module_dict)
        node = node.parent
    close = difflib.get_close_matches(name.rpartition('.')[2], sorted(names), n=3)
    return (
        f'{where or "the config"}: type must be a registered {registry.name}, got {name!r}{did_you_mean(close)}'
        f'{"" if close else ";"} Correct the name, or import the module that registers it with custom_imports'
    )


def _describe_module(error: Exception, part: nn.Module, frames: list[FrameType]) -> str:
    model = next(self for frame in frames if isinstance(self := frame.f_locals.get('self'), nn.Module))
    name = next((name for name, module in model.named_modules() if module is part), '')
    return _describe_use(error, f'model.{name}'.rstrip('.'), type(part).__name__)


def _describe_use(error: Exception, where: str | None, name: str) -> str:
    title = f'{where} ({name})' if where else name
    return (
        f'{title} failed: {_reason(error)}. The data, or the settings of other parts of the config, do not fit '
        f'{where or name}: correct them; with MMDEFOCUS_TRACEBACK=1 the tool shows the lines that failed'
    )


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split()).partition(' in <')[0] or 'no reason is given'
    return text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'


def _place(cfg: Config, is_it: Callable[[Mapping[str, Any]], bool]) -> str | None:
    """Return the dotted key of the first dictionary that fulfils a condition."""
    pending: list[tuple[str, Any]] = [('', cfg._cfg_dict)]
    while pending:
        where, node = pending.pop(0)
        if isinstance(node, Mapping):
            if where and is_it(node):
                return where
            items = [(str(key), child) for key, child in node.items()]
        elif isinstance(node, list | tuple):
            items = [(str(index), child) for index, child in enumerate(node)]
        else:
            continue
        pending += [(f'{where}.{key}' if where else key, child) for key, child in items]
    return None


def _place_of_type(cfg: Config, name: str) -> str | None:
    return _place(cfg, lambda node: _short(node.get('type')) == name)


def _contains(given: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Return True if all settings of ``node`` are in ``given``, to which builders add some."""
    return (
        'type' in node
        and isinstance(given, Mapping)
        and all(key in given and given[key] == value for key, value in node.items())
    )


def _wrong_types(target: Any, given: Mapping[str, Any]) -> list[str]:
    """Describe the settings whose types contradict the annotations of a constructor or its bases."""
    hints: dict[str, Any] = {}
    for function in [vars(base).get('__init__') for base in inspect.getmro(target)] if inspect.isclass(target) else []:
        with contextlib.suppress(NameError, TypeError, AttributeError):  # annotations may refer to anything
            hints = get_type_hints(function) | hints
    return [
        f'{name} must be {" or ".join(map(_title, _kinds(hints[name])))}, got {value!r}'
        for name, value in given.items()
        if name in hints and not any(_fits(value, kind) for kind in _kinds(hints[name]))
    ]


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type) or kind is Any or isinstance(value, list | tuple):  # not decidable, or not exact
        return True
    return isinstance(value, int | float if kind is float else kind)


def _title(kind: Any) -> str:
    return 'None' if kind is type(None) else kind.__name__


def _listed(given: Mapping[str, Any]) -> str:
    plain = (int, float, str, list, tuple, type(None))
    shown = [f'{key}={value!r}' for key, value in given.items() if key != 'type' and isinstance(value, plain)]
    return ', '.join(shown[:_SHOWN]) + (', ...' if len(shown) > _SHOWN else '') or 'none'


def _short(kind: Any) -> str:
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
