"""``num_classes='auto'``: the number of classes of the training set."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

AUTO = 'auto'
IMAGENET_CLASSES = 1000


def resolve_num_classes(cfg: Config) -> tuple[str, ...] | None:
    """Replace ``num_classes='auto'`` in the model and its data preprocessor, in place.

    The classes are those of the first data set of a concatenation. All data sets get the class names, so that labels
    have the same meaning in all of them, folders with other names are errors, and the config saved by the training no
    longer depends on the training set.

    Args:
        cfg: Config with a training set that has class names.

    Returns:
        The class names in the order of their labels; None if nothing was ``'auto'``.

    Raises:
        FileNotFoundError: The training set does not exist.
        ValueError: There is no training set, or it has no class names or an error.
    """
    places = _auto_nodes(cfg)
    if not places:
        return None
    loader = cfg.get('train_dataloader')
    if loader is None:
        raise ValueError("num_classes='auto' counts the classes of train_dataloader, which the config does not have")
    dataset = _innermost(loader.dataset)[0]
    classes = _read_classes(dataset, cfg)
    if classes is None:
        raise ValueError(
            f"num_classes='auto' needs a data set with class names, which {dataset.type} does not have; "
            'set classes=[...] in it, or set num_classes to a number'
        )
    for place in places:
        place['num_classes'] = len(classes)
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None:
            for part in _innermost(cfg[f'{split}_dataloader'].dataset):
                _name_classes(part, classes)
    return tuple(classes)


def assume_num_classes(cfg: Config, number: int = IMAGENET_CLASSES) -> bool:
    """Replace ``num_classes='auto'`` by a number, in place, where no data are at hand.

    Args:
        cfg: Config.
        number: Number of classes; that of ImageNet-1k by default.

    Returns:
        Whether there was something to replace.
    """
    places = _auto_nodes(cfg)
    for place in places:
        place['num_classes'] = number
    return bool(places)


def _auto_nodes(cfg: Config) -> list[Any]:
    return [place for name in ('model', 'data_preprocessor') for place in _auto_places(cfg.get(name))]


def _auto_places(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if node.get('num_classes') == AUTO:
            yield node
        for child in node.values():
            yield from _auto_places(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _auto_places(child)


def _innermost(dataset: Any) -> list[Any]:
    """Return the data sets inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if 'datasets' in dataset:
        return [inner for part in dataset['datasets'] for inner in _innermost(part)]
    return _innermost(dataset['dataset']) if 'dataset' in dataset else [dataset]


def _read_classes(dataset: Mapping[str, Any], cfg: Config) -> tuple[str, ...] | None:
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        built = registry.build(dict(dataset, pipeline=[]))
    return built.metainfo.get('classes')


def _name_classes(dataset: Any, classes: tuple[str, ...]) -> None:
    if 'classes' not in dataset:
        dataset['metainfo'] = dict(classes=list(classes)) | dict(dataset.get('metainfo') or {})
