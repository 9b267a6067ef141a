"""What a backbone takes and refuses, and how its scales follow the image size of what it loads."""

import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from mmdefocus.models import DefocusMamba
from mmdefocus.models.checkpoint import CheckpointError
from mmdefocus.models.checkpoint.resolution import METADATA_KEY, Resolution, scales_by_rule


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def saved(tmp_path):
    """Saver of a model as MMEngine saves it."""

    def save(model, **entries):
        path = str(tmp_path / 'epoch_1.pth')
        save_checkpoint({'meta': {'epoch': 1}, 'state_dict': get_state_dict(model), **entries}, path)
        return path

    return save


def in_model(backbone):
    return nn.ModuleDict({'backbone': backbone, 'head': nn.Linear(16, 3)})


def assert_same_weights(first, second):
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize('whole', [False, True])
def test_a_backbone_finds_its_part(build, saved, whole):
    source = build()
    nn.init.normal_(source.norm.bias)
    path = saved(in_model(source) if whole else source)
    for target in (build(), build(init_cfg=dict(type='Pretrained', checkpoint=path))):
        target.init_weights() if target.init_cfg else load_checkpoint(target, path, strict=True)
        assert_same_weights(target, source)
    model = in_model(build())
    load_checkpoint(model, saved(in_model(source)), strict=True)
    assert_same_weights(model['backbone'], source)


def test_prefix_in_a_list_of_initialisations(build, saved):
    path = saved(in_model(build(img_size=64)))
    init_cfg = [
        dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
        dict(type='Constant', layer='Conv1d', val=0),
    ]
    backbone = build(img_size=128, init_cfg=init_cfg)
    backbone.init_weights()
    assert backbone.delta_scale == 2


def test_other_models_are_refused(build, saved):
    resnet = nn.ModuleDict({'conv1': nn.Conv2d(3, 4, 7), 'layer1': nn.Linear(1, 1)})
    message = 'expected weights of a DefocusMamba .*, got none: the checkpoint is of another model'
    with pytest.raises(
        ValueError, match=rf'{message}, its keys here are conv1\.weight, conv1\.bias, layer1\.weight, \.'
    ):
        load_checkpoint(build(), saved(resnet))
    with pytest.raises(ValueError, match=rf'{message}, its keys here are none'):
        load_checkpoint(in_model(build()), saved(resnet))
    with pytest.raises(ValueError, match=rf'{message}, its keys here are conv1\.weight'):
        load_checkpoint(in_model(build()), saved(in_model(resnet)))


@pytest.mark.parametrize('whole', [False, True])
def test_other_sizes_are_refused(build, saved, toy_arch, whole):
    wrap = in_model if whole else lambda backbone: backbone
    with torch.device('meta'):
        base, small = DefocusMamba('base'), wrap(DefocusMamba('small')).state_dict()
    message = (
        r"expected weights of arch='base' \(embed_dims=768, num_layers=24\), got weights of arch='small' "
        r'\(embed_dims=384, num_layers=24\); cls_token is \(1, 1, 384\), not \(1, 1, 768\)'
    )
    with pytest.raises(ValueError, match=message):
        wrap(base).load_state_dict(small)
    deeper = wrap(DefocusMamba(toy_arch | {'num_layers': 3}))
    message = (
        r'of another arch \(embed_dims=16, num_layers=2\), got .* another arch \(embed_dims=16, num_layers=3\); give'
    )
    with pytest.raises(ValueError, match=message):
        load_checkpoint(wrap(build()), saved(deeper))


def test_a_refused_checkpoint_changes_nothing(build, saved, toy_arch):
    model = in_model(build())
    before = copy.deepcopy(model)
    other = in_model(DefocusMamba(toy_arch | {'inner_dims': 48}))
    with pytest.raises(ValueError, match='expected weights of'):
        load_checkpoint(model, saved(other))
    assert_same_weights(model['backbone'], before['backbone'])


def test_weights_that_are_not_finite_are_refused(build, saved):
    source = in_model(build())
    nn.init.constant_(source['backbone'].layers[1].mixer.D, torch.nan)
    with pytest.raises(ValueError, match=r'layers\.1\.mixer\.D has NaN or infinite elements; the training diverged'):
        load_checkpoint(in_model(build()), saved(source))


def test_heads_of_other_classes_are_left_to_mmengine(build, saved):
    source, target = in_model(build()), in_model(build())
    target['head'] = nn.Linear(16, 5)
    load_checkpoint(target, saved(source))
    assert_same_weights(target['backbone'], source['backbone'])


@pytest.mark.parametrize(
    ('trained', 'used', 'scales'),
    [
        # Published: 192 -> 384 gives 2.0 and 4.0; the model tuned at 384 keeps them there.
        (Resolution(192, 192, 1.0, 1.0), Resolution(384, 384, 1.0, 1.0), (4.0, 2.0)),
        (Resolution(384, 384, 4.0, 2.0), Resolution(384, 384, 1.0, 1.0), (4.0, 2.0)),
        (Resolution(384, 384, 4.0, 2.0), Resolution(192, 192, 1.0, 1.0), (1.0, 1.0)),
        (Resolution(224, 224, 1.0, 1.0), Resolution(224, 896, 1.0, 1.0), (4.0, 2.0)),
        (Resolution(224, 224, 1.0, 1.0), Resolution(9, 9, 1.0, 1.0, is_detector=True), ('auto', 'auto')),
        (Resolution(9, 9, 20.0, 4.57, 224, True), Resolution(8, 8, 1.0, 1.0, 224, True), (20.0, 4.57)),
        (Resolution(9, 9, 20.0, 4.57, 224, True), Resolution(8, 8, 1.0, 1.0), None),
    ],
)
def test_published_rule(trained, used, scales):
    assert scales_by_rule(trained, used) == scales


@pytest.mark.parametrize(('side', 'rope_scale', 'delta_scale'), [(224, 20.9, 4.571), (384, 7.111, 2.667)])
def test_scales_of_a_detector_count_from_the_classifier(build, saved, side, rope_scale, delta_scale):
    """Published, rounded: 224 -> 1024 gives 4.57 and 20.0; 384 -> 1024 gives 2.67 and 7.13."""
    detector = build(out_type='featmap')
    load_checkpoint(detector, saved(in_model(build(img_size=side))))
    assert (detector.rope_scale, detector.delta_scale, detector.pretrain_size) == ('auto', 'auto', side)
    assert detector.scales_at(1024, 1024) == pytest.approx((rope_scale, delta_scale), rel=1e-3)


def test_rule_is_applied_and_logged(build, saved, log):
    path = saved(in_model(build(img_size=64)))
    model = in_model(build(img_size=128, out_type='raw'))
    load_checkpoint(model, path)
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == (4, 2)
    assert model['backbone'].pretrain_size is None
    assert (
        'the checkpoint was trained at 64 x 64 pixels with rope_scale=1 and delta_scale=1; by the published rule the '
        'backbone now has rope_scale=4 and delta_scale=2'
    ) in log.text
    again = in_model(build(img_size=128, out_type='raw'))
    load_checkpoint(again, saved(model))
    assert (again['backbone'].rope_scale, again['backbone'].delta_scale) == (4, 2)


def test_a_copy_follows_the_rule_alone(build, saved):
    """As the copy that holds averaged weights."""
    model = in_model(build(img_size=128))
    copied = copy.deepcopy(model)
    load_checkpoint(copied, saved(in_model(build(img_size=64))))
    assert (model['backbone'].rope_scale, copied['backbone'].rope_scale) == (1, 4)


def test_nothing_is_said_or_changed_at_the_same_size(build, saved, log):
    model = in_model(build(img_size=64))
    load_checkpoint(model, saved(in_model(build(img_size=64))))
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == (1, 1)
    assert 'scale' not in log.text


@pytest.mark.parametrize(('rope_scale', 'warns'), [(3.9, False), (3.0, True)])
def test_numbers_of_the_config_are_kept(build, saved, log, rope_scale, warns):
    """Published ones are rounded; a number that is further off is worth a warning."""
    model = in_model(build(img_size=128, rope_scale=rope_scale, delta_scale=2.0))
    load_checkpoint(model, saved(in_model(build(img_size=64))))
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == (rope_scale, 2)
    warnings = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert (
        any('but the config says rope_scale=3 and delta_scale=2, which is kept' in text for text in warnings) == warns
    )


def test_published_detector_keeps_its_numbers_without_a_warning(build, saved, log):
    changes = dict(out_type='featmap', token_order='window', rope_scale=7.13, delta_scale=2.67)
    detector = build(pretrain_size=384, **changes)
    path = saved(in_model(build(img_size=384, rope_scale=4.0, delta_scale=2.0)))
    log.clear()
    load_checkpoint(detector, path)
    assert (detector.rope_scale, detector.delta_scale) == (7.13, 2.67)
    assert not [record for record in log.records if record.levelno == logging.WARNING]
    load_checkpoint(build(pretrain_size=224, **changes), path)
    assert 'pretrain_size is 224, but the checkpoint was trained at 384 pixels' in log.text


def test_a_trained_detector_tells_its_scales_to_the_test(build, saved):
    """They came from a classifier once and are in no config."""
    trained = build(out_type='featmap', rope_scale='auto', delta_scale='auto', pretrain_size=64)
    tested = build(out_type='featmap')
    load_checkpoint(in_model(tested), saved(in_model(trained)))
    assert (tested.rope_scale, tested.delta_scale, tested.pretrain_size) == ('auto', 'auto', 64)


def test_scales_do_not_change_the_keys(build):
    state_dict = build().state_dict()
    assert not [key for key in state_dict if 'scale' in key or 'resolution' in key]
    assert state_dict._metadata[''][METADATA_KEY]['height'] == 224


@pytest.mark.parametrize(
    'entry',
    ['text', {'height': 3}, {'height': 0, 'width': 4, 'rope_scale': 1.0, 'delta_scale': 1.0}]
    + [{'height': 4, 'width': 4, 'rope_scale': scale, 'delta_scale': 1.0} for scale in (-1.0, float('nan'), 'auto')],
)
def test_damaged_metadata_is_refused(build, saved, entry):
    model = build()
    model._register_state_dict_hook(lambda _, state_dict, prefix, metadata: metadata.update({METADATA_KEY: entry}))
    with pytest.raises(ValueError, match=r'expected (image size and scales|sizes in pixels|numbers as scales)'):
        load_checkpoint(build(), saved(model))


def test_error_of_mmengine_names_the_file(tmp_path):
    (tmp_path / 'page.pth').write_text('<html>')
    with pytest.raises(CheckpointError, match=r'page\.pth begins with'):
        load_checkpoint(nn.Linear(1, 1), str(tmp_path / 'page.pth'))
