"""Backbones with their pyramid as parts of other detectors than DINO, in a few lines of config."""

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

CONFIGS = Path(__file__).parents[2] / 'configs'
PYRAMIDS = sorted(path.stem for path in (CONFIGS / '_base_' / 'backbones').glob('*.py'))
MASK_RCNN = f"""
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '{CONFIGS}/_base_/backbones/PYRAMID.py',
    '{CONFIGS}/_base_/runtimes/detection.py',
]
model = _base_.pyramid
model.neck.update(out_channels=256, num_outs=5)
if 'start_level' in model.neck:
    model.neck.start_level = 0
"""


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def mask_rcnn(tmp_path):
    def read(pyramid: str) -> Config:
        path = tmp_path / 'mask_rcnn.py'
        path.write_text(MASK_RCNN.replace('PYRAMID', pyramid))
        return Config.fromfile(path)

    return read


@pytest.mark.parametrize('pyramid', PYRAMIDS)
def test_mask_rcnn_has_the_backbone_and_the_neck_of_the_base(pyramid, mask_rcnn):
    cfg = mask_rcnn(pyramid)
    base = Config.fromfile(CONFIGS / '_base_' / 'backbones' / f'{pyramid}.py').pyramid
    assert cfg.model.type == 'MaskRCNN'
    assert cfg.model.backbone == {key: value for key, value in base.backbone.items() if key != '_delete_'}
    assert cfg.model.neck.in_channels == base.neck.in_channels
    with torch.device('meta'), torch.no_grad():
        model = MODELS.build(cfg.model).requires_grad_(False)
        levels = model.extract_feat(torch.empty(1, 3, 224, 224))
    assert type(model.backbone).__name__ == base.backbone.type
    assert len(levels) == len(model.rpn_head.prior_generator.strides) == 5


def test_mask_rcnn_trains(mask_rcnn):
    cfg = mask_rcnn('defocus_mamba_nano_pyramid')
    cfg.model.backbone.drop_path_rate = 0.0
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    masks = BitmapMasks(torch.ones(1, 96, 128, dtype=torch.uint8).numpy(), 96, 128)
    truth = InstanceData(bboxes=torch.tensor([[10.0, 10, 50, 60]]), labels=torch.tensor([3]), masks=masks)
    meta = {'img_shape': (96, 128), 'ori_shape': (96, 128), 'scale_factor': (1, 1)}
    sample = DetDataSample(gt_instances=truth, metainfo=meta)
    batch = {'inputs': [torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8)], 'data_samples': [sample]}
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert 'loss_mask' in losses
    assert model.backbone.layers[0].mixer.in_proj.weight.grad.any()


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('dino/*.py')), ids=lambda path: path.stem)
def test_merging_leaves_no_instruction_in_the_model(path):
    assert '_delete_' not in str(Config.fromfile(path).model)
