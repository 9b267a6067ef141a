"""Outputs of the original DAT++ code, measured in float64 with values that depend on the official names alone."""

import pytest
import torch
from dat_official import make_probe_classifier, probe_input, probe_state_dict

from mmdefocus.models.map_mixers import DeformableAttentionMixer, NeighbourhoodAttentionMixer

# First five logits of the first image, mean and standard deviation of all logits of both images
LOGITS = {
    ('tiny', 224, 224): ([-0.8332323, -0.22631699, -0.2555897, 0.0241852, -1.01732086], 0.01974535, 0.45250169),
    ('tiny', 160, 192): ([-1.40429415, 0.01526821, -0.20516293, 0.03993031, -1.19518134], 0.00672533, 0.50659192),
    ('tiny', 384, 384): ([-0.71219796, -0.16951319, -0.21966612, -0.06503837, -0.81831221], 0.0144373, 0.44096251),
    ('small', 224, 224): ([0.08907708, -0.74078698, -0.31142423, -1.05279875, 0.79310339], -0.00411084, 0.49042564),
    ('small', 160, 192): ([0.12942832, -0.70596978, -0.20879246, -0.84453533, 0.88480294], -0.00460562, 0.48845397),
}
# Mean and standard deviation of stem and stages at 224 × 224 pixels
STAGES = {
    'tiny': [
        (-0.00998745, 1.02002122),
        (0.01218285, 2.67904081),
        (0.30206294, 5.89676423),
        (3.05126855, 1182.44501931),
        (-0.08258188, 2.49501728),
    ],
    'small': [
        (0.0058014, 1.02469165),
        (0.04412102, 2.77631676),
        (-0.46479541, 5.32344416),
        (5.1854667, 1041.16016541),
        (0.00114744, 2.52166727),
    ],
}


def neighbourhood():
    return NeighbourhoodAttentionMixer(64, num_heads=4, kernel_size=7)


def deformable(stride=2, **changes):
    return DeformableAttentionMixer(
        64, num_heads=4, num_groups=2, stride=stride, kernel_size=5, **{'map_size': 14, **changes}
    )


# Mean and standard deviation, and the first three channels of the first and of the last pixel of the first map
MODULES = [
    (
        neighbourhood,
        (12, 10),
        (-0.03191853, 0.30765494),
        [-0.09724825, 0.35628335, -0.34880395],
        [-0.76546115, 0.43934927, -0.63380689],
    ),
    (
        neighbourhood,
        (5, 6),  # padded
        (-0.02578514, 0.26429505),
        [-0.24103086, -0.02738161, -0.33239842],
        [-0.25258874, 0.46742612, -0.68398305],
    ),
    (
        deformable,
        (12, 10),
        (0.01470975, 0.30555244),
        [0.30184825, -0.26078802, 0.41213622],
        [0.04505019, -0.28425861, 0.4094862],
    ),
    (
        lambda: deformable(stride=1, offset_range=2.0),
        (12, 10),
        (-0.00540566, 0.2004694),
        [0.28001947, -0.28517265, 0.04518636],
        [0.16969851, -0.352286, 0.15859757],
    ),
    (
        lambda: deformable(position_bias='log_cpb', map_size=None),
        (12, 10),
        (0.01232624, 0.30958847),
        [0.35487311, -0.15178359, 0.42708659],
        [0.02283573, -0.36048804, 0.33311514],
    ),
]
OFFICIAL_NAMES = {
    'conv_offset.1.weight': 'conv_offset.1.norm.weight',
    'conv_offset.1.bias': 'conv_offset.1.norm.bias',
    'rpe_table.weight': 'rpe_table',
    'rpe_table.linear1.weight': 'rpe_table.0.weight',
    'rpe_table.linear1.bias': 'rpe_table.0.bias',
    'rpe_table.linear2.weight': 'rpe_table.2.weight',
}


def assert_close(actual, expected):
    """Compare with numbers that were printed with eight decimals."""
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=2e-8)


def statistics_of(values):
    return torch.stack([values.mean(), values.std(correction=0)])


def fill(module):
    official = {OFFICIAL_NAMES.get(name, name): value for name, value in module.state_dict().items()}
    values = probe_state_dict(official)
    module.double().load_state_dict({name: values[OFFICIAL_NAMES.get(name, name)] for name in module.state_dict()})
    return module


@pytest.fixture(scope='module')
def classifiers():
    return {arch: make_probe_classifier(arch) for arch in STAGES}


@pytest.mark.parametrize(('arch', 'height', 'width'), LOGITS)
@torch.no_grad()
def test_classifiers(classifiers, arch, height, width):
    first, mean, std = LOGITS[arch, height, width]
    maps = []
    backbone = classifiers[arch].backbone
    parts = (backbone.downsample_layers[0], *(blocks[-1] for blocks in backbone.stages))
    handles = [part.register_forward_hook(lambda _, __, output: maps.append(output)) for part in parts]
    logits = classifiers[arch](probe_input(2, 3, height, width), mode='tensor')
    for handle in handles:
        handle.remove()
    assert_close(logits[0, :5], first)
    assert_close(statistics_of(logits), [mean, std])
    if (height, width) == (224, 224):
        for found, expected in zip(maps, STAGES[arch], strict=True):
            assert_close(statistics_of(found), expected)


@pytest.mark.parametrize(('make', 'size', 'statistics', 'first', 'last'), MODULES)
@torch.no_grad()
def test_modules(make, size, statistics, first, last):
    y = fill(make())(probe_input(2, 64, *size))
    assert_close(statistics_of(y), statistics)
    assert_close(y[0, :3, 0, 0], first)
    assert_close(y[0, :3, -1, -1], last)


@torch.no_grad()
def test_sampled_positions():
    positions = fill(deformable()).sample_positions(probe_input(2, 64, 12, 10))
    assert positions.shape == (2, 2, 6, 5, 2)
    assert_close(positions[0, 0, 0, 0], [-0.33758046, 0.09585067])
    assert_close(positions[0, 0, 0, 1], [-1, -1])
    assert (positions.abs() == 1).double().mean().item() == pytest.approx(0.258, abs=5e-4)
