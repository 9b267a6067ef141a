"""Initial values of a De-focus Mamba backbone, and pretrained weights."""

import copy

import pytest
import torch
from detector_options import DETECTOR

from mmdefocus.models import DefocusMamba


def test_init_weights_sets_the_published_values(build):
    backbone = build()
    for parameter in backbone.parameters():
        parameter.data.fill_(7.0)
    backbone.init_weights()
    assert 0 < backbone.cls_token.std() < 0.05
    assert torch.equal(backbone.layers[0].mixer.D, torch.ones(32))
    assert torch.equal(backbone.layers[0].norm.weight, torch.ones(16))
    assert torch.equal(backbone.norm.bias, torch.zeros(16))
    assert all((parameter != 7).all() for parameter in backbone.parameters())


def test_a_second_init_weights_changes_nothing(build):
    backbone = build()
    backbone.init_weights()
    before = copy.deepcopy(backbone.state_dict())
    backbone.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_patch_embedding_of_a_detector_has_its_own_initial_values():
    projection = DefocusMamba('nano', **DETECTOR).patch_embed.projection
    assert projection.weight.std().item() == pytest.approx((2 / (256 * 96)) ** 0.5, rel=0.02)
    bound = (3 * 256) ** -0.5
    assert bound * 0.9 < projection.bias.abs().max().item() <= bound
    projection = DefocusMamba('nano').patch_embed.projection
    assert bound * 0.95 < projection.weight.abs().max().item() <= bound


def test_padding_does_not_make_gradients_explode_in_a_new_detector(toy_arch):
    def largest_gradient(side):
        torch.manual_seed(0)
        arch = toy_arch | {'num_layers': 24, 'embed_dims': 64, 'inner_dims': 512}
        backbone = DefocusMamba(arch, token_order='window', pretrain_size=64, **DETECTOR)
        backbone(torch.randn(1, 3, side, side))[0].sum().backward()
        return max(parameter.grad.abs().max().item() for parameter in backbone.parameters())

    assert largest_gradient(65) < 10 * largest_gradient(128)


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_pretrained_weights(build, tmp_path, prefix):
    source = build()
    state = {(prefix or '') + key: torch.randn_like(value) for key, value in source.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'weights.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'weights.pth')}
    backbone = build(init_cfg=init_cfg | ({'prefix': prefix} if prefix else {}))
    backbone.init_weights()
    assert all(torch.equal(value, state[(prefix or '') + key]) for key, value in backbone.state_dict().items())


def test_own_init_cfg_wins(build):
    backbone = build(init_cfg={'type': 'Constant', 'layer': 'Linear', 'val': 0.25})
    backbone.init_weights()
    assert (backbone.layers[0].mixer.in_proj.weight == 0.25).all()
    assert (backbone.layers[0].mixer.D == 1).all()
