"""FCViT classifiers with the official names, and the values under which the original code was measured."""

import zlib

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdefocus.models import FCViT
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus


def make_classifier(arch: str, num_classes: int = 1000, **backbone) -> nn.Module:
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type=FCViT, arch=arch, **backbone),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=num_classes,
                in_channels=FCViT.arch_zoo[arch]['embed_dims'][-1],
            ),
        )
    )


def official_state_dict(arch: str, **kwargs) -> dict[str, Tensor]:
    """Return the tensors of a new classifier with official names."""
    return mmdefocus_to_official(make_classifier(arch, **kwargs).state_dict())


def random_official(arch: str, seed: int = 0, **kwargs) -> dict[str, Tensor]:
    """Return an official classifier in which no two tensors are equal."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.randint(1, 1000, value.shape, generator=generator)
        for key, value in official_state_dict(arch, **kwargs).items()
    }


def probe_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the value of a tensor in the measurements of the original code, which depends on its official name."""
    z = torch.from_numpy(np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape))
    if key.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith('running_var'):
        return 1 + 0.1 * z.abs()
    if key.endswith(('running_mean', '.bias', 'rescale_bias')):
        return 0.1 * z
    if 'layer_scale' in key:
        return 0.5 + 0.1 * z
    if 'rescale_weight' in key or z.ndim == 1:
        return 1 + 0.1 * z
    return z * (shape[0] / z.numel()) ** 0.5


def probe_state_dict(names: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: probe_value(key, tuple(value.shape)) for key, value in names.items()}


def probe_input(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).standard_normal(shape))


def make_probe_classifier(arch: str) -> nn.Module:
    """Return the classifier of the measurements, filled under its official names, in float64."""
    with torch.device('meta'):
        model = make_classifier(arch)
    official = mmdefocus_to_official(model.state_dict())
    model.load_state_dict(official_to_mmdefocus(probe_state_dict(official)), assign=True)
    return model.eval()
