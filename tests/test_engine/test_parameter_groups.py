"""Constructors that merge parameter groups, and the optimisers that they build."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmdefocus.engine
import mmdefocus.models  # noqa: F401
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.engine.parameter_groups import abbreviate_names, settings_of

CONFIGS_DIR = Path(__file__).parents[2] / 'configs'
ADAMW = {'type': 'AdamW', 'lr': 0.5, 'weight_decay': 0.25}
STOCK = {
    'DefocusOptimWrapperConstructor': 'DefaultOptimWrapperConstructor',
    'DefocusLayerDecayOptimWrapperConstructor': 'LearningRateDecayOptimWrapperConstructor',
}
# Number of groups of the configs that set `paramwise_cfg`.
CONFIGS = {
    'classification/defocus_mamba_base': 2,
    'classification/defocus_vit_base': 2,
    'classification/defocus_mamba_nano_digits': 2,
    'classification/defocus_retnet_nano_digits': 2,
    'classification/fcvit_nano_digits': 2,
    'classification/dat_nano_digits': 2,
    'classification/defocus_mamba_base_finetune': 52,  # 24 blocks, the patch embedding and the heads
    'classification/defocus_mamba_base_linear_probe': 1,
    'classification/defocus_mamba_nano_folder': 2,
    'dino/defocus_mamba_base_12ep': 2,
    'dino/defocus_vit_nano_digits': 2,
    'dino/fcvit_nano_digits': 2,
    'dino/dat_nano_digits': 2,
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5))
    )


def build(model, constructor='DefocusOptimWrapperConstructor', optimizer=ADAMW, **paramwise):
    cfg = {'optimizer': optimizer, 'constructor': constructor, 'paramwise_cfg': paramwise}
    return build_optim_wrapper(model, cfg)


def names_by_group(model, wrapper):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in group['params']] for group in wrapper.optimizer.param_groups]


def settings_by_name(model, wrapper):
    return {
        name: settings_of(group)
        for group, names in zip(wrapper.optimizer.param_groups, names_by_group(model, wrapper), strict=True)
        for name in names
    }


@pytest.fixture
def logged(monkeypatch):
    """Messages of MMEngine's current logger."""
    records = []
    logger = MMLogger.get_instance('parameter groups', logger_name='test')
    monkeypatch.setattr(logger, 'handle', lambda record: records.append(record.getMessage()))
    logger.setLevel(logging.INFO)
    return records


@pytest.mark.parametrize(('name', 'count'), CONFIGS.items())
def test_every_parameter_has_the_settings_of_the_stock_constructor(name, count):
    cfg = load_config(CONFIGS_DIR / f'{name}.py')
    if cfg.model.get('head', {}).get('num_classes') == 'auto':
        cfg.model.head.num_classes = 3
    settings = cfg.optim_wrapper
    settings.update(type='OptimWrapper')  # MMEngine's mixed precision needs a GPU
    settings = {key: value for key, value in settings.items() if key not in ('dtype', 'loss_scale')}
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model)
        merged = build_optim_wrapper(model, settings)
        stock = build_optim_wrapper(model, settings | {'constructor': STOCK[settings['constructor']]})
    assert settings_by_name(model, merged) == settings_by_name(model, stock)
    groups = merged.optimizer.param_groups
    assert len(groups) == count < len(stock.optimizer.param_groups)
    assert [group['param_names'] for group in groups] == names_by_group(model, merged)
    # LoggerHook shows the learning rate of the first group.
    assert groups[0]['lr'] == cfg.optim_wrapper.optimizer.lr


def test_configs_with_settings_per_parameter_merge_their_groups():
    paths = [path for folder in ('classification', 'dino') for path in (CONFIGS_DIR / folder).glob('*.py')]
    wrappers = {path.stem: load_config(path).get('optim_wrapper') or {} for path in paths}
    unmerged = [
        name
        for name, wrapper in wrappers.items()
        if wrapper.get('paramwise_cfg') and wrapper.get('constructor') not in STOCK
    ]
    assert unmerged == []


def test_groups_and_parameters_are_in_order():
    model = network()
    wrapper = build(model, custom_keys={'0.': {'lr_mult': 0.5}, '2.1': {'decay_mult': 2.0, 'eps': 1e-6}})
    assert names_by_group(model, wrapper) == [
        ['1.weight', '1.bias', '2.2.weight', '2.2.bias'],
        ['2.1.weight', '2.1.bias'],
        ['0.weight', '0.bias'],
    ]
    assert [group['lr'] for group in wrapper.optimizer.param_groups] == [0.5, 0.5, 0.25]
    assert [group['weight_decay'] for group in wrapper.optimizer.param_groups] == [0.25, 0.5, 0.25]
    assert [group['eps'] for group in wrapper.optimizer.param_groups] == [1e-8, 1e-6, 1e-8]


def test_settings_that_say_the_same_in_different_ways():
    """A factor of one, the same decay by two rules, and a setting that repeats the optimiser's own."""
    custom_keys = {'0.weight': {'lr_mult': 1.0}, '1.weight': {'decay_mult': 0.0}, '2.1.weight': {'eps': 1e-6}}
    wrapper = build(network(), flat_decay_mult=0.0, custom_keys=custom_keys, optimizer=ADAMW | {'eps': 1e-6})
    assert [group['param_names'] for group in wrapper.optimizer.param_groups] == [
        ['0.weight', '2.1.weight'],
        ['0.bias', '1.weight', '1.bias', '2.1.bias', '2.2.weight', '2.2.bias'],
    ]


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    assert build(model, norm_decay_mult=0.0).optimizer.param_groups[1]['param_names'] == ['2.1.weight', '2.1.bias']


def test_without_settings_per_parameter():
    model = network()
    (group,) = build(model).optimizer.param_groups
    assert group['params'] == list(model.parameters())


@pytest.mark.parametrize('implementation', [{}, {'foreach': True}, {'fused': True}], ids=str)
def test_merging_changes_no_bit_of_the_weights(implementation):
    ends = []
    for constructor in ('DefocusOptimWrapperConstructor', 'DefaultOptimWrapperConstructor'):
        model = network()
        optimizer = ADAMW | {'lr': 1e-2} | implementation
        wrapper = build(model, constructor, optimizer, norm_decay_mult=0.0, custom_keys={'2.1': {'lr_mult': 0.1}})
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            wrapper.zero_grad()
            model(torch.randn(8, 1, 4, 4, generator=generator)).square().sum().backward()
            wrapper.step()
        ends.append(copy.deepcopy(model.state_dict()))
    assert len(wrapper.optimizer.param_groups) == 8
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_the_log_lists_the_groups(logged):
    build(network(), norm_decay_mult=0.0, custom_keys={'0.weight': {'lr_mult': 0.1}})
    assert logged[-1].splitlines() == [
        'The optimiser has 3 parameter groups:',
        'group 0 (lr=0.5, weight_decay=0.25), 3 parameters: 0.bias, 2.1.*',
        'group 1 (lr=0.5, weight_decay=0), 4 parameters: 1.*, 2.2.*',
        'group 2 (lr=0.05, weight_decay=0.25), 1 parameters: 0.weight',
    ]


def test_the_log_names_the_layers_of_a_decaying_rate(logged):
    model = MODELS.build(
        {
            'type': 'mmpretrain.ImageClassifier',
            'backbone': {'type': 'DefocusViT', 'arch': 'nano', 'img_size': 32, 'patch_size': 8, 'out_type': 'raw'},
            'head': {'type': 'DefocusClsHead', 'num_classes': 3, 'in_channels': 96},
        }
    )
    build(model, 'DefocusLayerDecayOptimWrapperConstructor', layer_decay_rate=0.5, flat_decay_mult=0.0)
    lines = logged[-1].splitlines()
    assert lines[1:3] == [
        'group 0 (lr=0.5, weight_decay=0), 4 parameters: backbone.norm.*, head.fc.bias, head.aux_fc.bias',
        'group 1 (lr=0.5, weight_decay=0.25), 2 parameters: head.fc.weight, head.aux_fc.weight',
    ]
    rates = ['0.03125', '0.0625', '0.125', '0.25']
    for number, rate in enumerate(rates):
        (line,) = [line for line in lines if f'(lr={rate}, weight_decay=0.25)' in line]
        assert line.endswith(
            f'backbone.layers.{number}.mixer.qkv.weight, backbone.layers.{number}.mixer.band_pass.*, '
            f'backbone.layers.{number}.mixer.out_proj.weight, backbone.layers.{number}.ffn.up.weight, '
            f'backbone.layers.{number}.ffn.down.weight'
        )


@pytest.mark.parametrize(('kind', 'channels', 'depths'), [('FCViT', 96, (1, 1, 2, 1)), ('DAT', 128, (2, 2, 2, 2))])
def test_the_rate_decays_over_the_stages_of_a_pyramid(kind, channels, depths):
    model = MODELS.build(
        {
            'type': 'mmpretrain.ImageClassifier',
            'backbone': {'type': kind, 'arch': 'nano'},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'head': {'type': 'mmpretrain.LinearClsHead', 'num_classes': 3, 'in_channels': channels},
        }
    )
    wrapper = build(model, 'DefocusLayerDecayOptimWrapperConstructor', layer_decay_rate=0.5, flat_decay_mult=0.0)
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    total = sum(depths) + 1  # the exponent of the stem
    blocks = [f'backbone.stages.{stage}.{block}.' for stage in range(4) for block in range(depths[stage])]
    firsts = {f'backbone.downsample_layers.{stage}.': sum(depths[:stage]) + 1 for stage in (1, 2, 3)}
    layers = {'backbone.downsample_layers.0.': 0} | {name: i + 1 for i, name in enumerate(blocks)} | firsts
    layers |= {'backbone.norm3.': total, 'head.fc.': total}
    for name, rate in found.items():
        (layer,) = [number for start, number in layers.items() if name.startswith(start)]
        assert rate == pytest.approx(0.5 * 0.5 ** (total - layer)), name
    assert len(wrapper.optimizer.param_groups) == 2 * (total + 1), 'with and without weight decay'


@pytest.mark.parametrize(
    ('names', 'others', 'expected'),
    [
        (['a.weight', 'a.bias', 'b'], ['c.weight'], ['a.*', 'b']),
        (['a.0.w', 'a.1.w', 'a.2.w', 'a.4.w'], ['a.0.b'], ['a.0.w', 'a.1-2,4.*']),
        (['a.0.w', 'a.1.w', 'a.11.w'], ['a.0.b', 'a.1.b', 'a.11.b'], ['a.0-1,11.w']),
        (
            ['a.0.b.0.w', 'a.0.b.1.w', 'a.1.b.0.w', 'a.1.b.1.w'],
            ['a.0.b.0.v', 'a.0.b.1.v', 'a.1.b.0.v', 'a.1.b.1.v'],
            ['a.0-1.b.0-1.w'],
        ),
        (['ab.w'], ['a.w', 'b.w'], ['ab.*']),
        ([], ['a'], []),
    ],
)
def test_abbreviated_names(names, others, expected):
    assert abbreviate_names(names, others) == expected
