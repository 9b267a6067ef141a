"""State dicts that a backbone loads or rejects, and the scales that follow the image size of the checkpoint."""

import copy
import logging

import pytest
import torch
from detector_options import DETECTOR
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from mmdefocus.models import DefocusMamba
from mmdefocus.models.checkpoint import CheckpointError, mmdefocus_to_official
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
        target.init_weights() if target.pretrained else load_checkpoint(target, path, strict=True)
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


def test_strictness_is_the_callers(build, saved):
    """The caller decides about weights of another model, of a neck or of one layer."""
    backbone, expected = build(), build()
    resnet = nn.ModuleDict({'conv1': nn.Conv2d(3, 4, 7), 'layer1': nn.Linear(1, 1)})
    for other in (saved(resnet), saved(in_model(resnet)), saved(nn.ModuleDict({'neck': resnet}))):
        for model in (backbone, in_model(backbone)):
            load_checkpoint(model, other)
            with pytest.raises(RuntimeError, match=r'missing keys in source state_dict: .*layers\.0\.norm\.weight'):
                load_checkpoint(model, other, strict=True)
    assert_same_weights(backbone, expected)

    layer = {key: value + 1 for key, value in expected.state_dict().items() if key.startswith('layers.1.')}
    found = in_model(backbone).load_state_dict({f'backbone.{key}': value for key, value in layer.items()}, strict=False)
    assert 'backbone.layers.0.norm.weight' in found.missing_keys
    assert not found.unexpected_keys
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, layer.get(key, expected.state_dict()[key])), key
    assert (backbone.rope_scale, backbone.delta_scale) == (1, 1)


def test_official_names_with_others_are_left_to_the_caller(build):
    official = mmdefocus_to_official({f'backbone.{key}': value for key, value in build().state_dict().items()})
    official['blocks.0.mixer.extra'] = torch.ones(1)
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "blocks\.0\.mixer\.extra"'):
        build().load_state_dict(official)
    assert build().load_state_dict(official, strict=False) == ([], ['blocks.0.mixer.extra'])


@pytest.mark.parametrize('whole', [False, True])
def test_other_sizes_are_explained(build, saved, toy_arch, whole):
    wrap = in_model if whole else lambda backbone: backbone
    with torch.device('meta'):
        base, small = DefocusMamba('base'), wrap(DefocusMamba('small')).state_dict()
    message = (
        r"expected weights of arch='base' \(embed_dims=768, num_layers=24\), got weights of arch='small' "
        r'\(embed_dims=384, num_layers=24\) whose cls_token is \(1, 1, 384\), not \(1, 1, 768\); give DefocusMamba'
    )
    with pytest.raises(RuntimeError, match=message):
        wrap(base).load_state_dict(small)
    deeper = wrap(DefocusMamba(toy_arch | {'num_layers': 3}))
    with pytest.raises(RuntimeError, match=r'unexpected key in source state_dict: .*layers\.2\.norm\.weight'):
        load_checkpoint(wrap(build()), saved(deeper), strict=True)


def test_other_shapes_of_the_same_arch_are_explained(build, toy_arch):
    coarse = DefocusMamba(toy_arch, patch_size=32).state_dict()
    message = (
        r'got weights of the same width and depth whose patch_embed\.projection\.weight is \(16, 3, 32, 32\), '
        r'not \(16, 3, 16, 16\)'
    )
    with pytest.raises(RuntimeError, match=message):
        build().load_state_dict(coarse)


@pytest.mark.parametrize('change', [{'num_layers': 3}, {'num_layers': 1}, {'inner_dims': 48}])
def test_pretrained_weights_must_fit(saved, build, toy_arch, change):
    """MMEngine alone would keep random weights for the tensors that do not fit."""
    path = saved(in_model(DefocusMamba(toy_arch | change)))
    for init_cfg in (dict(type='Pretrained', checkpoint=path), dict(type='Pretrained', checkpoint=path, prefix='head')):
        with pytest.raises(
            CheckpointError, match=r'epoch_1\.pth is not a checkpoint of this DefocusMamba: .*init_cfg=None'
        ):
            build(init_cfg=init_cfg).init_weights()


def test_random_weights_are_logged(build, saved, log):
    path = saved(build())
    build(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    assert 'random weights' not in log.text
    build().init_weights()
    assert 'DefocusMamba starts from random weights: its init_cfg names no checkpoint' in log.text


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
@pytest.mark.parametrize('place', ['backbone', 'head', 'optimiser'])
def test_files_with_numbers_that_are_not_finite_are_refused(build, saved, value, place):
    source, optimiser = in_model(build()), {'state': [torch.ones(3)]}
    broken = {
        'backbone': ('state_dict.backbone.layers.1.mixer.D', source['backbone'].layers[1].mixer.D),
        'head': ('state_dict.head.bias', source['head'].bias),
        'optimiser': ('optimizer.state.0', optimiser['state'][0]),
    }
    name, tensor = broken[place]
    tensor.data[1] = value
    with pytest.raises(
        CheckpointError, match=rf'epoch_1\.pth: {name} has NaN or infinite elements, expected finite ones; the training'
    ):
        load_checkpoint(in_model(build()), saved(source, optimizer=optimiser))


def test_masks_may_have_minus_infinity(saved):
    model = nn.Linear(2, 2)
    model.register_buffer('mask', torch.tensor([0.0, -torch.inf]))
    load_checkpoint(model, saved(model), strict=True)


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
    detector = build(**DETECTOR)
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


@pytest.mark.parametrize(('side', 'scales'), [((128, 256), (4, 2)), ((64, 128), (1, 1))])
def test_rule_is_applied_to_classifiers_that_are_not_square(build, saved, log, side, scales):
    model = in_model(build(img_size=side))
    load_checkpoint(model, saved(in_model(build(img_size=(64, 128)))))
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == scales
    assert warnings_in(log) == []


def test_a_classifier_saves_the_scales_that_it_computes(build):
    backbone = build(img_size=128, pretrain_size=64, rope_scale='auto', delta_scale='auto')
    saved = Resolution.from_metadata(backbone.state_dict()._metadata[''])
    assert saved == Resolution(128, 128, 4.0, 2.0, 64)


def test_part_of_a_backbone_without_metadata_changes_no_scale(build, log):
    """Only a complete backbone counts as trained at pretrain_size."""
    detector = build(**DETECTOR, pretrain_size=64)
    weights = plain(build(img_size=64))
    del weights['norm.weight']
    detector.load_state_dict(weights, strict=False)
    assert (detector.rope_scale, detector.delta_scale) == (1, 1)
    assert warnings_in(log) == []


def test_a_state_dict_of_other_parts_changes_no_scale(build, saved, log):
    detector = build(**DETECTOR, pretrain_size=64)
    other = nn.Linear(2, 2).state_dict()
    other._metadata[''][METADATA_KEY] = Resolution(64, 64, 1.0, 1.0).to_metadata()
    detector.load_state_dict(other, strict=False)
    assert (detector.rope_scale, detector.delta_scale) == (1, 1)


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


def warnings_in(log):
    """Those about scales."""
    texts = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    return [text for text in texts if 'scale' in text]


@pytest.mark.parametrize(
    ('scales', 'warns'),
    # Published ones are rounded, by up to 5 %; a number that is further off is worth a warning.
    [((3.8, 2.0), False), ((4.2, 2.0), False), ((3.7, 2.0), True), ((4.3, 2.0), True), ((4.0, 1.86), True)],
)
def test_numbers_of_the_config_are_kept(build, saved, log, scales, warns):
    model = in_model(build(img_size=128, rope_scale=scales[0], delta_scale=scales[1]))
    load_checkpoint(model, saved(in_model(build(img_size=64))))
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == scales
    said = f'but the config sets rope_scale={scales[0]:g} and delta_scale={scales[1]:g}, which are kept'
    assert [said in text for text in warnings_in(log)] == [True] * warns


def test_a_scale_of_one_is_a_number_too(build, saved, log):
    model = in_model(build(img_size=128, rope_scale=1.0, delta_scale=1.0))
    load_checkpoint(model, saved(in_model(build(img_size=64))))
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == (1, 1)
    (text,) = warnings_in(log)
    assert 'gives rope_scale=4 and delta_scale=2 here, but the config sets rope_scale=1 and delta_scale=1' in text


def test_each_scale_follows_the_rule_by_itself(build, saved):
    model = in_model(build(img_size=128, rope_scale=3.5))
    load_checkpoint(model, saved(in_model(build(img_size=64))))
    assert (model['backbone'].rope_scale, model['backbone'].delta_scale) == (3.5, 2)


def plain(model):
    """A state dict without metadata, as a program of another kind may have written it."""
    return dict(model.state_dict())


def test_a_plain_state_dict_in_a_detector_is_of_a_classifier_of_pretrain_size(build, log):
    detector = build(**DETECTOR, pretrain_size=64)
    detector.load_state_dict(plain(build(img_size=64)))
    assert (detector.rope_scale, detector.delta_scale) == ('auto', 'auto')
    (text,) = warnings_in(log)
    assert 'assuming a classifier trained at pretrain_size, 64 x 64 pixels' in text
    assert 'trained at 64 x 64 pixels with rope_scale=1 and delta_scale=1; by the published rule' in log.text
    assert detector.scales_at(128, 128) == (4, 2)


@pytest.mark.parametrize('changes', [{'img_size': 128}, DETECTOR])
def test_a_plain_state_dict_without_a_known_size_changes_no_scale(build, log, changes):
    backbone = build(**changes)
    backbone.load_state_dict(plain(build(img_size=64)))
    assert (backbone.rope_scale, backbone.delta_scale) == (1, 1)
    (text,) = warnings_in(log)
    assert text == ('the state dict does not record its image size and scales; rope_scale=1 and delta_scale=1 are kept')


def test_a_plain_state_dict_says_nothing_where_the_config_has_both_scales(build, log):
    build(img_size=128, rope_scale=4.0, delta_scale=2.0).load_state_dict(plain(build(img_size=64)))
    assert 'scale' not in log.text


@pytest.mark.parametrize('changes', [{}, {'pretrain_size': 64, 'token_order': 'window'}])
def test_a_classifier_that_is_not_square_does_not_set_a_detectors_scales(build, saved, log, changes):
    detector = build(**DETECTOR, **changes)
    load_checkpoint(detector, saved(in_model(build(img_size=(64, 128)))))
    assert (detector.rope_scale, detector.delta_scale) == (1, 1)
    assert detector.pretrain_size == changes.get('pretrain_size')
    (text,) = warnings_in(log)
    assert 'trained at 64 x 128 pixels' in text
    assert 'applies to weights trained on square images; rope_scale=1 and delta_scale=1 are kept' in text


def test_a_detector_does_not_set_a_classifiers_scales(build, saved, log):
    classifier = build(img_size=128)
    load_checkpoint(classifier, saved(build(**DETECTOR, pretrain_size=64, rope_scale=4.0, delta_scale=2.0)))
    assert (classifier.rope_scale, classifier.delta_scale) == (1, 1)
    assert "there is no rule from scale_rule='per_image' (detectors) to 'nominal' (classifiers)" in warnings_in(log)[0]


def test_published_detector_keeps_its_numbers_without_a_warning(build, saved, log):
    changes = dict(**DETECTOR, token_order='window', rope_scale=7.13, delta_scale=2.67)
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
    trained = build(**DETECTOR, rope_scale='auto', delta_scale='auto', pretrain_size=64)
    tested = build(**DETECTOR)
    load_checkpoint(in_model(tested), saved(in_model(trained)))
    assert (tested.rope_scale, tested.delta_scale, tested.pretrain_size) == ('auto', 'auto', 64)


def test_scales_do_not_change_the_keys(build):
    state_dict = build().state_dict()
    assert not [key for key in state_dict if 'scale' in key or 'resolution' in key]
    assert state_dict._metadata[''][METADATA_KEY]['height'] == 224


@pytest.mark.parametrize(
    'entry',
    ['text', {'height': 3}]
    + [
        {'height': 4, 'width': 4, 'rope_scale': 1.0, 'delta_scale': 1.0} | change
        for change in (
            {'height': 0},
            {'width': 4.0},
            {'pretrain_size': -1},
            {'rope_scale': -1.0},
            {'rope_scale': float('nan')},
            {'rope_scale': 'auto'},
            {'delta_scale': 0.0},
            {'delta_scale': float('inf')},
            {'delta_scale': None},
            {'delta_scale': True, 'is_detector': True, 'rope_scale': 'automatic'},
        )
    ],
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
