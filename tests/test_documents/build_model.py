"""Build the model of a config and extract the features of an image: ``python build_model.py CONFIG``."""

import sys

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

cfg = Config.fromfile(sys.argv[1])
init_default_scope(cfg.get('default_scope', 'mmdet'))
for maps in MODELS.build(cfg.model).extract_feat(torch.zeros(1, 3, 64, 96)):
    sys.stdout.write(f'{tuple(maps.shape)}\n')
