"""Sizes of images are followed through the transforms of a training to the largest ones."""

import pytest
from mmengine.config import Config

from mmdefocus.engine.largest_batch import largest_images

PHOTOS = {(480, 640), (640, 480), (300, 300)}


def sizes(*pipeline, images=PHOTOS):
    return largest_images([dict(step) for step in pipeline], lambda: images)


def test_the_multi_scale_training_of_detectors():
    steps = Config.fromfile('configs/_base_/datasets/multi_scale.py').multi_scale
    found = sizes(dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), steps, dict(type='PackDetInputs'))
    assert found.assumed == []
    # 4:3 at a short side of 800; a crop may be as wide as 600:384.
    assert {(800, 1067), (1067, 800), (800, 800)} <= found.sizes
    assert max(max(size) for size in found.sizes) in range(1240, 1334)
    assert found.batch == (max(h for h, _ in found.sizes), max(w for _, w in found.sizes))
    assert found.one[0] * found.one[1] == max(h * w for h, w in found.sizes)


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        (dict(type='Resize', scale=(200, 100)), {(100, 200)}),
        (dict(type='mmdet.Resize', scale=(320, 240), keep_ratio=True), {(240, 320), (320, 240), (240, 240)}),
        (dict(type='Resize', scale_factor=0.5), {(240, 320), (320, 240), (150, 150)}),
        (dict(type='RandomChoiceResize', scales=[(10, 10), (20, 20)]), {(10, 10), (20, 20)}),
        (dict(type='RandomResize', scale=(100, 100), ratio_range=(0.5, 2.0)), {(200, 200)}),
        (dict(type='ResizeEdge', scale=240), {(240, 320), (320, 240), (240, 240)}),
        (dict(type='RandomResizedCrop', scale=224), {(224, 224)}),
        (dict(type='CenterCrop', crop_size=(30, 20)), {(20, 30)}),
        (dict(type='RandomCrop', crop_size=(350, 350)), {(350, 350), (300, 300)}),
        (dict(type='RandomCrop', crop_size=32, padding=4), {(32, 32)}),
        (dict(type='RandomCrop', crop_size=(0.5, 1.0), crop_type='relative'), {(480, 320), (640, 240), (300, 150)}),
        (dict(type='Pad', size_divisor=256), {(512, 768), (768, 512), (512, 512)}),
        (dict(type='Pad', size=(700, 500)), {(500, 700), (640, 700)}),
        (dict(type='Pad', pad_to_square=True), {(640, 640), (300, 300)}),
        (dict(type='Expand', ratio_range=(1, 2)), PHOTOS | {(960, 1280), (1280, 960), (600, 600)}),
        (dict(type='torchvision/RandomAffine', degrees=5), PHOTOS),
        (
            dict(type='RandomApply', transforms=[dict(type='Resize', scale=(9, 9))]),
            PHOTOS | {(9, 9)},
        ),
        (
            dict(type='RandomChoice', transforms=[[dict(type='Resize', scale=(9, 9))], [dict(type='RandomFlip')]]),
            PHOTOS | {(9, 9)},
        ),
    ],
)
def test_transforms(step, expected):
    found = sizes(step)
    assert found.sizes == expected
    assert found.assumed == []


def test_an_unknown_transform_is_named():
    found = sizes(dict(type='Mosaic', img_scale=(640, 640)), dict(type='Mosaic', img_scale=(640, 640)))
    assert found.assumed == ['Mosaic']
    assert found.sizes == PHOTOS


def test_files_are_not_read_for_a_fixed_size():
    def fail():
        raise AssertionError('the sizes of the files were read')

    assert largest_images([dict(type='RandomResizedCrop', scale=32)], fail).one == (32, 32)


def test_range_crops_cover_the_extremes():
    found = sizes(dict(type='RandomCrop', crop_size=(100, 400), crop_type='absolute_range'), images={(500, 300)})
    assert {(100, 100), (400, 300), (100, 300), (400, 100)} <= found.sizes
    assert max(h for h, _ in found.sizes) == 400
    found = sizes(dict(type='RandomCrop', crop_size=(0.5, 0.5), crop_type='relative_range'), images={(500, 300)})
    assert {(250, 150), (500, 300)} <= found.sizes
