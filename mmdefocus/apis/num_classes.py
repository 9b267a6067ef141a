"""``num_classes='auto'``: as many classes as the training set has."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

AUTO = 'auto'


def resolve_num_classes(cfg: Config) -> tuple[str, ...] | None:
    """Replace ``num_classes='auto'`` in the model and its data preprocessor, in place.

    The names are given to all data sets as their classes, so that labels mean the same everywhere, folders of other
    names are noticed, and the config that training saves needs no look at the training set any more.

    Args:
        cfg: Config with a training set that knows the names of its classes.

    Returns:
        The names of the classes in the order of their labels; None where nothing was ``'auto'``.

    Raises:
        FileNotFoundError: The training set is not there.
        ValueError: There is no training set, or it does not know its classes, or something is wrong with it.
    """
    places = [place for name in ('model', 'data_preprocessor') for place in _auto_places(cfg.get(name))]
    if not places:
        return None
    loader = cfg.get('train_dataloader')
    if loader is None:
        raise ValueError("num_classes='auto' counts the classes of train_dataloader, which the config does not have")
    dataset = _innermost(loader.dataset)
    classes = _read_classes(dataset, cfg)
    if classes is None:
        raise ValueError(
            f"num_classes='auto' needs a data set that knows the names of its classes, and {dataset.type} does not; "
            'give it classes=[...], or num_classes as a number'
        )
    for place in places:
        place['num_classes'] = len(classes)
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None:
            _name_classes(_innermost(cfg[f'{split}_dataloader'].dataset), classes)
    return tuple(classes)


def _auto_places(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if node.get('num_classes') == AUTO:
            yield node
        for child in node.values():
            yield from _auto_places(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _auto_places(child)


def _innermost(dataset: Any) -> Any:
    """The data set inside of wrappers such as ``RepeatDataset``."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def _read_classes(dataset: Mapping[str, Any], cfg: Config) -> tuple[str, ...] | None:
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        built = registry.build(dict(dataset, pipeline=[]))
    return built.metainfo.get('classes')


def _name_classes(dataset: Any, classes: tuple[str, ...]) -> None:
    if 'classes' not in dataset:
        dataset['metainfo'] = dict(classes=list(classes)) | dict(dataset.get('metainfo') or {})
