"""The demo's config and the tool for one training step, as a user runs them."""

import re

import pytest
from commands import TOOLS, tool

NANO = TOOLS.parent / 'configs' / 'dino' / 'defocus_mamba_nano_digits.py'
CLASSIFIER = TOOLS.parent / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory, digits_coco):
    root = tmp_path_factory.mktemp('nano')
    (root / 'data').mkdir()
    (root / 'data' / 'digits').symlink_to(digits_coco)
    return root


def test_demo_config_trains_every_parameter_and_is_tested_with_augmentation(folder):
    report = tool(folder, 'check_training_step.py', NANO, '--work-dir', 'work')
    assert re.search(r'\ninputs: (3 x 160 x 160, ){3}3 x 160 x 160\nlosses: loss \d', report)
    found = re.search(r'(\d+) of (\d+) trainable parameters have a gradient', report)
    assert found[1] == found[2]
    assert 'not finite' not in report
    # The class token comes after all tokens that a detector uses; the others are before layers that start at zero.
    zeros = re.findall(r'^  ([\w.]+)$', report, re.MULTILINE)
    assert 'backbone.cls_token' in zeros
    others = set(zeros) - {'backbone.cls_token', 'level_embed'}
    assert {name.split('.')[:2][1] for name in others} == {'reg_branches'}
    assert re.search(r'iteration: [\d.]+ s on 1 threads, peak memory [\d.]+ GiB', report)

    (checkpoint,) = (folder / 'work').glob('*.pth')
    table = tool(folder, 'test.py', NANO, checkpoint, '--work-dir', 'tested', '--tta')
    assert 'COCO box AP' in table


def test_classifier_with_schedules_by_epoch(tmp_path):
    options = ('train_dataloader.batch_size=2', 'default_hooks.logger.interval=1')
    report = tool(tmp_path, 'check_training_step.py', CLASSIFIER, '--cfg-options', *options)
    assert '\ninputs: 3 x 32 x 32, 3 x 32 x 32\nlosses: loss ' in report
    assert 'drop_path_rate: 0.0000' in report
    found = re.search(r'(\d+) of (\d+) trainable parameters have a gradient', report)
    assert found[1] == found[2]
    assert 'gradient of zero' not in report


def test_gradients_that_are_not_finite_are_an_error(folder):
    infinite_loss = 'model.bbox_head.loss_bbox.loss_weight=1e39'
    report = tool(
        folder, 'check_training_step.py', NANO, '--work-dir', 'broken', '--cfg-options', infinite_loss, code=1
    )
    assert 'parameters with a gradient that is not finite' in report


def test_missing_config(folder):
    tool(folder, 'check_training_step.py', 'nano.py', code=2)
