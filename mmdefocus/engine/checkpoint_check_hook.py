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

from mmdefocus.models.checkpoint import CheckpointError
from mmdefocus.models.checkpoint.fit import load_and_describe_misfit

from .errors import SetupError
from .resume_check import missing_for_resuming, optimizer_differences, scheduler_differences

_SHOWN = 4

Classes = tuple[str, ...] | None


@HOOKS.register_module()
class DefocusCheckpointCheckHook(Hook):
    """Check that the checkpoint of a run matches its model and data. The tools add this hook to every run.

    In testing and validation, all tensors must fit, and the classes of the checkpoint (``meta.dataset_meta``, if it has
    them) must be those of the data set, in the same order. For a head with ``predict_classes``, only these classes are
    compared.

    In training, ``load_from`` may have other heads or only a part of the model, and a warning names the parts that keep
    their initial values; a checkpoint of which no part fits, or nothing but heads, is an error. To resume a training,
    model, classes, optimiser and schedules must be the same. The validation set must have the classes of the training
    set.

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

    def before_train(self, runner: Runner) -> None:
        """Compare the validation set with the training set."""
        if isinstance(runner.val_loop, BaseLoop):
            trained, evaluated = map(_classes_of, (runner.train_dataloader.dataset, runner.val_dataloader.dataset))
            difference = _class_difference(
                _predicted(runner.model, trained, evaluated), evaluated, ('the training set', 'the validation set')
            )
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
    if misfit is None:
        return
    # Writing to a tensor increments its version.
    loaded = _per_part(name for name, tensor in tensors.items() if tensor._version > versions[name])
    own = _per_part(tensors)
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


def _check_resumed(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    missing = ' and '.join(missing_for_resuming(checkpoint))
    if missing:
        raise SetupError(
            f'{runner._load_from} has no {missing} and cannot be resumed; name a checkpoint that was saved '
            'with the state of the optimiser, or start a new training with load_from'
        )
    misfit = _load_and_describe_misfit(runner.model, checkpoint)
    classes = _class_difference(
        _classes_of_checkpoint(checkpoint),
        _classes_of(runner.train_dataloader.dataset),
        ('the checkpoint', 'the training set'),
    )
    differences = [
        *([f'the model: {misfit}'] if misfit else []),
        *([classes] if classes else []),
        *optimizer_differences(runner, checkpoint),
        *scheduler_differences(runner, checkpoint),
    ]
    if differences:
        raise SetupError(
            f'{runner._load_from} comes from a training with different settings:\n  '
            + '\n  '.join(differences)
            + f'\nRestore the settings to resume it, or start a new training from its weights: without --resume, with '
            f'load_from={runner._load_from} and another --work-dir'
        )
    _keep_own_best(Path(runner.work_dir), checkpoint['message_hub'].get('runtime_info', {}))


def _keep_own_best(work_dir: Path, info: dict[str, Any]) -> None:
    """Keep the paths of the best checkpoints in this work directory only: MMEngine deletes the file it replaces."""
    for key in [name for name in info if name.startswith('best_ckpt')]:
        path = work_dir / Path(info.pop(key)).name
        if path.is_file():
            info[key] = str(path)


def _check_evaluated_classes(runner: Runner, checkpoint: Mapping[str, Any], loop: BaseLoop) -> None:
    classes = _classes_of(loop.dataloader.dataset)
    difference = _class_difference(
        _predicted(runner.model, _classes_of_checkpoint(checkpoint), classes),
        classes,
        ('the checkpoint', 'the data set'),
    )
    if difference:
        raise SetupError(
            f'{difference}. The predictions would be counted for the wrong classes: give the data set the classes of '
            'the checkpoint in its order (metainfo=dict(classes=...), or the names of the folders); if the names mean '
            'the same, give --ignore-class-names'
        )


def _classes_of(dataset: Any) -> Classes:
    return _tuple(getattr(dataset, 'metainfo', {}).get('classes'))


def _classes_of_checkpoint(checkpoint: Mapping[str, Any]) -> Classes:
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping):
        return None
    # MMDetection 2 and MMClassification wrote meta['CLASSES'].
    named = {key.lower(): value for key, value in {**meta, **(meta.get('dataset_meta') or {})}.items()}
    return _tuple(named.get('classes'))


def _tuple(classes: Any) -> Classes:
    return (classes,) if isinstance(classes, str) else classes if classes is None else tuple(classes)


def _predicted(model: nn.Module, trained: Classes, evaluated: Classes) -> Classes:
    """Return the classes that a head with ``predict_classes`` predicts, if both data sets use the same names."""
    chosen = getattr(getattr(_unwrapped(model), 'head', None), 'predict_classes', None)
    if trained is None or chosen is None:
        return trained
    names = tuple(trained[index] for index in chosen if index < len(trained))
    # ImageNet-21k names classes by synset id, ImageNet-1k by words.
    return names if len(names) == len(chosen) and set(names) & set(evaluated or ()) else None


def _class_difference(first: Classes, second: Classes, owners: tuple[str, str]) -> str | None:
    if first is None or second is None or first == second:
        return None
    kind = 'the same classes in different orders' if Counter(first) == Counter(second) else 'different classes'
    shown = [f'{len(names)} classes ({_some(names)})' for names in (first, second)]
    pairs = enumerate(zip(first, second, strict=False))
    differing = next((number for number, (one, other) in pairs if one != other), min(len(first), len(second)))
    return (
        f'{owners[0]} and {owners[1]} have {kind}: {owners[0]} has {shown[0]}, {owners[1]} has {shown[1]}; the first '
        f'that differs is number {differing}'
    )


def _some(names: tuple[str, ...]) -> str:
    return ', '.join(map(str, names[:_SHOWN])) + (', ...' if len(names) > _SHOWN else '')


def _per_part(names: Iterable[str]) -> Counter[str]:
    # MMEngine allows these counters to be missing.
    return Counter(name.partition('.')[0] for name in names if 'num_batches_tracked' not in name)


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model
