"""Official checkpoints to MMEngine ones and back, by command and by function."""

import hashlib
import runpy
import sys
import threading
from pathlib import Path

import pytest
import torch
from commands import TOOLS, tool
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from mmdefocus.models.checkpoint import official_to_mmdefocus, read_checkpoint
from mmdefocus.models.checkpoint.conversion import convert_official, convert_to_official
from mmdefocus.models.checkpoint.publishing import write_checkpoint
from mmdefocus.models.imagenet21k import imagenet1k_indices

GOLDEN = Path(__file__).parents[1] / 'golden'
CLASSIFIERS = ['cls_rope', 'cls_norope', 'cls_22kto1k_scaled']
CASES = [*CLASSIFIERS, 'det_window', 'det_raster']


def official_file(case):
    return GOLDEN / f'{case}_official_{case[:3]}.pth'


def official_weights(case, entry=None):
    return read_checkpoint(official_file(case))[entry or ('model' if case in CLASSIFIERS else 'state_dict')]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runner of a converter in an empty directory: returns the file that it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        before = set(tmp_path.iterdir())
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(str(TOOLS / 'model_converters' / name), run_name='__main__')
        (written,) = set(tmp_path.iterdir()) - before
        return written

    return run


def convert(command, case, *options):
    return command('official_to_mmdefocus.py', official_file(case), 'ours.pth', *options)


def assert_bit_equal(first, second):
    assert list(first) == list(second)
    for key in first:
        assert first[key].dtype == second[key].dtype, key
        assert torch.equal(first[key].view(torch.uint8), second[key].view(torch.uint8)), key


@pytest.mark.parametrize('case', CASES)
def test_there_and_back_is_bit_equal(command, case):
    ours = convert(command, case)
    official = official_weights(case)
    assert_bit_equal(read_checkpoint(ours)['state_dict'], official_to_mmdefocus(official))
    back = command('mmdefocus_to_official.py', ours, 'back.pth')
    assert back.name == 'back.pth'
    content = torch.load(back, weights_only=True)
    assert_bit_equal(content['model' if case in CLASSIFIERS else 'state_dict'], official)
    again = command('official_to_mmdefocus.py', back, 'again.pth')
    assert_bit_equal(read_checkpoint(again)['state_dict'], official_to_mmdefocus(official))
    assert read_checkpoint(again)['state_dict']._metadata == read_checkpoint(ours)['state_dict']._metadata


@pytest.mark.parametrize('case', CLASSIFIERS)
def test_averaged_weights_are_half_of_the_plain_ones(command, case):
    plain = read_checkpoint(convert(command, case, '--weights', 'model'))
    averaged = read_checkpoint(convert(command, case, '--weights', 'ema'))
    assert list(plain['state_dict']) == list(averaged['state_dict'])
    for key, value in plain['state_dict'].items():
        assert torch.equal(averaged['state_dict'][key], value * 0.5), key
    weights = [checkpoint['meta']['official_weights'] for checkpoint in (plain, averaged)]
    assert weights == ['model', 'model_ema']


def test_report_and_name(command, capsys):
    written = convert(command, 'cls_22kto1k_scaled')
    lines = capsys.readouterr().out.splitlines()
    source, result = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (official_file(CASES[2]), written))
    assert written.name == f'ours-{result[:8]}.pth'
    assert lines[0].endswith(f': classification, sha256 {source}')
    assert lines[1:6] == [
        'weights    model',
        'network    De-focus Mamba, custom arch: embed_dims 64, 2 layers',
        'trained at 128 x 128 pixels, rope_scale 4, delta_scale 2',
        '           a detector with pretrain_size=128 sets its scales by the published rule: at 1024 x 1024 pixels '
        'rope_scale 64, delta_scale 8',
        'keys       35 mapped, 143,668 parameters',
    ]
    expected = ['2', 'backbone.layers.*.mixer.A_log', '(128,', '16)', 'float32', 'from', 'blocks.*.mixer.A_log']
    assert expected in [line.split() for line in lines]
    assert ['1', 'head.aux_fc.2.bias', '(10,)', 'float32', 'from', 'head2.2.bias'] in [line.split() for line in lines]
    assert lines[-4:] == [
        'dropped    none',
        'unexpected none',
        'missing    none',
        f'written    {written.name}, sha256 {result}',
    ]
    assert read_checkpoint(written)['meta']['source_sha256'] == source


def test_backbone_of_a_detector(command, capsys):
    ours = convert(command, 'cls_22kto1k_scaled', '--to', 'det')
    assert 'dropped    head.0.bias, head.0.weight, head.2.bias' in capsys.readouterr().out
    content = read_checkpoint(ours)
    assert {key.split('.')[0] for key in content['state_dict']} == {'backbone'}
    arch = dict(embed_dims=64, num_layers=2, inner_dims=128, state_dims=16, conv_kernel=4, dt_rank=4, group_size=64)
    options = dict(out_type='featmap', blocks_in_fp32=True, patch_embed_init='kaiming_normal', scale_rule='per_image')
    backbone = MODELS.build(dict(type='DefocusMamba', arch=arch, **options))
    load_checkpoint(backbone, str(ours), strict=True)
    assert (backbone.rope_scale, backbone.delta_scale, backbone.pretrain_size) == ('auto', 'auto', 128)


def test_head_is_dropped(command):
    keys = read_checkpoint(convert(command, 'cls_rope', '--head', 'drop'))['state_dict']
    assert keys
    assert not [key for key in keys if key.startswith('head')]


@pytest.mark.parametrize(('case', 'layer'), [('cls_rope', ''), ('cls_22kto1k_scaled', '2.')])
def test_rows_of_imagenet_1k(case, layer):
    """Row i of a head holds i, of the auxiliary head -i."""
    pytest.importorskip('timm', reason='the class lists come from timm')
    content = read_checkpoint(official_file(case))
    rows = torch.arange(21841.0)
    for head, sign in (('head', 1), ('head2', -1)):
        width = content['model'][f'{head}.{layer}weight'].shape[1]
        content['model'][f'{head}.{layer}weight'] = sign * rows[:, None].expand(-1, width)
        content['model'][f'{head}.{layer}bias'] = sign * rows
    ours = convert_official(content, head='21k-to-1k')['state_dict']
    expected = torch.tensor(imagenet1k_indices(), dtype=torch.float32)
    for head, sign in (('fc', 1), ('aux_fc', -1)):
        weight, bias = (ours[f'head.{head}.{layer}{leaf}'] for leaf in ('weight', 'bias'))
        assert torch.equal(bias, sign * expected)
        assert weight.shape == (1000, width)
        assert torch.equal(weight, (sign * expected)[:, None].expand_as(weight))
    if layer:
        assert torch.equal(ours['head.fc.0.weight'], content['model']['head.0.weight'])


@pytest.mark.parametrize(
    ('case', 'options', 'message'),
    [
        ('det_window', ['--weights', 'ema'], "there is no 'model_ema' in this file"),
        ('det_window', ['--to', 'cls'], 'a detection file has no classification heads'),
        ('det_window', ['--head', 'keep'], "head='keep' is for classifiers"),
        ('cls_rope', ['--to', 'det', '--head', 'keep'], "head='keep' is for classifiers"),
        ('cls_rope', ['--head', '21k-to-1k'], '21k-to-1k expects heads of 21841 classes, got head.fc.weight with 10'),
    ],
)
def test_options_that_do_not_apply_to_a_file(command, tmp_path, capsys, case, options, message):
    with pytest.raises(SystemExit, match='2'):
        convert(command, case, *options)
    assert capsys.readouterr().err.startswith(f'error: {message}')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('change', 'message', 'line'),
    [
        (lambda state: state.update(pos_embed=torch.ones(1)), 'error: 1 keys do not belong', 'unexpected pos_embed'),
        (
            lambda state: state.pop('blocks.1.norm.weight'),
            'error: 1 keys of the model are missing',
            'missing    backbone.layers.1.n',
        ),
        (
            lambda state: state.update({'norm.bias': torch.ones(3)}),
            'error: 1 keys',
            'missing    backbone.norm.bias (64',
        ),
        (
            lambda state: state.pop('head2.weight'),
            'error: 1 keys of the model are missing',
            'missing    head.aux_fc.weight (10, 64)',
        ),
    ],
)
def test_strict_by_default(command, tmp_path, capsys, change, message, line):
    content = read_checkpoint(official_file('cls_rope'))
    change(content['model'])
    (tmp_path / 'in').mkdir()
    torch.save(content, tmp_path / 'in/changed.pth')
    with pytest.raises(SystemExit, match='2'):
        command('official_to_mmdefocus.py', 'in/changed.pth', 'ours.pth')
    assert message in capsys.readouterr().err
    written = command('official_to_mmdefocus.py', 'in/changed.pth', 'ours.pth', '--no-strict')
    assert line in capsys.readouterr().out
    assert 'backbone.layers.0.mixer.D' in read_checkpoint(written)['state_dict']


@pytest.mark.parametrize('name', ['official_to_mmdefocus.py', 'mmdefocus_to_official.py'])
def test_files_that_cannot_be_converted(command, tmp_path, capsys, name):
    def error_of(source):
        with pytest.raises(SystemExit, match='2'):
            command(name, source, 'out.pth')
        return capsys.readouterr().err

    folder = tmp_path / 'in'
    folder.mkdir()
    torch.save({'state_dict': {'conv1.weight': torch.ones(1)}}, folder / 'resnet.pth')
    torch.save({'model': {'cls_token': torch.ones(1)}}, folder / 'little.pth')
    state = official_weights('cls_rope')
    state['norm.bias'][0] = torch.nan
    state = state if name.startswith('official') else official_to_mmdefocus(state)
    torch.save({'state_dict': state}, folder / 'nan.pth')
    assert 'got one with the keys conv1.weight, ...' in error_of('in/resnet.pth')
    assert 'got one with the keys cls_token, ...' in error_of('in/little.pth')
    assert 'norm.bias has NaN or infinite elements' in error_of('in/nan.pth')
    assert error_of(__file__).startswith('error: expected a file written by torch.save')
    assert error_of('in').startswith('error: in is a directory')
    assert error_of('none.pth') == (
        'error: checkpoint none.pth does not exist; expected the path or the URL of a checkpoint: correct it\n'
    )
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_wrong_direction():
    official = official_weights('cls_rope')
    with pytest.raises(
        ValueError, match=r'expected a checkpoint of mmdefocus .*\(De-focus Mamba, .*\), got .* cls_token'
    ):
        convert_to_official({'model': official})
    with pytest.raises(ValueError, match=r'expected an official file of De-focus Mamba, .* got .* backbone\.cls_token'):
        convert_official({'state_dict': official_to_mmdefocus(official)})
    with pytest.raises(ValueError, match='got one with a list'):
        convert_official([])
    for names in ({'to': 'seg'}, {'head': 'new'}, {'weights': 'ema'}):
        with pytest.raises(ValueError, match=rf'{next(iter(names))} must be one of \['):
            convert_official({'model': official}, **names)


def test_files_are_written_atomically(tmp_path):
    target = tmp_path / 'new' / 'file.pth'
    with pytest.raises(TypeError, match='pickle'):
        write_checkpoint({'weight': torch.ones(1000), 'lock': threading.Lock()}, target)
    assert not list(target.parent.iterdir())
    assert write_checkpoint({'a': 1}, target) == target
    write_checkpoint({'a': 2}, target)
    assert [path.name for path in target.parent.iterdir()] == ['file.pth']
    assert torch.load(target) == {'a': 2}
    with pytest.raises(ValueError, match=r"ends in \.pth, got '.*file\.pt'"):
        write_checkpoint({}, tmp_path / 'file.pt')


def test_command_in_a_new_process(tmp_path):
    printed = tool(tmp_path, 'model_converters/official_to_mmdefocus.py', official_file('det_raster'), 'ours.pth')
    (written,) = tmp_path.iterdir()
    assert f'written    {written.name}, sha256 ' in printed
