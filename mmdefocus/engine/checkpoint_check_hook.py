"""Check that a checkpoint matches the config and the data of a run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmdefocus.datasets.coco_ids import coco_category_ids
from mmdefocus.models.checkpoint import CheckpointError
from mmdefocus.models.checkpoint.fit import load_and_describe_misfit

from .class_count_hook import HEADS
from .class_identity import (
    category_id_difference,
    check_reused_heads,
    class_difference,
    classes_of,
    classes_of_checkpoint,
    comparable_classes,
    dataset_meta_of,
)
from .epoch_seed_hook import DefocusEpochSeedHook
from .errors import SetupError
from .resume_check import missing_for_resuming, optimizer_differences, scheduler_differences
from .resume_position import missing_position, position_differences, position_of
from .saved_groups import convert_groups


@HOOKS.register_module()
class DefocusCheckpointCheckHook(Hook):
    """Check that the checkpoint of a run matches its model and data. The tools add this hook to every run.

    In testing and validation, all tensors must fit, and the classes of the checkpoint (``meta.dataset_meta``, if it has
    them) must be those of the data set, in the same order. For a head with ``predict_classes``, only these classes are
    compared.

    In training, ``load_from`` may have other heads or only a part of the model, and a warning names the parts that keep
    their initial values; a checkpoint of which no part fits, or nothing but heads, is an error. A head that starts with
    weights for other classes gets a warning; the same classes in another order are an error. To resume a training,
    model, classes, category ids, optimiser and schedules must be the same. The validation set must have the classes of
    the training set.

    Args:
        strict: Raise an error for tensors that do not fit in testing and validation; else log a warning.
        compare_classes: Compare the classes with those of the checkpoint in testing and validation.

    Raises:
        CheckpointError: The checkpoint holds no state dict.
        SetupError: The checkpoint, or the validation set, does not match the run.
    """

    # Run before hooks that use the checkpoint, such as the EMA hook.
    priority = 'HIGHEST'

    def __init__(self, strict: bool = True, compare_classes: bool = True) -> None:
        self.strict = strict
        self.compare_classes = compare_classes

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Compare the run with the checkpoint before it is used."""
        check_weights_are_there(checkpoint, 'the checkpoint')
        if isinstance(runner._train_loop, BaseLoop):
            (_check_resumed if runner._resume else _check_initial)(runner, checkpoint)
            return
        misfit = _load_and_describe_misfit(runner.model, checkpoint)
        if misfit is not None and self.strict:
            raise SetupError(
                f'{runner._load_from} does not fit the model of the config: {misfit}. Use the config that the '
                'checkpoint was trained with; to test what fits, with random values in the rest, give --no-strict'
            )
        if misfit is not None:
            runner.logger.warning(f'{runner._load_from} does not fit the model of the config: {misfit}')
        for loop in (runner._test_loop, runner._val_loop):
            if self.compare_classes and isinstance(loop, BaseLoop):
                _check_evaluated_classes(runner, checkpoint, loop)
            if hasattr(loop, 'evaluator'):
                _complete_category_ids(checkpoint, loop)

    def before_train(self, runner: Runner) -> None:
        """Compare the validation set with the training set."""
        if isinstance(runner.val_loop, BaseLoop):
            trained, evaluated = map(classes_of, (runner.train_dataloader.dataset, runner.val_dataloader.dataset))
            predicted = comparable_classes(_unwrapped(runner.model), trained, evaluated)
            difference = class_difference(predicted, evaluated, ('the training set', 'the validation set'))
            if difference:
                raise SetupError(f'{difference}. Give both data sets the same classes in the same order')


def check_weights_are_there(checkpoint: Any, name: str) -> None:
    """Check that the content of a file is a checkpoint or a state dict.

    Args:
        checkpoint: Content of the file.
        name: Name of the file in messages.

    Raises:
        CheckpointError: It is neither.
    """
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__}, expected a dict with a state_dict; name '
            'a checkpoint, or save model.state_dict()'
        )
    if not isinstance(checkpoint.get('state_dict', {}), Mapping):
        kind = type(checkpoint['state_dict']).__name__
        raise CheckpointError(
            f'{name} has a state_dict of type {kind}, expected a dict of tensors; save model.state_dict()'
        )
    for key in checkpoint.get('state_dict', checkpoint):
        if not isinstance(key, str):
            raise CheckpointError(
                f'{name} has the key {key!r} of type {type(key).__name__}, expected names of tensors; save '
                'model.state_dict()'
            )


def _load_and_describe_misfit(model: nn.Module, checkpoint: Mapping[str, Any]) -> str | None:
    try:
        return load_and_describe_misfit(model, checkpoint)
    except ValueError as error:  # raised by a module for unsuitable weights
        raise SetupError(str(error)) from error


def _check_initial(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Check ``load_from`` of a training."""
    model = _unwrapped(runner.model)
    tensors = model.state_dict(keep_vars=True)
    versions = {name: tensor._version for name, tensor in tensors.items()}
    misfit = _load_and_describe_misfit(model, checkpoint)
    # Writing to a tensor increments its version.
    written = [name for name, tensor in tensors.items() if tensor._version > versions[name]]
    if any(part in HEADS for name in written for part in name.split('.')):
        check_reused_heads(runner, checkpoint)
    if misfit is None:
        return
    own, loaded = _per_part(tensors), _per_part(written)
    given = _per_part(key.removeprefix('module.') for key in checkpoint.get('state_dict', checkpoint))
    fitting = [part for part in own if 2 * loaded[part] > min(own[part], given[part] or own[part])]
    if all(part.endswith('head') for part in fitting) and not all(part.endswith('head') for part in given):
        raise SetupError(
            f'no complete part of {runner._load_from} fits the model of the config: {misfit}. Start from a '
            'checkpoint of the same kind of network, or without load_from'
        )
    kept = [
        f'{part} ({count - loaded[part]} of {count} tensors)' for part, count in own.items() if loaded[part] < count
    ]
    runner.logger.warning(
        f'{runner._load_from} fits in part: {misfit}. Initial values remain in {", ".join(kept) or "no part"}'
    )


def _check_resumed(runner: Runner, checkpoint: dict[str, Any]) -> None:
    missing = ' and '.join(missing_for_resuming(checkpoint))
    if not missing and (missing_exactness := missing_position(runner, checkpoint)):
        raise SetupError(
            f'{runner._load_from} cannot be resumed exactly: it has no {missing_exactness}. Resume another checkpoint, '
            'such as one from the end of an epoch, by its name after --resume; or start a new training from its '
            f'weights, without --resume, with load_from={runner._load_from} and another --work-dir'
        )
    if missing:
        raise SetupError(
            f'{runner._load_from} has no {missing} and cannot be resumed; name a checkpoint that was saved '
            'with the state of the optimiser, or start a new training with load_from'
        )
    misfit = _load_and_describe_misfit(runner.model, checkpoint)
    dataset, owners = runner.train_dataloader.dataset, ('the checkpoint', 'the training set')
    classes = class_difference(classes_of_checkpoint(checkpoint), classes_of(dataset), owners)
    classes = classes or category_id_difference(checkpoint, dataset, owners)
    differences = [
        *([f'the model: {misfit}'] if misfit else []),
        *([classes] if classes else []),
        *convert_groups(runner, checkpoint),
        *optimizer_differences(runner, checkpoint),
        *scheduler_differences(runner, checkpoint),
        *position_differences(runner, checkpoint),
        *_seed_differences(runner, checkpoint),
    ]
    if differences:
        raise SetupError(
            f'{runner._load_from} comes from a training with different settings:\n  '
            + '\n  '.join(differences)
            + f'\nRestore the settings to resume it, or start a new training from its weights: without --resume, with '
            f'load_from={runner._load_from} and another --work-dir'
        )
    _keep_own_best(Path(runner.work_dir), checkpoint['message_hub'].get('runtime_info', {}))


def _seed_differences(runner: Runner, checkpoint: Mapping[str, Any]) -> list[str]:
    seeded = any(isinstance(hook, DefocusEpochSeedHook) for hook in runner.hooks)
    if seeded or not position_of(checkpoint).get('first_batch'):
        return []
    return [
        'the run has no DefocusEpochSeedHook, which seeded the random numbers of the checkpoint, from the middle of an '
        "epoch: set default_hooks.sampler_seed.type='DefocusEpochSeedHook'"
    ]


def _keep_own_best(work_dir: Path, info: dict[str, Any]) -> None:
    """Keep the paths of the best checkpoints in this work directory only: MMEngine deletes the file it replaces."""
    for key in [name for name in info if name.startswith('best_ckpt')]:
        path = work_dir / Path(info.pop(key)).name
        if path.is_file():
            info[key] = str(path)


def _check_evaluated_classes(runner: Runner, checkpoint: Mapping[str, Any], loop: BaseLoop) -> None:
    dataset, owners = loop.dataloader.dataset, ('the checkpoint', 'the data set')
    classes = classes_of(dataset)
    predicted = comparable_classes(_unwrapped(runner.model), classes_of_checkpoint(checkpoint), classes)
    difference = class_difference(predicted, classes, owners)
    if difference:
        raise SetupError(
            f'{difference}. The predictions would be counted for the wrong classes: give the data set the classes of '
            'the checkpoint in its order (metainfo=dict(classes=...), or the names of the folders); if the names mean '
            'the same, give --ignore-class-names'
        )
    other_ids = category_id_difference(checkpoint, dataset, owners)
    if other_ids:
        runner.logger.info(f'{other_ids}. The results have the ids of the data set')


def _complete_category_ids(checkpoint: Mapping[str, Any], loop: BaseLoop) -> None:
    """Give the metrics the ids of the checkpoint if the annotation file of the data set lists no categories."""
    meta = loop.evaluator.dataset_meta
    if isinstance(meta, Mapping) and 'category_ids' not in meta:
        ids = dataset_meta_of(checkpoint).get('category_ids') or coco_category_ids(meta.get('classes'))
        if ids is not None and len(ids) == len(meta['classes']):
            loop.evaluator.dataset_meta = {**meta, 'category_ids': list(ids)}


def _per_part(names: Iterable[str]) -> Counter[str]:
    # MMEngine allows these counters to be missing.
    return Counter(name.partition('.')[0] for name in names if 'num_batches_tracked' not in name)


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model
