"""DAT classifiers, and the values under which the original code was measured."""

import zlib

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdefocus.models import DAT
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus


def make_classifier(arch: str, num_classes: int = 1000, **backbone) -> nn.Module:
    width = DAT.arch_zoo[arch]['embed_dims'][-1]
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='DAT', arch=arch, **backbone),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=num_classes, in_channels=width),
        )
    )


def random_official(arch: str, **kwargs) -> dict[str, Tensor]:
    """Return an official classifier in which no two tensors are equal."""
    with torch.device('meta'):
        official = mmdefocus_to_official(make_classifier(arch, **kwargs).state_dict())
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) for name, value in official.items()}


def probe_state_dict(names: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of the measurements of the original code, which depend on the official names."""
    return {name: _probe_value(name, tuple(value.shape)) for name, value in names.items()}


def probe_input(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).standard_normal(shape))


def make_probe_classifier(arch: str) -> nn.Module:
    """Return the classifier of the measurements, filled under its official names, in float64."""
    with torch.device('meta'):
        model = make_classifier(arch)
    official = mmdefocus_to_official(model.state_dict())
    model.load_state_dict(official_to_mmdefocus(probe_state_dict(official)), assign=True)
    return model.eval()


def _probe_value(name: str, shape: tuple[int, ...]) -> Tensor:
    z = torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape))
    if name.endswith('.bias'):
        return 0.1 * z
    if name.endswith(('rpb', 'rpe_table')):
        return 0.5 * z
    if z.ndim == 1:
        return 1 + 0.1 * z
    return z * (shape[0] / z.numel()) ** 0.5
