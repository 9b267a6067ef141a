"""Detectors and classifiers under bfloat16 autocast on a CPU: predictions and losses in float32."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.engine.float32_predictions import keep_predictions_in_float32
from mmdefocus.engine.training_trial import _batch

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTORS = {
    'dino/defocus_mamba_nano_digits.py': {'model.backbone.blocks_in_fp32': False},
    'dino/defocus_mamba_nano.py': {},
    'mask_rcnn/dat_pp_tiny_12ep.py': {'model.backbone.arch': 'nano'},
    'retinanet/dat_pp_tiny_12ep.py': {'model.backbone.arch': 'nano'},
    'cascade_mask_rcnn/dat_pp_tiny_12ep.py': {'model.backbone.arch': 'nano'},
}


@pytest.fixture(params=DETECTORS)
def detector(request):
    """A detector with initial weights, and a batch of two images with three objects each."""
    options = DETECTORS[request.param]
    cfg = load_config(CONFIGS / request.param, options)
    if 'model.backbone.arch' in options:
        cfg.model.backbone.init_cfg = None
        cfg.model.neck.in_channels = [32, 64, 96, 128][-len(cfg.model.neck.in_channels) :]
    DefaultScope.get_instance('detector', scope_name='mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    size = dict(count=2, height=96, width=96, channels=3, objects=3, masks='mask_head' in str(cfg.model))
    return model, _batch(cfg, size, 3)


def losses_of(model, batch, amp):
    torch.manual_seed(1)
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        total, losses = model.parse_losses(model(**model.data_preprocessor(copy.deepcopy(batch), True), mode='loss'))
    return total, losses


def test_losses(detector):
    model, batch = detector
    _, expected = losses_of(model, batch, amp=False)
    keep_predictions_in_float32(model)
    total, losses = losses_of(model, batch, amp=True)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    exact, mixed = (sum(float(loss) for loss in one.values()) for one in (expected, losses))
    assert mixed == pytest.approx(exact, rel=0.05)


def test_boxes(detector):
    model, batch = detector
    model.eval()
    keep_predictions_in_float32(model)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        found = [sample.pred_instances for sample in model.test_step(copy.deepcopy(batch))]
    assert {(one.bboxes.dtype, one.scores.dtype) for one in found} == {(torch.float32, torch.float32)}
    boxes = torch.cat([one.bboxes for one in found])
    assert len(boxes) == 0 or not torch.equal(boxes, boxes.bfloat16().float()), 'rounded to bfloat16 on the way'


def test_a_second_call_changes_nothing(detector):
    model, _ = detector
    keep_predictions_in_float32(model)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    keep_predictions_in_float32(model)
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == hooks
    assert sum(hooks) > 0


def test_logits_of_a_classifier():
    head = MODELS.build(dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=4))
    keep_predictions_in_float32(head)
    with torch.autocast('cpu', torch.bfloat16):
        assert head((torch.randn(2, 4),)).dtype == torch.float32
    assert head.double()((torch.randn(2, 4).double(),)).dtype == torch.float64
