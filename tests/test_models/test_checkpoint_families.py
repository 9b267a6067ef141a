"""A toy family with a different official layout, registered as third parties do."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from mmdefocus.models.checkpoint import (
    CheckpointError,
    is_official_checkpoint,
    load_from_local,
    mmdefocus_to_official,
    official_to_mmdefocus,
    read_checkpoint,
)
from mmdefocus.models.checkpoint.conversion import convert_official, convert_to_official
from mmdefocus.models.checkpoint.families import (
    CheckpointFamily,
    Derived,
    Rule,
    family_by_name,
    family_of,
    find_family,
    find_official_family,
    register_family,
    registered_families,
    registry,
    rename_from_official,
    rename_to_official,
)
from mmdefocus.models.checkpoint.families.name_map import names_by_source, sources_by_name
from mmdefocus.models.checkpoint.inspection import expected_model, missing_and_misshapen, report
from mmdefocus.models.checkpoint.names import backbone_state_dict, is_official, rename_official

DOCUMENTATION = Path(__file__).parents[2] / 'docs' / 'checkpoints.md'
WIDTH, CLASSES = 4, 3


class ToyBackbone(nn.Module):
    """Two projections, which the official code fuses, and a transposed one."""

    def __init__(self, width):
        super().__init__()
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(width)


RULES = {
    'classification': (Rule('final_norm.', 'backbone.norm.', 'weight|bias'), Rule('cls.', 'head.', 'weight|bias')),
    'detection': (Rule('backbone.final_norm.', 'backbone.norm.', 'weight|bias'), Rule('', '', r'bbox_head\..+')),
}


class ToyFamily(CheckpointFamily):
    name = 'toy'
    title = 'Toy'
    weights_entry = 'state_dict'
    average_entry = 'state_dict_ema'
    classifiers = ('head',)

    def recognises_official(self, names):
        return any(name.endswith('toy_qk.weight') for name in names)

    def recognises_ours(self, names):
        return 'backbone.q.weight' in names

    def from_official(self, names):
        kind = self.official_kind(names)
        prefix = 'backbone.' if kind == 'detection' else ''
        name_map = rename_from_official(names, RULES[kind])
        for leaf in ('weight', 'bias'):
            if (fused := f'{prefix}toy_qk.{leaf}') in names:
                name_map[f'backbone.q.{leaf}'] = Derived((fused,), lambda tensor: tensor.chunk(2)[0])
                name_map[f'backbone.k.{leaf}'] = Derived((fused,), lambda tensor: tensor.chunk(2)[1])
        if (transposed := f'{prefix}toy_out') in names:
            name_map['backbone.out.weight'] = Derived((transposed,), torch.t)
        return name_map

    def to_official(self, names, kind):
        prefix = 'backbone.' if kind == 'detection' else ''
        name_map = rename_to_official(names, RULES[kind])
        for leaf in ('weight', 'bias'):
            parts = (f'backbone.q.{leaf}', f'backbone.k.{leaf}')
            if all(part in names for part in parts):
                name_map[f'{prefix}toy_qk.{leaf}'] = Derived(parts, lambda *tensors: torch.cat(tensors))
        if 'backbone.out.weight' in names:
            name_map[f'{prefix}toy_out'] = Derived(('backbone.out.weight',), torch.t)
        return name_map

    def read_metadata(self, content):
        return {'toy_size': content['size']} if 'size' in content else {}

    def write_metadata(self, metadata):
        return {'size': metadata['toy_size']} if 'toy_size' in metadata else {}

    def model_config(self, state_dict):
        classes, width = state_dict['head.weight'].shape
        backbone = dict(type='ToyBackbone', width=width)
        return {'backbone': backbone, 'head': dict(type='ToyHead', in_features=width, out_features=classes)}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """De-focus Mamba alone, so that messages do not depend on further families; registrations of a test end with it."""
    monkeypatch.setattr(registry, '_FAMILIES', {'defocus_mamba': family_by_name('defocus_mamba')})


@pytest.fixture
def toy(monkeypatch):
    for name, cls in (('ToyBackbone', ToyBackbone), ('ToyHead', nn.Linear)):
        monkeypatch.setitem(MODELS.module_dict, name, cls)
    family = ToyFamily()
    register_family(family)
    return family


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def make_model():
    torch.manual_seed(0)
    return nn.ModuleDict({'backbone': ToyBackbone(WIDTH), 'head': nn.Linear(WIDTH, CLASSES)})


def make_official():
    """Official classifier, written by hand from the parameters of :func:`make_model`."""
    ours = make_model().state_dict()
    return {
        'toy_qk.weight': torch.cat([ours['backbone.q.weight'], ours['backbone.k.weight']]),
        'toy_qk.bias': torch.cat([ours['backbone.q.bias'], ours['backbone.k.bias']]),
        'toy_out': ours['backbone.out.weight'].T,
        'final_norm.weight': ours['backbone.norm.weight'],
        'final_norm.bias': ours['backbone.norm.bias'],
        'cls.weight': ours['head.weight'],
        'cls.bias': ours['head.bias'],
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.usefixtures('toy')
def test_values_are_converted_both_ways():
    official, ours = make_official(), make_model().state_dict()
    assert_same(official_to_mmdefocus(official), ours)
    assert_same(mmdefocus_to_official(ours), official)
    detector = {f'backbone.{key}': value for key, value in official.items() if not key.startswith('cls.')}
    detector['bbox_head.weight'] = torch.ones(1)
    converted = official_to_mmdefocus(detector)
    assert converted['backbone.out.weight'].shape == (2 * WIDTH, WIDTH)
    assert_same(mmdefocus_to_official(converted), detector)


@pytest.mark.usefixtures('toy')
def test_the_other_family_is_not_affected(golden):
    for case in ('cls_rope', 'det_window'):
        _, official = golden(case)
        assert find_official_family(official).name == 'defocus_mamba'
        assert find_family(official_to_mmdefocus(official)).name == 'defocus_mamba'


@pytest.mark.usefixtures('toy')
def test_unknown_names():
    official, ours = make_official() | {'extra': torch.ones(1)}, make_model().state_dict()
    with pytest.raises(ValueError, match='1 keys do not belong to the official classification names: extra'):
        official_to_mmdefocus(official)
    assert_same(official_to_mmdefocus(official, strict=False), ours)
    assert_same(rename_official(official), ours | {'extra': official['extra']})
    backbone = make_model()['backbone'].state_dict()
    assert_same(backbone_state_dict(official), backbone | {'extra': official['extra']})
    assert_same(backbone_state_dict(ours), backbone)
    with pytest.raises(ValueError, match=r'do not belong to the mmdefocus classification names: backbone\.q\.bias'):
        mmdefocus_to_official({key: value for key, value in ours.items() if key != 'backbone.k.bias'})


@pytest.mark.usefixtures('toy')
@pytest.mark.parametrize('entry', ['model', 'state_dict', None])
def test_a_file_is_loaded_under_our_names(tmp_path, entry, log):
    official = make_official()
    content = official if entry is None else {entry: official, 'state_dict_ema': official, 'epoch': 3, 'size': 64}
    path = tmp_path / 'toy.pth'
    torch.save(content, path)
    assert is_official_checkpoint(read_checkpoint(path))
    checkpoint = load_from_local(str(path))
    state_dict = checkpoint['state_dict']
    assert_same(state_dict, make_model().state_dict())
    assert not is_official_checkpoint(checkpoint)
    assert checkpoint.keys() == {'meta', 'state_dict'}, 'without the training of another program'
    assert 'toy.pth is an official Toy checkpoint' in log.text
    assert ("it also has 'state_dict_ema'" in log.text) == (entry is not None)
    expected = {} if entry is None else {'': {'toy_size': 64}, 'backbone': {'toy_size': 64}}
    assert state_dict._metadata == expected
    model = make_model()
    nn.init.zeros_(model['backbone'].q.weight)
    model.load_state_dict(state_dict)
    assert_same(model.state_dict(), state_dict)


@pytest.mark.usefixtures('toy')
def test_a_file_is_converted_there_and_back():
    official = make_official()
    average = {key: value / 2 for key, value in official.items()}
    content = {'state_dict': official, 'state_dict_ema': average, 'size': 64, 'optimizer': {}}
    converted = convert_official(content)
    assert converted.keys() == {'meta', 'state_dict'}
    assert_same(converted['state_dict'], make_model().state_dict())
    assert convert_to_official(converted)['size'] == 64
    assert_same(convert_to_official(converted)['state_dict'], official)
    assert_same(convert_official(content, 'model_ema')['state_dict'], official_to_mmdefocus(average))
    assert {key.split('.')[0] for key in convert_official(content, to='det')['state_dict']} == {'backbone'}
    with pytest.raises(ValueError, match="there is no 'state_dict_ema' in this file"):
        convert_official({'model': official}, 'model_ema')
    with pytest.raises(ValueError, match=r'21k-to-1k expects heads of 21841 classes, got head\.weight with 3 rows'):
        convert_official(content, head='21k-to-1k')


@pytest.mark.usefixtures('toy')
def test_the_expected_model_and_the_report():
    ours = make_model().state_dict()
    model = expected_model(ours)
    assert {value.device.type for value in model.state_dict().values()} == {'meta'}
    assert missing_and_misshapen(ours, model) == []
    name_map = family_of(ours).from_official(make_official())
    lines = report(ours, sources_by_name(name_map), 'from').splitlines()
    assert lines[0] == 'network    Toy'
    assert ['1', 'backbone.k.bias', '(4,)', 'float32', 'from', 'toy_qk.bias'] in [line.split() for line in lines]
    back = family_of(ours).to_official(ours, 'classification')
    assert sources_by_name(back)['toy_qk.bias'] == 'backbone.q.bias + backbone.k.bias'
    assert names_by_source(back)['backbone.q.bias'] == 'toy_qk.bias'
    assert names_by_source(name_map)['toy_qk.bias'] == 'backbone.q.bias + backbone.k.bias'


class OtherToyFamily(ToyFamily):
    name = 'other_toy'
    title = 'Other Toy'


@pytest.mark.usefixtures('toy')
def test_files_that_two_families_recognise(tmp_path):
    register_family(OtherToyFamily())
    official, ours = make_official(), make_model().state_dict()
    message = r'Toy and Other Toy recognise the same state dict with the keys toy_qk\.weight, toy_qk\.bias, toy_out, \.'
    for convert in (official_to_mmdefocus, is_official, backbone_state_dict, is_official_checkpoint, convert_official):
        with pytest.raises(ValueError, match=message):
            convert(official)
    for convert in (mmdefocus_to_official, convert_to_official, expected_model):
        with pytest.raises(ValueError, match=r"recognise the same .* and family='toy' or family='other_toy'"):
            convert(ours)
    torch.save({'model': official}, tmp_path / 'toy.pth')
    with pytest.raises(CheckpointError, match=r'toy\.pth: Toy and Other Toy recognise'):
        load_from_local(str(tmp_path / 'toy.pth'))
    assert_same(official_to_mmdefocus(official, family='toy'), ours)
    assert_same(mmdefocus_to_official(ours, family='other_toy'), official)


def test_files_that_no_family_recognises():
    official, ours = make_official(), make_model().state_dict()
    message = (
        r'expected a state dict of De-focus Mamba, got one with the keys toy_qk\.weight, toy_qk\.bias, toy_out, \.'
    )
    with pytest.raises(ValueError, match=message):
        official_to_mmdefocus(official)
    with pytest.raises(ValueError, match='expected a state dict of De-focus Mamba, got one with no keys'):
        mmdefocus_to_official({})
    with pytest.raises(ValueError, match=r'expected a state dict of De-focus Mamba, .*backbone\.q'):
        family_of(ours)
    with pytest.raises(ValueError, match='expected an official file of De-focus Mamba, got one with the keys toy_qk'):
        convert_official({'model': official})
    with pytest.raises(ValueError, match=r"family must be one of \['defocus_mamba'\], got 'toy'"):
        official_to_mmdefocus(official, family='toy')
    assert find_official_family(official) is find_family(ours) is None
    register_family(ToyFamily())
    with pytest.raises(ValueError, match='expected a state dict of De-focus Mamba or Toy, got'):
        official_to_mmdefocus({'conv1.weight': 0})


def test_parts_that_two_families_know_equally_well():
    register_family(ToyFamily())
    assert official_to_mmdefocus({'final_norm.bias': 0}) == {'backbone.norm.bias': 0}
    with pytest.raises(
        ValueError, match=r'De-focus Mamba and Toy recognise the same state dict with the keys backbone\.norm\.bias'
    ):
        mmdefocus_to_official({'backbone.norm.bias': 0})
    assert mmdefocus_to_official({'backbone.norm.bias': 0}, family='toy') == {'final_norm.bias': 0}


def test_registration():
    register_family(ToyFamily())
    again = type('Again', (ToyFamily,), {})()
    with pytest.raises(ValueError, match=r"family 'toy' is registered already \(ToyFamily\); give Again another name"):
        register_family(again)
    assert [family.name for family in registered_families()] == ['defocus_mamba', 'toy']
    assert family_by_name('toy').title == 'Toy'
    with pytest.raises(TypeError, match=r'expected an instance of CheckpointFamily, got .*ToyFamily'):
        register_family(ToyFamily)
    with pytest.raises(TypeError, match='abstract'):
        CheckpointFamily()


def test_the_documented_example(tmp_path):
    """The family in docs/checkpoints.md converts classifiers and detectors both ways."""
    (example,) = re.findall(r'```python\n(from .*?)```', DOCUMENTATION.read_text(), re.DOTALL)
    (tmp_path / 'example.py').write_text(example)
    runpy.run_path(str(tmp_path / 'example.py'))
    gate = 'token_mixer.example_gate'
    classifier = {f'network.0.1.{gate}': 'stages.0.1', 'head.bias': 'bias'}
    ours = {f'backbone.stages.0.1.{gate}': 'stages.0.1', 'head.fc.bias': 'bias'}
    assert official_to_mmdefocus(classifier) == ours
    assert mmdefocus_to_official(ours) == classifier
    detector = {f'backbone.network.0.1.{gate}': 'stages.0.1', 'neck.conv.bias': 'bias'}
    assert mmdefocus_to_official(official_to_mmdefocus(detector)) == detector
