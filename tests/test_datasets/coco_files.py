"""A small COCO-format set and the data set that reads it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdefocus.datasets import DefocusCocoDataset

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True)]


def write(root: Path, content: Any) -> None:
    (root / 'images').mkdir(exist_ok=True)
    (root / 'ann.json').write_text(content if isinstance(content, str) else json.dumps(content))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for name in ('a.jpg', 'b.jpg'):
        Image.fromarray(pixels).save(root / 'images' / name)


def build(root: Path, classes: Any = ('cat', 'dog'), **kwargs: Any) -> DefocusCocoDataset:
    kwargs = dict(pipeline=LOAD, metainfo=dict(classes=classes)) | kwargs
    return DefocusCocoDataset(data_root=str(root), ann_file='ann.json', data_prefix=dict(img='images/'), **kwargs)
