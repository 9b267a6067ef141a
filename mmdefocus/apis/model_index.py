"""The models of ``model-index.yml`` by name; importing this module adds the classifiers to MMPreTrain's list.

The detectors stay out of that list, since MMPreTrain cannot build them; :func:`find_model` knows all.
"""

from pathlib import Path

from mmpretrain.apis import ModelHub
from modelindex import load_model_index

from mmdefocus.apis.errors import UsageError

# As OpenMMLab's packages, this one carries its configs with it; in a checkout these are links to those at its root.
ROOT = Path(__file__).parents[1] / '.mim'

ModelHub.register_model_index(ROOT / 'configs' / 'classification' / 'metafile.yml', config_prefix=ROOT)


def find_model(name: str) -> tuple[str, str | None]:
    """Look up a model.

    Args:
        name: A name of ``model-index.yml``; upper and lower case are the same.

    Returns:
        The path of the model's config file, and the URL of its weights where these are published.

    Raises:
        UsageError: There is no model of this name.
    """
    models = {model.name.lower(): model for model in load_model_index.load(str(ROOT / 'model-index.yml')).models}
    if name.lower() not in models:
        raise UsageError(f'expected one of the models {", ".join(sorted(models))}; got {name!r}')
    model = models[name.lower()]
    return str(ROOT / model.config), model.weights
