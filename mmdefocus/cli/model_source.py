"""The model that a tool's arguments name: its config and its weights."""

from pathlib import Path

from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.model_index import find_model
from mmdefocus.apis.num_classes import resolve_num_classes
from mmdefocus.apis.runs.config_checks import check_model
from mmdefocus.apis.runs.config_file import load_config


def read_model_source(model: str, checkpoint: str | None) -> tuple[Config, str]:
    """Read the config of a model, and find its weights.

    Args:
        model: Config file, or name in the model index.
        checkpoint: File or URL of the weights; None for the published ones of a named model.

    Returns:
        Checked config, and file or URL of the weights.

    Raises:
        UsageError: The model does not exist, its config has a mistake, or it has no weights.
    """
    is_file = model.endswith('.py') or Path(model).exists()
    path, published = (model, None) if is_file else find_model(model)
    weights = checkpoint or published
    if weights is None:
        raise UsageError(f'{model} has no published weights; name a checkpoint with --checkpoint')
    config = load_config(path)
    check_model(config)
    resolve_num_classes(config)
    return config, weights
