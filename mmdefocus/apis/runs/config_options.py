"""Settings that the command line changes in a config, checked against the settings that the config has."""

import copy
import difflib
import inspect
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmdefocus.apis.errors import UsageError

from .option_values import OptionText, parse_value
from .registered import arguments_of
from .suggestions import did_you_mean

# Top-level settings that are read from the config rather than passed to the runner's constructor.
_OTHER_SETTINGS = (
    'runner_type',
    'tta_model',
    'tta_pipeline',
    'compile',
    'sync_bn',
    'find_unused_parameters',
    'model_wrapper_cfg',
)
# Settings of the runner that are text; a config need not have them.
_TEXTS = [
    name for name, setting in inspect.signature(Runner).parameters.items() if setting.annotation in (str, str | None)
]


def apply_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Apply ``--cfg-options`` in place.

    Args:
        cfg: Config from a file.
        options: Dotted keys and new values; a :class:`~mmdefocus.apis.runs.option_values.OptionText` is parsed. Keys
            may be new, with new dictionaries on the way to them, unless they look like a misspelling of a present key.
            ``data_root`` changes all paths of data sets and evaluators that begin with the data sets' common
            ``data_root``.

    Raises:
        UsageError: A key looks misspelled, belongs to a value without keys, or would have no effect.
    """
    options = dict(options)
    if 'data_root' in options and _move_data_root(cfg, str(options['data_root'])):
        del options['data_root']
    values = {}
    for key, value in options.items():
        present = _present(cfg, key, options)
        if present is None and key in _TEXTS:
            present = ''
        values[key] = _parse(key, value, present) if isinstance(value, OptionText) else value
        if isinstance(present, Mapping) and isinstance(values[key], str):
            raise UsageError(
                f"--cfg-options {key}: expected a dictionary or None in place of one, got '{value}'; set "
                f'its items, such as {key}.type={value}'
            )
    for key, value in values.items():
        _check_items_of(key, value, values)
        first, *rest = key.split('.')
        cfg[first] = _replaced(cfg.get(first), rest, value)


def _check_items_of(key: str, value: Any, values: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` if another option sets an item of a value that has none, or that replaces it later."""
    order = list(values)
    for inner in order:
        is_empty = value is None and order.index(key) < order.index(inner)
        if inner.startswith(f'{key}.') and not isinstance(value, Mapping) and not is_empty:
            raise UsageError(
                f'--cfg-options {inner}: another option sets {key} to {value!r}, expected a dictionary, since only it '
                'has such items; leave one of the two out'
            )


def _parse(key: str, text: OptionText, present: Any) -> Any:
    """Parse a value; raise ``UsageError`` if MMEngine could not save it or would read something else back."""
    try:
        value = parse_value(text, present)
    except RecursionError as error:
        raise UsageError(f'--cfg-options {key}: the value has too many nested brackets') from error
    nested = value
    for part in reversed(key.split('.')[1:]):
        nested = {part: nested}
    try:
        saved = Config.fromstring(Config(dict(value=nested)).pretty_text, '.py').to_dict()['value']
    except Exception as error:  # A saved config is a program and can fail in any way.
        raise _unsavable(key, text) from error
    if saved != nested:
        raise _unsavable(key, text)
    return value


def _unsavable(key: str, text: str) -> UsageError:
    return UsageError(
        f'--cfg-options {key}: a saved config cannot hold {reprlib.repr(str(text))}; expected keys that are no '
        'keywords of Python, finite numbers (for infinity a large one, such as 1e30) and texts without {{ }}'
    )


def _move_data_root(cfg: Config, data_root: str) -> bool:
    """Replace the common ``data_root`` of the data sets in all paths; return False if there is no common one."""
    texts = [(node, key, node[key]) for _, node, key in _data_texts(cfg)]
    roots = {text.rstrip('/') for _, key, text in texts if key == 'data_root'}
    if len(roots) != 1:
        return False
    old = roots.pop()
    for node, key, text in texts:
        if f'{text}/'.startswith(f'{old}/'):
            node[key] = data_root.rstrip('/') + text[len(old) :]
    return True


def _data_texts(cfg: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield all texts below the dataloaders and evaluators: dotted key, container and key in the container."""

    def visit(node: Any, dotted: str) -> Iterator[tuple[str, Any, Any]]:
        for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
            if isinstance(child, str):
                yield f'{dotted}.{key}', node, key
            elif isinstance(child, Mapping | list):
                yield from visit(child, f'{dotted}.{key}')

    for split in ('train', 'val', 'test'):
        for name in (f'{split}_dataloader', f'{split}_evaluator'):
            yield from visit(cfg.get(name) or {}, name)


def _present(cfg: Config, key: str, options: Mapping[str, Any]) -> Any:
    """Return the present value of a key, or None without one; raise ``UsageError`` if the key cannot be set."""
    first, *rest = key.split('.')
    settings = [*list(inspect.signature(Runner).parameters), *_OTHER_SETTINGS]
    if first not in settings:
        if first in cfg:
            raise UsageError(
                f"--cfg-options {key} would have no effect: '{first}' is a helper variable that the config file has "
                f'already used; set the places where it is used{_uses(cfg, cfg[first])}'
            )
        close = difflib.get_close_matches(first, sorted({*settings, *cfg}), n=3)
        brackets = '; write the items of lists as list.0, without brackets' if '[' in first else ''
        names = did_you_mean(close) or f'; its settings are {", ".join(name for name in settings if name in cfg)}'
        raise UsageError(f"--cfg-options {key}: the config has no '{first}'{names}{brackets}")
    node, where = cfg.get(first), first
    for part in rest:
        wrong, close = None, []
        if isinstance(node, list):
            if not (part.isdecimal() and int(part) < len(node)):
                wrong = f"'{part}' but items 0 to {len(node) - 1}; set the list as a whole to add one"
        elif isinstance(node, Mapping):
            if part not in node:
                close = _misspelled(part, node, options.get(f'{where}.type', node.get('type')), cfg)
                wrong = f"'{part}'" if close else None
        elif node is not None:
            wrong = f"'{part}': it is {node!r}; set {where} as a whole"
        elif part.isdecimal():
            wrong = f"'{part}' and is no list; set {where}=[...] as a whole"
        if wrong and first == 'custom_hooks' and cfg.get('default_hooks'):
            names = ', '.join(f'default_hooks.{name}' for name in cfg.default_hooks)
            wrong += f'; hooks with a name are set by it: {names}'
        if wrong:
            raise UsageError(f'--cfg-options {key}: {where} has no {wrong}{did_you_mean(close)}')
        node = node[int(part)] if isinstance(node, list) else node.get(part) if node is not None else None
        where = f'{where}.{part}'
    return node


def _misspelled(part: str, node: Mapping[str, Any], kind: Any, cfg: Config) -> list[str]:
    """Return present keys that a new key may be a misspelling of; none for an argument of the class ``kind``."""
    known = [name for name in node if isinstance(name, str)]
    swapped = [name for name in known if sorted(name) == sorted(part)]
    close = swapped or difflib.get_close_matches(part, known, n=3, cutoff=0.85)
    return [] if close and part in arguments_of(kind, cfg.get('default_scope')) else close


def _replaced(node: Any, keys: Sequence[str], value: Any) -> Any:
    """Return a copy of ``node`` with the value at ``keys``: configs may share parts."""
    if not keys:
        value = copy.deepcopy(value)
        if isinstance(value, Mapping):
            # MMEngine honours `_delete_` only where it merges.
            merged = Config(dict(value=node if isinstance(node, Mapping) else {}))
            merged.merge_from_dict(dict(value=value))
            return merged.value
        return ConfigDict(value=value).value
    first, *rest = keys
    if isinstance(node, list):
        index = int(first)
        return [*node[:index], _replaced(node[index], rest, value), *node[index + 1 :]]
    changed = ConfigDict() if node is None else node.copy()
    changed[first] = _replaced(changed.get(first), rest, value)
    return changed


def _uses(cfg: Config, value: Any) -> str:
    """List the dotted keys below the dataloaders and evaluators whose text begins with ``value``."""
    if not isinstance(value, str) or not value:
        return ''
    found = [dotted for dotted, node, key in _data_texts(cfg) if node[key].startswith(value)]
    return f': {" ".join(found)}' if found else ''
