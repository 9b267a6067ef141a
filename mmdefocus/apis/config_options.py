"""Settings that the command line changes in a config, checked against what the config has."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

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


class UsageError(ValueError):
    """A mistake in what was asked for. Its message is for the user; a tool shows it without a traceback."""


def apply_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Apply ``--cfg-options`` in place.

    Args:
        cfg: Config from a file.
        options: Dotted keys and new values. The last part of a key may be new, as an argument that the config leaves
            at its default; everything before it must exist. ``data_root`` moves all paths of data sets and evaluators
            that begin with the data sets' common ``data_root``.

    Raises:
        UsageError: If a key is unknown or would have no effect.
    """
    options = dict(options)
    if 'data_root' in options and _move_data_root(cfg, str(options['data_root'])):
        del options['data_root']
    for key in options:
        _check_option(cfg, key)
    cfg.merge_from_dict(options)


def _move_data_root(cfg: Config, data_root: str) -> bool:
    """Whether the data sets have one common ``data_root``; all paths that begin with it now begin with the new one."""
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
    """All texts below the dataloaders and evaluators: dotted key, container and key in the container."""

    def visit(node: Any, dotted: str) -> Iterator[tuple[str, Any, Any]]:
        for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
            if isinstance(child, str):
                yield f'{dotted}.{key}', node, key
            elif isinstance(child, Mapping | list):
                yield from visit(child, f'{dotted}.{key}')

    for split in ('train', 'val', 'test'):
        for name in (f'{split}_dataloader', f'{split}_evaluator'):
            yield from visit(cfg.get(name) or {}, name)


def _check_option(cfg: Config, key: str) -> None:
    first, *rest = key.split('.')
    settings = [*list(inspect.signature(Runner).parameters), *_OTHER_SETTINGS]
    if first not in settings:
        if first in cfg:
            raise UsageError(
                f"--cfg-options {key} would have no effect: '{first}' is a helper variable that the config file has "
                f'already used; set the places where it is used{_uses(cfg, cfg[first])}'
            )
        close = difflib.get_close_matches(first, [*settings, *cfg], n=3)
        raise UsageError(f"--cfg-options {key}: the config has no '{first}'{_did_you_mean(close)}")
    if first not in cfg:
        return
    node: Any = cfg
    for depth, part in enumerate([first, *rest] if rest else []):
        if isinstance(node, (list, tuple)):
            known = [str(index) for index in range(len(node))]
        else:
            known = [str(name) for name in node] if isinstance(node, Mapping | Config) else []
        # The last part may be new, as an argument that the config leaves at its default, but not a slip of the pen.
        last = depth == len(rest) and isinstance(node, Mapping)
        close = difflib.get_close_matches(part, known, n=3, cutoff=0.85 if last else 0.6)
        if part not in known and (close or not last):
            where = '.'.join([first, *rest][:depth]) or 'the config'
            raise UsageError(f"--cfg-options {key}: {where} has no '{part}'{_did_you_mean(close)}")
        if depth < len(rest):
            node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]


def _uses(cfg: Config, value: Any) -> str:
    """Dotted keys below the dataloaders and evaluators whose text begins with ``value``."""
    if not isinstance(value, str) or not value:
        return ''
    found = [dotted for dotted, node, key in _data_texts(cfg) if node[key].startswith(value)]
    return f': {" ".join(found)}' if found else ''


def _did_you_mean(close: list[str]) -> str:
    return f'; did you mean {", ".join(close)}?' if close else ''
