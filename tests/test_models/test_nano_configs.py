"""The nano configs of De-focus ViT and De-focus RetNet, with and without their band-pass."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

CONFIGS = Path(__file__).parents[2] / 'configs'
PLAIN = {'model.backbone.band_pass': False, 'model.backbone.absolute_positions': True}
WEIGHT_DECAY = {'classification': 0.05, 'dino': 1e-4}


@pytest.mark.parametrize('settings', [{}, PLAIN], ids=['band-pass', 'plain'])
@pytest.mark.parametrize('mixer', ['vit', 'retnet'])
@pytest.mark.parametrize('task', ['classification', 'dino'])
def test_positions_are_learned_without_weight_decay(task, mixer, settings):
    cfg = Config.fromfile(CONFIGS / task / f'defocus_{mixer}_nano_digits.py')
    cfg.merge_from_dict(settings)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(model.backbone).__name__ == {'vit': 'DefocusViT', 'retnet': 'DefocusRetNet'}[mixer]
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    by_name = {name: decays[id(parameter)] for name, parameter in model.named_parameters()}
    positions = {name for name in by_name if 'band_pass' in name or 'pos_embed' in name}
    assert len(positions) == (1 if settings else 2 * model.backbone.num_layers)
    assert {by_name[name] for name in positions} == {0.0}
    assert by_name['backbone.layers.0.mixer.out_proj.weight'] == WEIGHT_DECAY[task]

    (features,) = model.backbone(torch.randn(1, 3, *model.backbone.img_size))
    assert features.shape == ((1, 65, 96) if task == 'classification' else (1, 96, 20, 20))
