"""Arguments of a backbone: ranges, defaults, and the errors for wrong ones."""

import pytest
import torch
from detector_options import DETECTOR

from mmdefocus.models import DefocusMamba


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'token_order': 'spiral'}, r"token_order must be one of \['raster', 'window'\], got 'spiral'"),
        ({'out_type': 'avg'}, r"out_type must be one of \['raw', 'cls_token', 'featmap'\], got 'avg'"),
        ({'patch_embed_init': 'zeros'}, r"patch_embed_init must be .*'kaiming_normal'\], got 'zeros'"),
        ({'scale_rule': 'auto'}, r"scale_rule must be one of \['nominal', 'per_image'\], got 'auto'"),
        ({'token_order': 'window'}, "token_order='window' needs pretrain_size"),
        ({'rope_scale': 'auto'}, "rope_scale='auto' needs pretrain_size"),
        ({'delta_scale': 'auto'}, "delta_scale='auto' needs pretrain_size"),
        ({'rope_scale': 0.0}, "rope_scale must be a positive number, 'auto' or None, got 0.0"),
        ({'delta_scale': -1.0}, "delta_scale must be a positive number, 'auto' or None, got -1.0"),
        ({'delta_scale': float('nan')}, "delta_scale must be a positive number, 'auto' or None, got nan"),
        ({'rope_scale': 'yes'}, "rope_scale must be a positive number, 'auto' or None, got 'yes'"),
        ({'pretrain_size': 40}, r'pretrain_size must be a positive multiple of patch_size \(16\), got 40'),
        ({'pretrain_size': 0}, r'pretrain_size must be a positive multiple of patch_size \(16\), got 0'),
        ({'drop_path_rate': 1.0}, r'drop_path_rate must be in \[0, 1\), got 1.0'),
        ({'rope_scale': float('inf')}, "rope_scale must be a positive number, 'auto' or None, got inf"),
        ({'frozen_stages': -2}, r'frozen_stages must be from -1 to num_layers \(2\), got -2'),
        ({'frozen_stages': 3}, r'frozen_stages must be from -1 to num_layers \(2\), got 3'),
        ({'img_size': (32, 32, 3)}, r'img_size must be .*, got \(32, 32, 3\)'),
        ({'img_size': (32, 8)}, r'img_size must be .*, got \(32, 8\)'),
        ({'img_size': 8}, r'img_size must be .* at least one patch \(16 pixels\), got 8'),
    ],
)
def test_arguments_outside_their_range_are_refused(build, changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize('missing', ['blocks_in_fp32', 'patch_embed_init', 'scale_rule'])
def test_a_feature_map_needs_explicit_arguments_of_a_detector(build, missing):
    names = 'blocks_in_fp32, patch_embed_init, scale_rule'
    published = r"blocks_in_fp32=True, patch_embed_init='kaiming_normal', scale_rule='per_image'"
    with pytest.raises(ValueError, match=rf'needs explicit values of {names}; missing: {missing}; .* {published}'):
        build(**{name: value for name, value in DETECTOR.items() if name != missing})
    with pytest.raises(ValueError, match=rf'missing: {names};'):
        build(out_type='featmap')


def test_a_feature_map_takes_any_explicit_value(build):
    values = {'blocks_in_fp32': False, 'patch_embed_init': 'default', 'scale_rule': 'nominal'}
    detector, classifier = build(out_type='featmap', **values), build()
    assert all(getattr(network, name) == values[name] for network in (detector, classifier) for name in values)
    assert torch.equal(detector.patch_embed.projection.weight, classifier.patch_embed.projection.weight)


def test_arguments_at_the_end_of_their_range(build):
    backbone = build(pretrain_size=16, img_size=16, frozen_stages=2, final_norm_eps=0.25, drop_path_rate=0.0)
    assert (backbone.pretrain_size, backbone.img_size, backbone.norm.eps) == (16, (16, 16), 0.25)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_defaults(build):
    backbone = build()
    assert backbone.img_size == (224, 224)
    assert not backbone.with_cp


def test_arch_with_a_key_too_many_or_too_few(toy_arch):
    with pytest.raises(ValueError, match=r"missing \[\], unknown \['heads'\]"):
        DefocusMamba(toy_arch | {'heads': 2})
    with pytest.raises(ValueError, match=r"missing \['dt_rank'\], unknown \[\]"):
        DefocusMamba({key: value for key, value in toy_arch.items() if key != 'dt_rank'})


def test_unknown_arguments_are_refused(build):
    with pytest.raises(TypeError, match=r"^DefocusMamba has no .*'rope_scales' \(did you mean 'rope_scale'\?\)$"):
        build(rope_scales=2.0)
    with pytest.raises(TypeError, match=r"no argument 'rotery' \(did you mean 'rotary'\?\), 'zzz'; its arguments are"):
        build(rotery=False, zzz=1)
    with pytest.raises(TypeError, match=r"'use_rope'; its arguments are rotary, arch, img_size, .*, init_cfg$"):
        build(use_rope=True)


def test_sizes_of_the_image_and_the_sequence_may_be_positional(toy_arch):
    backbone = DefocusMamba(toy_arch, 32, 8, 1, 'window', 16)
    assert (backbone.img_size, backbone.patch_size, backbone.in_channels, backbone.window) == ((32, 32), 8, 1, 2)
    with pytest.raises(TypeError, match='positional arguments'):
        DefocusMamba(toy_arch, 32, 8, 1, 'window', 16, False)


def test_unknown_arch_is_refused(toy_arch):
    with pytest.raises(ValueError, match=r"one of \['nano', 'small', 'base', 'large'\] or a dict, got 'huge'"):
        DefocusMamba('huge')
    with pytest.raises(TypeError, match='arch must be a name or a dict, got int'):
        DefocusMamba(3)
    with pytest.raises(ValueError, match=r"missing \['dt_rank'\], unknown \['heads'\]"):
        DefocusMamba({key: value for key, value in toy_arch.items() if key != 'dt_rank'} | {'heads': 2})
    with pytest.raises(ValueError, match=r"arch\['num_layers'\] must be a positive integer, got 0"):
        DefocusMamba(toy_arch | {'num_layers': 0})
    with pytest.raises(ValueError, match=r"arch\['embed_dims'\] must be a positive integer, got 16.0"):
        DefocusMamba(toy_arch | {'embed_dims': 16.0})
