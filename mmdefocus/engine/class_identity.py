"""Classes of checkpoints and data sets: their names, in the order of the labels, and the ids of their categories."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.runner import Runner
from torch import nn

from .errors import SetupError

_SHOWN = 4

Classes = tuple[str, ...] | None


def dataset_meta_of(checkpoint: Any) -> dict[str, Any]:
    """Return what a checkpoint says about its data set, with lower-case keys; empty if it says nothing.

    Args:
        checkpoint: Content of a checkpoint file.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping):
        return {}
    # MMDetection 2 and MMClassification wrote meta['CLASSES'].
    known = ('classes', 'palette', 'category_ids')
    old = {key.lower(): value for key, value in meta.items() if str(key).lower() in known}
    new = meta.get('dataset_meta')
    return old | ({str(key).lower(): value for key, value in new.items()} if isinstance(new, Mapping) else {})


def classes_of_checkpoint(checkpoint: Any) -> Classes:
    """Return the names of the classes that a checkpoint was trained for; None if it does not name them."""
    return _tuple(dataset_meta_of(checkpoint).get('classes'))


def classes_of(dataset: Any) -> Classes:
    """Return the names of the classes of a data set; None if it does not name them."""
    return _tuple(_metainfo(dataset).get('classes'))


def _metainfo(dataset: Any) -> Mapping[str, Any]:
    metainfo = getattr(dataset, 'metainfo', {})
    if isinstance(metainfo, Mapping):
        return metainfo
    parts = '; '.join(_some(_tuple(part.get('classes')) or ()) for part in metainfo)
    raise SetupError(
        f'the parts of a {type(dataset).__name__} differ in classes or other metainfo ({parts}), so that a label may '
        "mean two things; use type='DefocusConcatDataset' and give all parts the same classes in the same order"
    )


def _tuple(classes: Any) -> Classes:
    return (classes,) if isinstance(classes, str) else classes if classes is None else tuple(classes)


def predicted_classes(trained: Classes, chosen: Sequence[int] | None) -> Classes:
    """Return the classes that a head predicts.

    Args:
        trained: Classes of its checkpoint.
        chosen: ``predict_classes`` of the head; None if it predicts all.

    Returns:
        Their names in the order of the predictions; None if they are not known.
    """
    if trained is None or chosen is None:
        return trained
    names = tuple(trained[index] for index in chosen if index < len(trained))
    return names if len(names) == len(chosen) else None


def comparable_classes(model: nn.Module, trained: Classes, evaluated: Classes) -> Classes:
    """Return the classes that a model predicts; None if they cannot be compared with those of a data set.

    Args:
        model: Classifier or detector, without wrappers.
        trained: Classes of its training.
        evaluated: Classes of the data set.
    """
    chosen = getattr(getattr(model, 'head', None), 'predict_classes', None)
    names = predicted_classes(trained, chosen)
    # ImageNet-21k names classes by synset id, ImageNet-1k by words.
    return names if chosen is None or set(names or ()) & set(evaluated or ()) else None


def class_difference(first: Classes, second: Classes, owners: tuple[str, str]) -> str | None:
    """Describe the difference between the names or the order of two lists of classes.

    Args:
        first: Names; None if they are not known.
        second: Names to compare.
        owners: Whose classes these are, as in 'the checkpoint'.

    Returns:
        A sentence without its full stop; None without a difference, or if a list is not known.
    """
    if first is None or second is None or first == second:
        return None
    kind = 'the same classes in different orders' if same_names(first, second) else 'different classes'
    shown = [f'{len(names)} classes ({_some(names)})' for names in (first, second)]
    pairs = enumerate(zip(first, second, strict=False))
    differing = next((number for number, (one, other) in pairs if one != other), min(len(first), len(second)))
    return (
        f'{owners[0]} and {owners[1]} have {kind}: {owners[0]} has {shown[0]}, {owners[1]} has {shown[1]}; the first '
        f'that differs is number {differing}'
    )


def same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return True if two lists have the same names in any order."""
    return Counter(first) == Counter(second)


def _some(names: Sequence[str]) -> str:
    return ', '.join(map(str, names[:_SHOWN])) + (', ...' if len(names) > _SHOWN else '')


def category_id_difference(checkpoint: Any, dataset: Any, owners: tuple[str, str]) -> str | None:
    """Describe the difference between the category ids of a checkpoint and of a data set with the same classes.

    Args:
        checkpoint: Content of a checkpoint file.
        dataset: Data set.
        owners: Whose ids these are, as in 'the checkpoint'.

    Returns:
        A sentence without its full stop; None without a difference, or if either does not know ids.
    """
    first, second = dataset_meta_of(checkpoint).get('category_ids'), _metainfo(dataset).get('category_ids')
    if first is None or second is None or list(first) == list(second):
        return None
    names = classes_of(dataset) or ()
    name, one, other = next(found for found in zip(names, first, second, strict=False) if found[1] != found[2])
    return f'{owners[0]} and {owners[1]} have different category ids: {name} is {one!r} and {other!r}'


def check_reused_heads(runner: Runner, checkpoint: Any) -> None:
    """Compare the classes of ``load_from`` with those of the training set, if a head starts from its weights.

    Args:
        runner: Runner of a training whose model has loaded weights for the classes from the checkpoint.
        checkpoint: Content of the file.

    Raises:
        SetupError: The classes are the same in another order: the weights of every class would be used for another.
    """
    classes = classes_of(runner.train_dataloader.dataset)
    trained = classes_of_checkpoint(checkpoint)
    if classes is None:
        return
    if trained is None:
        runner.logger.warning(
            f'{runner._load_from} names no classes: its head is used for those of the training set ({_some(classes)}), '
            'which must be the classes that it was trained for, in this order'
        )
        return
    difference = class_difference(trained, classes, (str(runner._load_from), 'the training set'))
    if difference is None:
        return
    if same_names(trained, classes):
        raise SetupError(
            f'{difference}. The training would start with the weights of other classes: give the data sets the classes '
            'in the order of the checkpoint (metainfo=dict(classes=...), or classes=[...] of image folders)'
        )
    runner.logger.warning(
        f'{difference}. As their number is the same, the head starts with weights for the classes of the checkpoint'
    )
