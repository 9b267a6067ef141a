"""The size of the images that a classifier is made for: the default of get_flops and benchmark."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdefocus.apis.complexity import count_complexity
from mmdefocus.apis.image_size import image_size, is_built_for_images

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
CROP = [dict(type='ResizeEdge', scale=248), dict(type='CenterCrop', crop_size=96), dict(type='PackInputs')]
LANDSCAPE = [dict(type='Resize', scale=(96, 64)), dict(type='PackInputs')]


@pytest.mark.parametrize(
    ('backbone', 'is_built', 'expected'),
    [
        # Networks of tokens, and those of MMPreTrain that have positions.
        (dict(type='DefocusViT', img_size=160), True, (160, 160)),
        (dict(type='DefocusViT', img_size=(64, 160)), True, (64, 160)),
        (dict(type='VisionTransformer', img_size=160), True, (160, 160)),
        # `img_size` of DAT determines the sizes of tables.
        (dict(type='DAT', img_size=160), False, (96, 96)),
        (dict(type='FCViT'), False, (96, 96)),
        (dict(type='ResNet', depth=18), False, (96, 96)),
    ],
)
def test_img_size_counts_unless_images_may_have_any_size(backbone, is_built, expected):
    cfg = Config(
        dict(
            default_scope='mmpretrain', model=dict(backbone=backbone), test_dataloader=dict(dataset=dict(pipeline=CROP))
        )
    )
    assert is_built_for_images(cfg) == is_built
    assert image_size(cfg) == expected


@pytest.mark.parametrize(
    ('pipeline', 'expected'),
    [
        (LANDSCAPE, (64, 96)),  # MMCV writes the width first
        ([dict(type='Resize', scale=384)], (384, 384)),
        ([dict(type='Resize', scale=256), dict(type='CenterCrop', crop_size=(96, 64))], (64, 96)),
        ([dict(type='Resize', scale=(96, 64), keep_ratio=True)], (224, 224)),
        ([], (224, 224)),
    ],
)
def test_the_last_step_of_the_test_pipeline_decides(pipeline, expected):
    cfg = Config(dict(model=dict(backbone=dict(type='FCViT')), test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    assert image_size(cfg) == expected


def test_without_a_test_set():
    assert image_size(Config(dict(model=dict(backbone=dict(type='FCViT'))))) == (224, 224)


@pytest.mark.parametrize(('name', 'side'), [('fcvit_nano_digits', 32), ('dat_nano_digits', 64)])
def test_flops_are_counted_for_the_test_images(name, side):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    found = count_complexity(cfg)
    assert found.shape == (side, side)
    assert found == count_complexity(cfg, (side, side))
    assert 0 == found.scan_multiply_adds < found.multiply_adds < count_complexity(cfg, (96, 96)).multiply_adds
