"""Weights of an inferencer."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmdefocus.models.checkpoint.fit import load_and_describe_misfit


def load_all_weights(model: nn.Module, checkpoint: Mapping[str, Any] | None, name: str | None) -> None:
    """Load a checkpoint that has exactly the tensors of a model.

    Args:
        model: Model.
        checkpoint: Content of the checkpoint file; None without one.
        name: Path or URL of the file, for the message.

    Raises:
        ValueError: There is no checkpoint, or tensors are missing, unexpected or of a different shape.
    """
    advice = 'with strict=False (image_demo: --no-strict) missing tensors keep random values'
    if checkpoint is None:
        raise ValueError(f'the model has no weights: name a checkpoint; {advice}')
    misfit = load_and_describe_misfit(model, checkpoint)
    if misfit is not None:
        raise ValueError(
            f'{name} does not fit the model: {misfit}. Use the config that the checkpoint was trained with; {advice}'
        )
