"""Outputs of the original FCViT code, measured in float64 with values that depend on the official names alone."""

import pytest
import torch
from fcvit_official import make_probe_classifier, probe_input, probe_state_dict

from mmdefocus.models.backbones.fcvit_block import ChannelMixer, FCViTBlock
from mmdefocus.models.map_mixers.global_context import GlobalContext, GlobalContextMixer

# First five logits of the first image, mean and standard deviation of all logits of both images
LOGITS = {
    ('tiny', 224, 224): ([-0.43639559, -0.0017615, 0.01999216, -0.62884204, -0.24137376], 0.02163909, 0.52550365),
    ('tiny', 160, 192): ([-0.29718184, -0.35378744, 0.2903893, -0.50343568, -0.18720785], 0.01864247, 0.52129056),
    ('b12', 224, 224): ([-0.69738044, -0.13127448, 0.27624441, 0.80365667, 0.75635675], -0.01637431, 0.49972302),
    ('b12', 160, 192): ([-0.82789601, -0.15040672, 0.46331443, 0.73199037, 0.9190017], -0.02044511, 0.49786739),
}
# Mean and standard deviation of stem and stages at 224 × 224 pixels
STAGES = {
    'tiny': [
        (0.01080135, 0.92429308),
        (0.12816821, 1.09858519),
        (0.01704547, 1.2067523),
        (0.11554202, 1.40464823),
        (0.05772384, 1.39269563),
    ],
    'b12': [
        (0.01684105, 0.93300072),
        (0.06535127, 1.04246133),
        (0.07253278, 1.12590865),
        (0.08580388, 1.35414053),
        (0.00496886, 1.35212028),
    ],
}
# Mean and standard deviation, and the first three channels of the first and of the last pixel of the first map
MODULES = [
    (
        lambda: GlobalContext(64),
        (0.0024981, 0.15974712),
        [0.17596041, 0.16367664, 0.06513392],
        [0.00455764, 0.00423947, 0.00168707],
    ),
    (
        lambda: GlobalContextMixer(64),
        (0.020889, 0.10801862),
        [0.00324193, 0.05201609, 0.16615338],
        [-0.00910723, 0.05438461, 0.29772644],
    ),
    (
        lambda: ChannelMixer(64, 256),
        (0.01376061, 0.5863073),
        [0.21182707, 0.55430064, 0.37728483],
        [0.75504256, 0.1955015, 0.77956506],
    ),
    (
        lambda: FCViTBlock(64, 4),
        (-0.00546109, 1.03789764),
        [1.31681714, 0.529289, -0.44944726],
        [0.74828686, 0.71711979, 0.50516776],
    ),
]


def assert_close(actual, expected):
    """Compare with numbers that were printed with eight decimals."""
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-8)


def statistics_of(values):
    return torch.stack([values.mean(), values.std(correction=0)])


@pytest.fixture(scope='module')
def classifiers():
    return {arch: make_probe_classifier(arch) for arch in STAGES}


@pytest.mark.parametrize(('arch', 'height', 'width'), LOGITS)
@torch.no_grad()
def test_classifiers(classifiers, arch, height, width):
    first, mean, std = LOGITS[arch, height, width]
    logits = classifiers[arch](probe_input(2, 3, height, width), mode='tensor')
    assert_close(logits[0, :5], first)
    assert_close(statistics_of(logits), [mean, std])


@pytest.mark.parametrize('arch', STAGES)
@torch.no_grad()
def test_stages(classifiers, arch):
    backbone, maps = classifiers[arch].backbone, []
    parts = (backbone.downsample_layers[0], *(blocks[-1] for blocks in backbone.stages))
    handles = [part.register_forward_hook(lambda _, __, output: maps.append(output)) for part in parts]
    backbone(probe_input(2, 3, 224, 224))
    for handle in handles:
        handle.remove()
    for found, expected in zip(maps, STAGES[arch], strict=True):
        assert_close(statistics_of(found), expected)


@pytest.mark.parametrize(('make', 'statistics', 'first', 'last'), MODULES)
@torch.no_grad()
def test_modules(make, statistics, first, last):
    module = make().double()
    module.load_state_dict(probe_state_dict(module.state_dict()))
    y = module(probe_input(2, 64, 12, 10))
    assert_close(statistics_of(y), statistics)
    assert_close(y[0, :3, 0, 0], first)
    assert_close(y[0, :3, -1, -1], last)
