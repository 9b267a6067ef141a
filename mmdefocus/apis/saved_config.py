"""Configs saved in checkpoints, read as data: nothing of their text is executed."""

import ast
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

_NAMES = {'True': True, 'False': False, 'None': None, 'inf': float('inf'), 'nan': float('nan')}


def read_saved_config(text: str, source: str) -> Config:
    """Read the text of a config as MMEngine saves it: assignments of literals and ``dict(...)``.

    The modules of ``custom_imports`` are imported if they belong to this environment.

    Args:
        text: ``meta['cfg']`` of a checkpoint.
        source: Name of the file, for the message.

    Raises:
        ValueError: The text has anything but assignments of data.
    """
    settings: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise ValueError(f'line {statement.lineno} is no assignment')
            settings[statement.targets[0].id] = _value(statement.value)
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f'the config in {source} must consist of data, as MMEngine saves it ({error}); give the config file of the '
            'training as the model, and the checkpoint as its weights'
        ) from error
    config = Config(settings)
    if config.get('custom_imports'):
        import_modules_from_strings(**config.custom_imports)
    return config


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[] | [ast.Dict()] as first, keywords=keywords) if all(
            item.arg for item in keywords
        ):  # keys that are no names are in a dictionary of their own
            settings = _value(first[0]) if first else {}
            return {**settings, **{item.arg: _value(item.value) for item in keywords}}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Set(elts=items):
            return {_value(item) for item in items}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Constant(value=value):
            return value
    raise ValueError(f'line {node.lineno} has {ast.unparse(node)!r}')
