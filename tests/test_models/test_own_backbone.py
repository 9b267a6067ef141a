"""Backbones written outside the package: the example of the documentation, and a network that is not plain."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from detector_options import DETECTOR
from mmengine.registry import MODELS
from torch import nn

from mmdefocus.models import DefocusBackbone
from mmdefocus.models.backbones import VisionBackbone

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'architecture.md'


@pytest.fixture(scope='module')
def example(tmp_path_factory):
    """The documented network, imported from a file of its own."""
    (code,) = re.findall(r'```python\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp('own') / 'running_mean.py'
    path.write_text(code)
    spec = importlib.util.spec_from_file_location('running_mean', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.RunningMeanNet
    MODELS.module_dict.pop('RunningMeanNet')


def test_the_documented_network_is_a_complete_backbone(example):
    backbone = MODELS.build(dict(type='RunningMeanNet', arch='tiny', bias=False, frozen_stages=1, **DETECTOR))
    backbone.init_weights()
    assert [block.mixer.proj.bias for block in backbone.layers] == [None] * 4
    (features,) = backbone(torch.randn(2, 3, 40, 32))
    assert features.shape == (2, 64, 3, 2)
    features.sum().backward()
    assert [block.mixer.proj.weight.grad is None for block in backbone.layers] == [True, False, False, False]
    assert backbone.get_layer_depth('layers.3.mixer.proj.weight') == (4, 6)
    copied = example('tiny', bias=False, **DETECTOR)
    copied.load_state_dict(backbone.state_dict())
    assert torch.equal(copied(torch.ones(1, 3, 32, 32))[0], backbone(torch.ones(1, 3, 32, 32))[0])


def test_the_documented_network_checks_its_arguments(example):
    with pytest.raises(TypeError, match=r"^RunningMeanNet has no argument 'biases' \(did you mean 'bias'\?\)$"):
        example('tiny', biases=True)
    with pytest.raises(ValueError, match=r"arch must be one of \['tiny'\] or a dict, got 'huge'"):
        example('huge')
    assert example({'embed_dims': 8, 'num_layers': 1}).embed_dims == 8


def test_a_plain_backbone_needs_a_mixer():
    with pytest.raises(TypeError, match=r'abstract class DefocusBackbone .*make_mixer'):
        DefocusBackbone(make_mixer=nn.Identity, embed_dims=8, num_layers=1)


class Pyramid(VisionBackbone):
    """Two stages behind a stem."""

    def __init__(self, frozen_stages=-1, init_cfg=None):
        super().__init__(init_cfg)
        self.frozen_stages = frozen_stages
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.blocks = nn.ModuleList([nn.Conv2d(4, 8, 2, stride=2), nn.Conv2d(8, 16, 2, stride=2)])
        self.freeze_stages()

    def reset_parameters(self):
        nn.init.ones_(self.scale)
        for layer in (self.stem, *self.blocks):
            nn.init.constant_(layer.weight, 0.5)
            nn.init.zeros_(layer.bias)

    def stage_parts(self):
        return [[self.stem, self.scale], *([block] for block in self.blocks)]

    def get_layer_depth(self, param_name, prefix=''):
        return 0, 1

    def forward(self, images):
        first = self.blocks[0](self.stem(images) * self.scale)
        return first, self.blocks[1](first)


@pytest.mark.parametrize(('frozen_stages', 'frozen'), [(-1, 0), (0, 3), (1, 5), (2, 7)])
def test_stages_of_a_pyramid_freeze(frozen_stages, frozen):
    network = Pyramid(frozen_stages).train()
    assert [parameter.requires_grad for parameter in network.parameters()].count(False) == frozen
    trained = [module.training for module in (network.stem, *network.blocks)]
    assert trained == [stage > frozen_stages for stage in range(3)]


def test_initial_values_of_a_pyramid_come_before_init_cfg_and_a_checkpoint(tmp_path):
    rules = [dict(type='Constant', layer='Conv2d', val=0.25, bias=1.0)]
    network = Pyramid(init_cfg=rules)
    network.scale.data.zero_()
    network.init_weights()
    assert (network.scale == 1).all()
    assert (network.stem.weight == 0.25).all()
    torch.save(network.state_dict(), tmp_path / 'weights.pth')
    loaded = Pyramid(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    loaded.init_weights()
    assert (loaded.blocks[1].weight == 0.25).all()
