"""The zoo: architectures of a size by name, for classification and for detection."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError
from .zoo_table import CLASSIFIERS, DETECTORS, EXAMPLES, MEMORY, PUBLISHED, ZooRow

if TYPE_CHECKING:  # the completion of the shell reads this module, without torch
    from mmdefocus.datasets.prepared.source_data import Task

# As in OpenMMLab's packages, configs are part of the package; in a checkout, these are links to its root.
CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'
# The sizes of De-focus Mamba have short names.
ALIASES = {size: f'defocus_mamba_{size}' for size in ('nano', 'small', 'base', 'large')}


@dataclass(frozen=True)
class ZooModel:
    """An architecture of a size, for a task.

    Attributes:
        name: Name in the zoo.
        task: ``detection`` or ``classification``.
        config: Config for own data, below the folder ``configs``.
        image_size: Height and width in pixels for which the numbers below are.
        parameters: Number of parameters, with a head for 80 classes (detection) or 1000 (classification).
        multiply_adds: Multiply-adds of inference for one image, as :func:`~mmdefocus.apis.complexity.count_complexity`
            counts them.
        inference_mib: Measured peak memory of the process for inference of one image on a CPU, in MiB; None if it was
            not measured.
        training_mib: Measured peak memory of the process in training steps of two images on a CPU, in MiB; None if it
            was not measured.
        published: Name in ``model-index.yml`` of the model whose weights were published; None if there are none.
        example: A trained checkpoint of a demo is part of the package.
    """

    name: str
    task: 'Task'
    config: str
    image_size: tuple[int, int]
    parameters: int
    multiply_adds: int
    inference_mib: int | None = None
    training_mib: int | None = None
    published: str | None = None
    example: bool = False

    @property
    def config_file(self) -> Path:
        """Path of the config for own data."""
        return CONFIGS / self.config

    @property
    def family(self) -> str:
        """The architecture without the size."""
        return self.name.rpartition('_')[0]


def list_zoo(task: 'Task | None' = None) -> list[ZooModel]:
    """Return the models of the zoo, detectors first, each in the order of families and sizes.

    Args:
        task: Leave out the models of the other task.
    """
    tables: dict[Task, Sequence[ZooRow]] = dict(detection=DETECTORS, classification=CLASSIFIERS)
    return [_model(kind, row) for kind, rows in tables.items() if task in (None, kind) for row in rows]


def find_zoo_model(name: str, task: 'Task') -> ZooModel:
    """Look up a model.

    Args:
        name: Name in the zoo, in upper or lower case, with ``-`` or ``_``; ``nano``, ``small``, ``base`` and ``large``
            are sizes of De-focus Mamba.
        task: ``detection`` or ``classification``.

    Raises:
        UsageError: The zoo has no model of this name for this task.
    """
    plain = name.lower().replace('-', '_')
    plain = ALIASES.get(plain, plain)
    models = {model.name: model for model in list_zoo(task)}
    if plain in models:
        return models[plain]
    other: Task = 'classification' if task == 'detection' else 'detection'
    if any(model.name == plain for model in list_zoo(other)):
        raise UsageError(
            f'the zoo has {plain} for {other} only; for {task} it has {_grouped(list(models.values()))}. Name one of '
            'them, or give the path of a config'
        )
    close = difflib.get_close_matches(plain, [*models, *ALIASES], n=3, cutoff=0.5)
    hint = f'; did you mean {", ".join(close)}?' if close else '.'
    raise UsageError(
        f'expected a model of the zoo, the path of a config (.py) or of a checkpoint (.pth), got {name!r}{hint} For '
        f'{task}, the zoo has {_grouped(list(models.values()))}'
    )


def zoo_names() -> list[str]:
    """Return the names that a command accepts for some task: those of the zoo and the short ones."""
    return [*ALIASES, *dict.fromkeys(model.name for model in list_zoo())]


def zoo_columns(model: ZooModel) -> dict[str, str]:
    """Return the row of a model in a table: titles and texts."""
    weights = 'published' if model.published else 'example (digits)' if model.example else 'none'
    return {
        'Name': model.name,
        'Parameters': f'{model.parameters / 1e6:.1f} M',
        'Multiply-adds': _giga(model.multiply_adds),
        'Image': f'{model.image_size[0]} x {model.image_size[1]}',
        'Memory, inference': _mib(model.inference_mib),
        'Memory, training': _mib(model.training_mib),
        'Weights': weights,
    }


def _giga(count: int) -> str:
    value = count / 1e9
    return f'{value:.0f} G' if value >= 100 else f'{value:.3g} G'


def _mib(value: int | None) -> str:
    return 'not measured' if value is None else f'{value} MiB'


def _model(task: 'Task', row: ZooRow) -> ZooModel:
    name, config, size, parameters, multiply_adds = row
    key = (task, name)
    inference, training = MEMORY.get(key, (None, None))
    return ZooModel(
        name, task, config, size, parameters, multiply_adds, inference, training, PUBLISHED.get(key), key in EXAMPLES
    )


def _grouped(models: Sequence[ZooModel]) -> str:
    families: dict[str, list[str]] = {}
    for model in models:
        families.setdefault(model.family, []).append(model.name.rpartition('_')[2])
    return ', '.join(
        f'{family}_{{{",".join(sizes)}}}' if len(sizes) > 1 else f'{family}_{sizes[0]}'
        for family, sizes in families.items()
    )
