"""An image as the input of a network, and as a picture of what the network sees.

Shapes: H and W height and width of the input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone


@dataclass(frozen=True)
class PreparedImage:
    """An image for one network.

    Attributes:
        name: Name of the image.
        inputs: Normalised input (1, 3, H, W).
        picture: What the network sees, (height, width, 3), RGB, uint8, in whole cells of its token grid: padding
            is grey where it is zero in the input.
    """

    name: str
    inputs: Tensor
    picture: np.ndarray


def prepare_image(model: nn.Module, batch: Mapping[str, Any], name: str) -> PreparedImage:
    """Normalise and pad an image as a data preprocessor of OpenMMLab does for inference.

    Args:
        model: Model with the data preprocessor.
        batch: Result of a pipeline, collated as a batch of one; in BGR, as pipelines of OpenMMLab read images.
        name: Name of the image.
    """
    preprocessor = model.get_submodule('data_preprocessor')
    inputs = preprocessor(batch, False)['inputs']
    backbone = getattr(model, 'backbone', None)
    # De-focus backbones fill incomplete cells of the token grid with zeros.
    cell = backbone.patch_size if isinstance(backbone, DefocusBackbone) else 1
    below, right = (-side % cell for side in inputs.shape[-2:])
    mean = getattr(preprocessor, 'mean', torch.zeros(3, 1, 1))
    std = getattr(preprocessor, 'std', torch.ones(3, 1, 1))
    is_rgb = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))
    picture = picture_of(F.pad(inputs[0], (0, right, 0, below)), mean, std)
    return PreparedImage(name, inputs, picture if is_rgb else np.ascontiguousarray(picture[..., ::-1]))


def picture_of(inputs: Tensor, mean: Tensor, std: Tensor) -> np.ndarray:
    """Undo a normalisation: (3, H, W) → (H, W, 3), uint8.

    Args:
        inputs: Normalised image.
        mean, std: Of the normalisation of pixel values from 0 to 255, (3, 1, 1).
    """
    pixels = inputs.detach().float().cpu() * std.cpu() + mean.cpu()
    return pixels.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
