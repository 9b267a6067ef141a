"""FLOPs of detectors of regions, counted without values."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from mmdefocus.apis.complexity import count_complexity

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPE = (96, 128)


def read(name, regions):
    """Read a config, with the smallest FCViT and so many regions."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.model.backbone = dict(type='FCViT', arch='nano', out_indices=(0, 1, 2, 3))
    cfg.model.neck.in_channels = [32, 48, 64, 96]
    cfg.model.test_cfg.rpn.max_per_img = regions
    return cfg


@pytest.mark.parametrize('name', ['mask_rcnn/fcvit_b12_12ep', 'cascade_mask_rcnn/dat_pp_tiny_12ep'])
def test_counts_are_those_of_real_proposals(name):
    cfg = read(name, 3)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    sample = DetDataSample(metainfo=dict(img_shape=SHAPE, ori_shape=SHAPE, batch_input_shape=SHAPE, pad_shape=SHAPE))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *SHAPE), [sample], mode='tensor')
    assert count_complexity(cfg, SHAPE).multiply_adds == counter.get_total_flops() // 2


def test_at_most_a_hundred_regions_have_a_mask():
    counts = [count_complexity(read('mask_rcnn/fcvit_b12_12ep', n), SHAPE).multiply_adds for n in (99, 100, 101)]
    assert 0 < counts[2] - counts[1] < counts[1] - counts[0]
