"""FCViT and DAT on a folder of images: from an official classifier of 1000 classes, and with a weight that is NaN."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_test_options, apply_train_options
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.engine.errors import SetupError
from mmdefocus.models.checkpoint import mmdefocus_to_official

FOLDER = Path(__file__).parents[2] / 'configs' / 'classification' / 'defocus_mamba_nano_folder.py'
CONFIG = """
_base_ = '{base}'
data_root = '{images}'
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(_delete_=True, type='{network}', arch='nano'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes='auto', in_channels={channels}),
)
train_cfg = dict(max_epochs=2)
"""
CHANNELS = {'FCViT': 96, 'DAT': 128}
# A module inside a token mixer.
POISONED = {
    'FCViT': ('backbone.stages.2.1.token_mixer.gc2.fc1', 'Linear'),
    'DAT': ('backbone.stages.1.1.attn.rpe_table', 'TablePositionBias'),
}
numbers = itertools.count()


@pytest.fixture(params=CHANNELS, scope='module')
def network(request):
    return request.param


@pytest.fixture(scope='module')
def folder(network, tmp_path_factory) -> Path:
    """A config, a folder of two classes, and an official file of 1000 classes."""
    root = tmp_path_factory.mktemp(network)
    for number, name in enumerate(('train/a', 'train/b', 'val/a', 'val/b')):
        (root / 'images' / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.full((40, 40, 3), 60 * number + index, np.uint8)
            Image.fromarray(pixels).save(root / 'images' / name / f'{index}.png')
    text = CONFIG.format(base=FOLDER, images=root / 'images', network=network, channels=CHANNELS[network])
    (root / 'config.py').write_text(text)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type=network, arch='nano'),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=CHANNELS[network]),
        )
    )
    torch.save(dict(model=mmdefocus_to_official(model.state_dict())), root / 'official.pth')
    torch.save(model.backbone.state_dict(), root / 'backbone.pth')
    return root


def build(folder, **options):
    cfg = load_config(folder / 'config.py', options, str(folder / 'work'))
    cfg.experiment_name = f'finetuning_{next(numbers)}'  # MMEngine keeps state under this name
    return cfg


def test_the_backbone_starts_from_an_official_classifier(folder, network):
    pretrained = dict(type='Pretrained', checkpoint=str(folder / 'official.pth'))
    cfg = build(folder, **{'model.backbone.init_cfg': pretrained})
    apply_train_options(cfg)
    runner = build_runner(cfg)
    assert runner.model.head.num_classes == 2
    runner.model.init_weights()
    expected = torch.load(folder / 'backbone.pth', weights_only=True)
    found = runner.model.backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in found)
    runner.train()
    assert runner.message_hub.get_scalar('train/loss').current() > 0
    moved = runner.model.backbone.state_dict()
    assert not all(moved[name].equal(expected[name]) for name in moved)


def test_a_head_of_other_classes_is_named(folder, capsys):
    cfg = build(folder)
    apply_train_options(cfg)
    cfg.load_from = str(folder / 'official.pth')
    build_runner(cfg).train()
    printed = capsys.readouterr().out
    assert 'official.pth fits in part: ' in printed
    assert 'Initial values remain in head (2 of 2 tensors)' in printed


def test_a_head_of_other_classes_is_not_tested(folder):
    cfg = build(folder)
    apply_test_options(cfg, str(folder / 'official.pth'))
    with pytest.raises(SetupError, match=r'official\.pth does not fit the model of the config: .*head\.fc'):
        build_runner(cfg).test()


def test_a_loss_that_is_not_finite_names_the_module(folder, network):
    name, kind = POISONED[network]
    cfg = build(folder)
    apply_train_options(cfg)
    runner = build_runner(cfg)
    runner.model.init_weights()
    with torch.no_grad():
        runner.model.get_submodule(name).weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match=rf'an output that is not is {re.escape(name)} \({kind}\); 1 parameters'):
        runner.train()
