"""The linear rule of the learning rate."""

import pytest
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.learning_rate import describe_lr, enable_lr_rule, scaled_lr


def config(**changes):
    return Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)), **changes))


def test_the_rule():
    cfg = config(auto_scale_lr=dict(base_batch_size=16))
    assert describe_lr(cfg, 8) == (
        'learning rate 0.001 (linear rule off; it is made for 16 images per step, and there are 8)'
    )
    assert scaled_lr(cfg, 8) == 1e-3
    enable_lr_rule(cfg)
    assert describe_lr(cfg, 8) == 'learning rate 0.001 × 8/16 = 0.0005 (linear rule)'  # noqa: RUF001
    assert scaled_lr(cfg, 8) == 5e-4
    cfg.optim_wrapper.accumulative_counts = 4
    assert scaled_lr(cfg, 2, world_size=2) == 1e-3


def test_without_a_base():
    cfg = config()
    assert describe_lr(cfg, 8) == 'learning rate 0.001 (the recipe names no base batch size for the linear rule)'
    with pytest.raises(UsageError, match=r'which the config does not name; set auto_scale_lr=dict\(base_batch_size'):
        enable_lr_rule(cfg)
