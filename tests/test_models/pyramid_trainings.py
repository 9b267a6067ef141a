"""Toy classifiers of FCViT and DAT, and the content of the files that the trainers of their authors would write."""

import argparse
from functools import cache

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from timm.scheduler import CosineLRScheduler

from mmdefocus.models import DAT

DAT_V1 = DAT.arch_zoo['v1-tiny'] | dict(
    embed_dims=(16, 16, 32, 32),
    blocks=('LS', 'L', 'LD', 'LD'),
    num_heads=(1, 2, 2, 4),
    num_groups=(1, 1, 2, 2),
)
BACKBONES = {
    'fcvit': dict(type='FCViT', arch='nano'),
    'dat++': dict(type='DAT', arch='nano'),
    'dat v1': dict(type='DAT', arch=DAT_V1),
}
EACH = pytest.mark.parametrize('network', BACKBONES)
ENTRIES = {'fcvit': 'state_dict', 'dat++': 'model', 'dat v1': 'model'}
AVERAGES = {'fcvit': 'state_dict_ema', 'dat++': 'model_ema', 'dat v1': 'model_ema'}


class CfgNode(dict):
    """Pickled as the config of yacs, which keeps its switches in the attributes of a dict."""

    def __init__(self, *args):
        super().__init__(*args)
        self.__dict__.update({'__immutable__': True, '__deprecated_keys__': set(), '__new_allowed__': False})


class Call:
    """Pickled as a call of a function."""

    def __init__(self, *parts):
        self.parts = (parts[0], parts[1:])

    def __reduce__(self):
        return self.parts


def classifier_config(network):
    backbone = dict(BACKBONES[network], drop_path_rate=0.1)
    width = 32 if network == 'dat v1' else MODELS.get(backbone['type']).arch_zoo['nano']['embed_dims'][-1]
    head = dict(type='LinearClsHead', num_classes=5, in_channels=width)
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)


@cache
def make_classifier(network):
    """A classifier whose parameters and statistics all differ from their initial values."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(classifier_config(network))
    model.init_weights()
    with torch.no_grad():
        for value in (*model.parameters(), *(value for name, value in model.named_buffers() if 'running' in name)):
            value += 0.1 * torch.rand_like(value)
    return model.eval()


def training_of(network, state_dict):
    """The content of a file of the official trainer: timm's for FCViT, Swin's for DAT."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))])
    optimizer.param_groups[0]['params'][0].grad = torch.ones(3)
    optimizer.step()
    if network == 'fcvit':
        args = argparse.Namespace(model='fcvit_tiny', lr=1e-3, mean=(0.485, 0.456, 0.406), resume='', aug_splits=0)
        return dict(
            epoch=309,
            arch='fcvit_tiny',
            state_dict=state_dict,
            optimizer=optimizer.state_dict(),
            version=2,
            args=args,
            amp_scaler=dict(scale=65536.0, growth_factor=2.0, _growth_tracker=7),
            state_dict_ema=state_dict,
            metric=74.9,
        )
    model = CfgNode({'TYPE': 'dat', 'DAT': CfgNode({'img_size': 224, 'stage_spec': [['N', 'D'], ['D', 'D']]})})
    return dict(
        model=state_dict,
        optimizer=optimizer.state_dict(),
        lr_scheduler=CosineLRScheduler(optimizer, t_initial=300, warmup_t=20).state_dict(),
        max_accuracy=83.864,
        epoch=299,
        config=CfgNode({'DATA': CfgNode({'IMG_SIZE': 224}), 'MODEL': model, 'AMP': True, 'TAG': 'default'}),
    )
