"""Arguments of the classes that configs name."""

import contextlib
import inspect
from typing import Any

import mmengine.registry
from mmengine.registry import Registry


def arguments_of(kind: Any, scope: str | None) -> set[str]:
    """Return the argument names of a config's ``type``.

    Args:
        kind: Class or function, or its name in a registry, with or without a scope.
        scope: Default scope of the config.

    Returns:
        The names, including those of base classes where a constructor accepts ``**kwargs``; empty if the name is not
        registered.
    """
    if kind is None:
        return set()
    found = [kind] if callable(kind) else _registered(str(kind), scope)
    return {name for target in found for name in _arguments(target)}


def _registered(name: str, scope: str | None) -> list[Any]:
    registries = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    found = []
    for registry in registries:
        with registry.switch_scope_and_registry(scope) as scoped, contextlib.suppress(RuntimeError):
            found.append(scoped.get(name))  # None or an error if this registry lacks it
    return [target for target in found if target is not None]


def _arguments(target: Any) -> set[str]:
    classes = inspect.getmro(target) if inspect.isclass(target) else ()
    constructors = [vars(cls)['__init__'] for cls in classes if '__init__' in vars(cls)]
    names: set[str] = set()
    for function in constructors or [target]:
        parameters = inspect.signature(function).parameters.values()
        names.update(parameter.name for parameter in parameters)
        if all(parameter.kind != inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names
