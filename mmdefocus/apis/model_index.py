"""Models of ``model-index.yml`` by name. Importing this module adds the classifiers to MMPreTrain's model index.

MMPreTrain cannot build detectors, so that they are not added to its index; :func:`find_model` finds all models.
"""

import difflib
from pathlib import Path
from typing import Any

from mmpretrain.apis import ModelHub
from modelindex import load_model_index

from mmdefocus.apis.errors import UsageError

# As in OpenMMLab's packages, configs are part of the package; in a checkout, these are links to its root.
ROOT = Path(__file__).parents[1] / '.mim'

ModelHub.register_model_index(ROOT / 'configs' / 'classification' / 'metafile.yml', config_prefix=ROOT)


def list_names() -> list[str]:
    """Return the names of all models in ``model-index.yml``, in lower case."""
    return sorted(_models())


def find_model(name: str) -> tuple[str, str | None]:
    """Look up a model.

    Args:
        name: Name in ``model-index.yml``, in upper or lower case.

    Returns:
        Path of the model's config file, and URL of its weights or None if they are not published.

    Raises:
        UsageError: There is no model of this name.
    """
    models = _models()
    if name.lower() not in models:
        close = difflib.get_close_matches(name.lower(), sorted(models), n=3)
        hint = f'did you mean {", ".join(close)}?' if close else 'give one of them, or the path of a config file'
        raise UsageError(f'expected one of the models {", ".join(sorted(models))}; got {name!r}; {hint}')
    model = models[name.lower()]
    return str(ROOT / model.config), model.weights


def _models() -> dict[str, Any]:
    return {model.name.lower(): model for model in load_model_index.load(str(ROOT / 'model-index.yml')).models}
