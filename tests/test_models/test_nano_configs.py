"""The nano configs: De-focus ViT and De-focus RetNet with and without their band-pass, FCViT and DAT++."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

CONFIGS = Path(__file__).parents[2] / 'configs'
PLAIN = {'model.backbone.band_pass': False, 'model.backbone.absolute_positions': True}
WEIGHT_DECAY = {'classification': 0.05, 'dino': 1e-4}


def build(task, name, settings=None):
    """Return a config, its model, and the weight decay of every parameter by name."""
    cfg = Config.fromfile(CONFIGS / task / f'{name}_nano_digits.py')
    cfg.merge_from_dict(settings or {})
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    return cfg, model, {name: decays[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize('settings', [{}, PLAIN], ids=['band-pass', 'plain'])
@pytest.mark.parametrize('mixer', ['vit', 'retnet'])
@pytest.mark.parametrize('task', ['classification', 'dino'])
def test_positions_are_learned_without_weight_decay(task, mixer, settings):
    _, model, by_name = build(task, f'defocus_{mixer}', settings)
    assert type(model.backbone).__name__ == {'vit': 'DefocusViT', 'retnet': 'DefocusRetNet'}[mixer]
    positions = {name for name in by_name if 'band_pass' in name or 'pos_embed' in name}
    assert len(positions) == (1 if settings else 2 * model.backbone.num_layers)
    assert {by_name[name] for name in positions} == {0.0}
    assert by_name['backbone.layers.0.mixer.out_proj.weight'] == WEIGHT_DECAY[task]

    (features,) = model.backbone(torch.randn(1, 3, *model.backbone.img_size))
    assert features.shape == ((1, 65, 96) if task == 'classification' else (1, 96, 20, 20))


@pytest.mark.parametrize(('name', 'side'), [('fcvit', 32), ('dat', 64)])
def test_a_pyramid_classifies_digits(name, side):
    cfg, model, decays = build('classification', name)
    tables = {key for key in decays if 'rpe_table' in key}
    assert len(tables) == (5 if name == 'dat' else 0)
    assert {decays[key] for key in tables} <= {0.0}
    assert {decays[key] for key in decays if key.endswith('.bias') or 'layer_scale' in key} == {0.0}
    assert decays['head.fc.weight'] == WEIGHT_DECAY['classification']
    datasets = [loader.dataset for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)]
    assert [dataset.size for dataset in datasets] == [side] * 3
    assert [dataset.pipeline[0].scale for dataset in datasets[1:]] == [(side, side)] * 2
    logits = model.eval()(torch.randn(2, 3, side, side), mode='tensor')
    assert logits.shape == (2, 10)


@pytest.mark.parametrize('name', ['fcvit', 'dat'])
def test_a_pyramid_detects_digits(name):
    cfg, model, decays = build('dino', name)
    assert {decays[key] for key in decays if 'rpe_table' in key} <= {0.0}
    assert decays['bbox_head.cls_branches.0.weight'] == WEIGHT_DECAY['dino']
    maps = model.neck(model.backbone(torch.randn(1, 3, 96, 96)))
    # The levels of the detectors with De-focus backbones.
    assert [tuple(level.shape) for level in maps] == [(1, 96, 12, 12), (1, 96, 6, 6), (1, 96, 3, 3)]
    assert len(maps) == cfg.model.num_feature_levels
