"""What DINO's detections depend on: against finite differences, and in the frame of the original image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmdefocus.analysis.cams import cam
from mmdefocus.analysis.detector_queries import DetectionMaps, detection_maps
from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.query_pictures import draw_detection_maps

CONFIG = Path(__file__).parents[2] / 'configs' / 'dino' / 'defocus_mamba_nano_digits.py'
WINDOW = {'token_order': 'window', 'pretrain_size': 32}
RESNET = {
    'backbone': {'type': 'ResNet', 'depth': 18, 'base_channels': 4, 'stem_channels': 4, 'out_indices': (1, 2, 3)},
    'neck': {
        'type': 'ChannelMapper',
        'in_channels': [8, 16, 32],
        'kernel_size': 1,
        'out_channels': 96,
        'num_outs': 3,
    },
}


def build(order: dict | None = None, **changes: Any) -> nn.Module:
    model = Config.fromfile(CONFIG).model
    for name in changes:
        model.pop(name)
    model.update(num_queries=6, test_cfg=dict(max_per_img=6), **changes)
    if order:
        model.backbone.update(order)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model)
        detector.init_weights()
    for branch in detector.bbox_head.cls_branches:
        nn.init.normal_(branch.weight, std=0.3)
    for branch in detector.bbox_head.reg_branches:
        nn.init.normal_(branch[-1].weight, std=0.1)
    return detector.eval()


def inputs(size: tuple[int, int], content: tuple[int, int] | None = None, scale: float = 1.0) -> tuple[Tensor, Any]:
    """Return normalised images of ``size`` with an image of ``content`` pixels, ``scale`` times the original."""
    content = content or size
    images = torch.zeros(1, 3, *size)
    images[:, :, : content[0], : content[1]] = torch.randn(1, 3, *content)
    original = tuple(round(side / scale) for side in content)
    meta = {'img_shape': content, 'ori_shape': original, 'batch_input_shape': size, 'scale_factor': (scale, scale)}
    return images, DetDataSample(metainfo=meta)


@pytest.mark.parametrize('of', ['score', 'box'])
def test_the_map_is_the_gradient_by_finite_differences(of: str):
    detector = build({'token_order': 'raster'}).double()
    images, sample = inputs((40, 48), scale=2.0)
    images = images.double()
    found = detection_maps(detector, images, sample, top=1, of=of)
    query, label = int(found.queries[0]), int(found.labels[0])
    row, column = divmod(int(found.maps[0].argmax()), 6)
    shift = torch.zeros(2 * 96, 96, 5, 6, dtype=torch.float64)  # one image per channel and sign
    shift[range(96), range(96), row, column] = 1e-5
    shift[range(96, 192), range(96), row, column] = -1e-5
    detector.backbone.register_forward_hook(lambda _, __, output: (output[0] + shift,))
    with torch.no_grad():
        outputs = detector.forward_transformer(detector.extract_feat(images), [sample] * len(shift))
        logits, boxes = (values[-1][:, query] for values in detector.bbox_head(**outputs))
    x, y, width, height = (boxes * torch.tensor([24, 20, 24, 20])).unbind(-1)
    corners = torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=-1)
    values = logits[:, label, None] if of == 'score' else corners
    differences = (values[:96] - values[96:]) / 2e-5
    torch.testing.assert_close(found.maps[0, row, column].double(), differences.norm(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ('order', 'changes', 'cell'),
    [
        pytest.param({}, {}, 8, id='raster'),
        pytest.param(WINDOW, {}, 8, id='window'),
        pytest.param(None, RESNET, 32, id='resnet'),
    ],
)
@pytest.mark.parametrize('at', ['features', 'image', 0, -1])
@pytest.mark.parametrize('content', [(64, 96), (59, 70)])
def test_detections_are_those_of_predict_and_maps_cover_the_image(
    order: dict | None, changes: dict, cell: int, at: str | int, content: tuple[int, int]
):
    detector = build(order, **changes)
    images, sample = inputs((64, 96), content, scale=2.0)
    found = detection_maps(detector, images, sample, top=3, at=at)
    (predicted,) = detector.predict(images, [sample.clone()])
    expected = predicted.pred_instances[:3]
    torch.testing.assert_close(found.boxes, expected.bboxes)
    torch.testing.assert_close(found.scores, expected.scores)
    assert found.labels.equal(expected.labels)
    if order is None and at == 0:
        cell = 4  # the first layer of a ResNet
    assert found.cell == (cell / 2, cell / 2)
    assert found.maps.shape == (3, -(-content[0] // cell), -(-content[1] // cell))
    assert found.maps.amin() >= 0
    assert found.maps.amax((1, 2)).min() > 0


@pytest.mark.parametrize('order', [{}, WINDOW])
def test_the_only_cell_that_matters_is_the_bright_one(order: dict):
    """A detector whose features are constant except at one cell of the image, in every place."""
    detector = build(order)
    row, column = 5, 9

    class OneCell(nn.Module):
        def forward(self, features: tuple[Tensor]) -> Any:
            values = torch.zeros_like(features[0])
            values[:, :, row, column] = features[0][:, :, row, column]
            return self.inner((values,))

    gate = OneCell()
    gate.inner = detector.neck
    detector.neck = gate
    for block in detector.backbone.layers:
        block.mixer.out_proj.weight.data.zero_()  # tokens do not see one another
    images, sample = inputs((64, 96), (60, 90))
    for at in ('features', 'image', 2):
        found = detection_maps(detector, images, sample, top=1, at=at)
        assert found.maps[0, row, column] > 0
        assert found.maps[0].count_nonzero() == 1


def test_pixels_are_pooled_to_cells(monkeypatch: pytest.MonkeyPatch):
    detector = build()
    images, sample = inputs((24, 20))
    found = detection_maps(detector, images, sample, top=1, at='image')
    images.requires_grad_()
    monkeypatch.setattr(Tensor, 'detach', lambda self: self)
    outputs = detector.forward_transformer(detector.extract_feat(images), [sample])
    logits = detector.bbox_head(**outputs)[0][-1][0]
    (gradient,) = torch.autograd.grad(logits[found.queries[0], found.labels[0]], images)
    monkeypatch.undo()
    expected = torch.zeros(3, 3)
    for y in range(24):
        for x in range(20):
            expected[y // 8, x // 8] += gradient[0, :, y, x].square().sum()
    torch.testing.assert_close(found.maps[0], expected.sqrt(), rtol=1e-4, atol=1e-6)


def test_nothing_is_left_behind():
    detector = build().train()
    detector.neck.eval()
    modes = [module.training for module in detector.modules()]
    images, sample = inputs((32, 32))
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in detector.modules()]
    for at in ('features', 'image', 1):
        detection_maps(detector, images, sample, at=at)
    for options in ({'at': 9}, {'at': 'edge'}, {'score_threshold': 2}):
        with pytest.raises(AnalysisError):
            detection_maps(detector, images, sample, **options)
    assert [module.training for module in detector.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in detector.modules()] == hooks
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert not images.requires_grad
    assert 'pred_instances' not in sample


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'score_threshold': 1.5},
            r'no detection has a score of at least 1.5 \(the best has 0.\d+\); lower the thresh',
        ),
        ({'top': 0}, r'top must be at least 1, .* got 0'),
        ({'of': 'class'}, r"of must be 'score' or 'box', got 'class'"),
        ({'at': 'neck'}, r"at must be 'features', 'image' or the number of a layer, got 'neck'"),
        ({'at': 4}, r'has the layers 0 to 3 \(or -4 to -1\), got 4'),
    ],
)
def test_errors_of_arguments(options: dict, message: str):
    with pytest.raises(AnalysisError, match=message):
        detection_maps(build(), *inputs((32, 32)), **options)


def test_errors_of_inputs_and_models():
    detector = build()
    images, sample = inputs((32, 32))
    with pytest.raises(
        AnalysisError, match=r'expected one image \(1, 3, height, width\), got the shape \(2, 3, 32, 32'
    ):
        detection_maps(detector, images.repeat(2, 1, 1, 1), sample)
    flipped = sample.clone()
    flipped.set_metainfo({'flip': True})
    with pytest.raises(AnalysisError, match=r'the image was flipped'):
        detection_maps(detector, images, flipped)
    bare = DetDataSample(metainfo={'img_shape': (32, 32), 'batch_input_shape': (32, 32)})
    with pytest.raises(AnalysisError, match=r"the data sample has no scale_factor; add 'scale_factor' to meta_keys"):
        detection_maps(detector, images, bare)
    with pytest.raises(AnalysisError, match=r'DINO gives no class logits; expected a classifier \(for DINO detectors'):
        cam(detector, images)

    class Classifier(nn.Module):
        head = nn.Identity()

    with pytest.raises(AnalysisError, match=r'expected DINO, .* got Classifier; for class activation maps .* see cam'):
        detection_maps(Classifier(), images, sample)
    for value, message in (
        (float('nan'), r'(not those of predict|no detection)'),
        (0.0, r'detection 0 does not depend on the image'),
    ):
        broken = build()
        for parameter in broken.neck.parameters():
            parameter.data.fill_(value)
        with pytest.raises(AnalysisError, match=message):
            detection_maps(broken, images, sample)


def test_a_head_that_predicts_in_another_way_is_an_error(monkeypatch: pytest.MonkeyPatch):
    detector = build()
    predict: Callable = detector.predict

    def shifted(*args: Any, **kwargs: Any) -> Any:
        results = predict(*args, **kwargs)
        results[0].pred_instances.bboxes += 3
        return results

    monkeypatch.setattr(detector, 'predict', shifted)
    with pytest.raises(AnalysisError, match=r'are not those of predict: the nearest box is .* of the longer side away'):
        detection_maps(detector, *inputs((32, 32)))


def test_the_picture_shows_the_map_where_it_belongs(tmp_path: Path):
    from matplotlib.image import imread

    maps = torch.zeros(1, 4, 6)
    maps[0, 3, 1] = 2
    found = DetectionMaps(
        torch.tensor([[30.0, 5.0, 50.0, 15.0]]),
        torch.tensor([0.5]),
        torch.tensor([7]),
        torch.tensor([0]),
        maps,
        (8, 10),
    )
    draw_detection_maps(np.full((30, 57, 3), 128, np.uint8), found, tmp_path / 'one.png')
    picture = imread(tmp_path / 'one.png')[..., :3]
    heat = (picture[..., 0] - picture[..., 2] > 0.3).nonzero()
    box = (picture[..., 2] - picture[..., 0] > 0.3).nonzero()
    per_pixel = np.ptp(box[1]) / 20
    left = box[1].min() - 30 * per_pixel
    upper = box[0].min() - 5 * per_pixel
    cell = (np.array([heat[1].min(), heat[1].max()]) - left) / per_pixel
    np.testing.assert_allclose(cell, [10, 20], atol=1)
    rows = (np.array([heat[0].min(), heat[0].max()]) - upper) / per_pixel
    np.testing.assert_allclose(rows, [24, 30], atol=1)  # the last row of cells reaches beyond the image
    draw_detection_maps(np.zeros((30, 57, 3), np.uint8), found, tmp_path / 'two.png', classes=list('abcdefgh'))
    with pytest.raises(OSError, match=r'missing'):
        draw_detection_maps(np.zeros((30, 57, 3), np.uint8), found, tmp_path / 'missing' / 'x.png')
