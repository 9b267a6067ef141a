"""Valid inputs of toy size: annotations, images, folders of classes and weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from broken_inputs import TOYS
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image


def annotations() -> dict[str, Any]:
    """Two images with two boxes each, and two categories with gaps in their ids."""
    return dict(
        images=[
            dict(id=7, file_name='a.jpg', width=40, height=30),
            dict(id=9, file_name='b.jpg', width=40, height=30),
        ],
        annotations=[
            dict(id=1, image_id=7, category_id=3, bbox=[1, 2, 10, 12], area=120, iscrowd=0),
            dict(id=2, image_id=7, category_id=5, bbox=[20, 5, 8.5, 9], area=76.5, iscrowd=0),
            dict(id=3, image_id=9, category_id=3, bbox=[10, 6, 20, 20], area=400, iscrowd=0),
            dict(id=4, image_id=9, category_id=5, bbox=[15, 4, 20, 25], area=500, iscrowd=0),
        ],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
    )


def write(root: Path) -> None:
    """Write ``ann.json`` and ``images/``, ``train/`` and ``val/`` with a folder per class, and ``weights.pth``."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    folders = [f'{split}/{name}' for split in ('train', 'val') for name in ('cat', 'dog')]
    for folder in ('images', *folders):
        (root / folder).mkdir(parents=True)
        for name in ('a.jpg', 'b.jpg'):
            Image.fromarray(pixels).save(root / folder / name)
    (root / 'ann.json').write_text(json.dumps(annotations()))
    for toy in TOYS.glob('*.py'):
        (root / toy.name).write_text(f'_base_ = {str(toy)!r}\n')
    torch.save(checkpoint('classifier', num_classes=2), root / 'weights.pth')
    torch.save(checkpoint('detector', num_classes=2), root / 'detector.pth')


def checkpoint(name: str, num_classes: int) -> dict[str, Any]:
    """Weights of a toy network as a training saves them."""
    cfg = Config.fromfile(TOYS / f'{name}.py')
    head = 'bbox_head' if name == 'detector' else 'head'
    cfg.model[head].num_classes = num_classes
    if 'data_preprocessor' in cfg and name == 'classifier':
        cfg.data_preprocessor.num_classes = num_classes
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    return dict(meta=dict(dataset_meta=dict(classes=('cat', 'dog'))), state_dict=model.state_dict())
