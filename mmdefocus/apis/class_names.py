"""Names of the classes that an inferencer predicts."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import fileio
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import nn

from mmdefocus.apis.errors import UsageError
from mmdefocus.datasets.coco_ids import coco_category_ids
from mmdefocus.engine.class_count_hook import predicted_counts
from mmdefocus.engine.class_identity import (
    class_difference,
    classes_of_checkpoint,
    dataset_meta_of,
    predicted_classes,
)


def find_dataset_meta(model: nn.Module, checkpoint: Any, cfg: Config, strict: bool) -> dict[str, Any]:
    """Find the names of the classes that a model predicts: those of its checkpoint, or else of the config's data set.

    Args:
        model: Classifier or detector.
        checkpoint: Content of its checkpoint file; None without one.
        cfg: Its config. ``test_dataloader.dataset`` may have ``metainfo`` or ``classes``.
        strict: Raise an error if checkpoint and config name other classes; else a warning says so, and the names are
            those of the checkpoint.

    Returns:
        ``classes``, a tuple in the order of the predictions; ``category_ids`` in the same order, if the checkpoint has
        them or the classes are those of COCO; and ``palette``, if there is one. Empty if no names are known.

    Raises:
        UsageError: The names contradict each other, or their number is not that of the predicted classes.
    """
    saved, (configured, explicit) = dataset_meta_of(checkpoint), _read_config(cfg)
    chosen = getattr(getattr(model, 'head', None), 'predict_classes', None)
    trained, named = predicted_classes(classes_of_checkpoint(checkpoint), chosen), configured.get('classes')
    if (
        trained is not None
        and named is not None
        and not explicit
        and len(named) not in predicted_counts(model).values()
    ):
        named = None  # The config does not name classes; these are the default of the type of its data set.
    if chosen is not None and named is not None and not set(trained or ()) & set(named):
        trained = None  # Names of another kind: ImageNet-21k has synset ids, ImageNet-1k words.
    difference = class_difference(trained, named, ('the checkpoint', 'the data set of the config'))
    if difference and strict:
        raise UsageError(
            f'{difference}. Use the config that the checkpoint was trained with, or correct metainfo.classes of its '
            'test_dataloader.dataset; strict=False (image_demo: --no-strict) takes the names of the checkpoint'
        )
    if difference:
        print_log(f'{difference}. The names are those of the checkpoint', logger='current', level=logging.WARNING)
    classes = named if trained is None else trained
    if classes is None:
        return {}
    if trained is None:
        owner = 'the data set of the config'
        remedy = 'the checkpoint names none: give test_dataloader.dataset those of its training, metainfo.classes'
    else:
        owner, remedy = 'the checkpoint', 'use the config and the checkpoint of the same training'
    check_number(classes, model, owner, remedy)
    own = configured if trained is None else saved
    ids = own.get('category_ids') or coco_category_ids(classes)
    if ids is not None and len(ids) != len(classes):
        raise UsageError(f'{owner} has {len(ids)} category_ids for {len(classes)} classes; {remedy}')
    palette = saved.get('palette') or configured.get('palette')
    optional = {'category_ids': ids, 'palette': palette}
    return {'classes': classes} | {key: value for key, value in optional.items() if value is not None}


def check_number(classes: Sequence[str], model: nn.Module, owner: str, remedy: str) -> None:
    """Check that there is a name for every class that a model predicts.

    Args:
        classes: Names.
        model: Classifier or detector.
        owner: Whose names they are, for the message.
        remedy: What to do, for the message.

    Raises:
        UsageError: There are more or fewer.
    """
    for setting, count in predicted_counts(model).items():
        if count != len(classes):
            raise UsageError(
                f'{owner} names {len(classes)} classes, but the model predicts {count} (model.{setting}), and names '
                f'would be wrong; {remedy}'
            )


def default_metainfo(cfg: Config) -> dict[str, Any]:
    """Return what the type of the config's data set says about its classes if the config says nothing."""
    kind = _dataset_config(cfg).get('type')
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(kind) if isinstance(kind, str) else kind
    return {**getattr(kind, 'METAINFO', {})}


def _read_config(cfg: Config) -> tuple[dict[str, Any], bool]:
    """Return the metainfo of the config's data set, and whether the config itself names the classes."""
    dataset = _dataset_config(cfg)
    given = {'classes': dataset.get('classes'), **(dataset.get('metainfo') or {})}
    explicit = given['classes'] is not None
    if isinstance(given['classes'], str) and fileio.exists(given['classes']):
        given['classes'] = fileio.list_from_file(given['classes'])
    metainfo = default_metainfo(cfg) | {key: value for key, value in given.items() if value is not None}
    if 'classes' in metainfo:
        metainfo['classes'] = tuple(metainfo['classes'])
    return metainfo, explicit


def _dataset_config(cfg: Config) -> Mapping[str, Any]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:  # wrappers such as RepeatDataset
        dataset = dataset['dataset']
    return dataset
