"""A whole official detector at toy size: our config, the official file, MMDetection's steps; its boxes and losses."""

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from test_golden import assert_parity

from mmdefocus.models.checkpoint import mmdefocus_to_official

GOLDEN = Path(__file__).parents[1] / 'golden'
CONFIGS = Path(__file__).parents[2] / 'configs' / 'dino'
TOLERANCE = 1e-6


@pytest.fixture
def expected():
    return torch.load(GOLDEN / 'det_full_expected.pt', weights_only=True)


@pytest.fixture
def runner(expected, tmp_path):
    """The published config, made small by nothing but what the golden file names, with the official file loaded."""
    cfg = Config.fromfile(CONFIGS / 'defocus_mamba_base_12ep.py')
    width = expected['arch']['embed_dims']
    cfg.model.backbone.update(drop_path_rate=0.0)
    for key in ('arch', 'pretrain_size', 'rope_scale', 'delta_scale'):
        cfg.model.backbone[key] = expected[key]
    cfg.model.neck.update(in_channels=width, out_channels=expected['neck_out'])
    cfg.merge_from_dict({f'model.{key}': value for key, value in expected['dino_changes'].items()})
    runner = Runner(
        cfg.model,
        str(tmp_path),
        load_from=str(GOLDEN / 'det_full_official_det.pth'),
        default_scope='mmdet',
        log_level='ERROR',
    )
    runner.load_or_resume()
    return runner


def make_batch(expected):
    samples = []
    for image, boxes, labels in zip(expected['images'], expected['gt_boxes'], expected['gt_labels'], strict=True):
        size = tuple(image.shape[-2:])
        meta = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        truth = InstanceData(bboxes=boxes, labels=labels)
        samples.append(DetDataSample(metainfo=meta, gt_instances=truth))
    return dict(inputs=list(expected['images']), data_samples=samples)


def test_boxes(runner, expected):
    runner.model.eval()
    with torch.no_grad():
        predictions = [sample.pred_instances for sample in runner.model.test_step(make_batch(expected))]
    assert len(predictions) == len(expected['bboxes']) == 2
    for found, boxes, scores, labels in zip(
        predictions, expected['bboxes'], expected['scores'], expected['labels'], strict=True
    ):
        assert torch.equal(found.labels, labels)
        assert_parity(found.scores, scores, 'scores', TOLERANCE)
        assert_parity(found.bboxes, boxes, 'boxes', TOLERANCE)


def compute_losses(runner, expected):
    model = runner.model.train()
    batch = model.data_preprocessor(make_batch(expected), training=True)
    torch.manual_seed(expected['loss_seed'])
    return model.parse_losses(model(**batch, mode='loss'))


def test_losses(runner, expected):
    _, losses = compute_losses(runner, expected)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected['losses'], rel=TOLERANCE)


def test_gradients(runner, expected, monkeypatch):
    """With the operators' reference: DINO amplifies the rounding of another order of summation, up to 1.5e-4."""
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    compute_losses(runner, expected)[0].backward()
    model = runner.model
    norms = {
        name: torch.zeros(()) if parameter.grad is None else parameter.grad.norm()
        for name, parameter in model.named_parameters()
    }
    assert {name: norm.item() for name, norm in mmdefocus_to_official(norms, 'detection').items()} == pytest.approx(
        expected['grad_norms'], rel=TOLERANCE, abs=1e-9
    )
