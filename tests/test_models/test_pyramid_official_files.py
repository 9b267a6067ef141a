"""Official files of FCViT and DAT, as their trainers write them: loaded, converted there and back, and refused."""

import os
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.apis import get_model
from pyramid_trainings import (
    AVERAGES,
    BACKBONES,
    EACH,
    ENTRIES,
    Call,
    CfgNode,
    classifier_config,
    make_classifier,
    training_of,
)

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.checkpoints import check_checkpoint
from mmdefocus.models.checkpoint import CheckpointError, mmdefocus_to_official, official_to_mmdefocus, read_checkpoint
from mmdefocus.models.checkpoint.conversion import convert_official

TOOLS = Path(__file__).parents[2] / 'tools'
IMPORTS = "custom_imports = dict(imports=['mmdefocus.models'], allow_failed_imports=False)\n"


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Writer of an official file: (network, changes of its entries) to (path, official weights, our classifier)."""

    def write(network, **changes):
        model = make_classifier(network)
        state_dict = mmdefocus_to_official(model.state_dict())
        path = tmp_path / f'{network.replace(" ", "_")}.pth{".tar" if network == "fcvit" else ""}'
        with monkeypatch.context() as patch:
            for name in ('yacs', 'yacs.config'):
                patch.setitem(sys.modules, name, types.ModuleType(name))
            patch.setattr(CfgNode, '__module__', 'yacs.config')
            sys.modules['yacs.config'].CfgNode = CfgNode
            torch.save(training_of(network, state_dict) | changes, path)
        return path, state_dict, model

    return write


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runner of a converter in the directory of the files: returns the file that it wrote and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        before = set(tmp_path.iterdir())
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(str(TOOLS / 'model_converters' / name), run_name='__main__')
        (written,) = set(tmp_path.iterdir()) - before
        return written, capsys.readouterr().out

    return run


to_ours = 'official_to_mmdefocus.py'
to_official = 'mmdefocus_to_official.py'


def assert_bit_equal(first, second):
    assert list(first) == list(second)
    for key in first:
        assert first[key].dtype == second[key].dtype, key
        assert first[key].shape == second[key].shape, key
        bits = [value.reshape(-1).view(torch.uint8) for value in (first[key], second[key])]
        assert torch.equal(*bits), key


@EACH
def test_the_files_are_read_as_data(official, network):
    path, state_dict, _ = official(network)
    content = read_checkpoint(path)
    assert 'yacs' not in sys.modules
    assert_bit_equal(content[ENTRIES[network]], state_dict)
    if network == 'fcvit':
        assert content['metric'] == 74.9
    else:
        assert content['config']['MODEL']['DAT']['img_size'] == 224
        assert content['lr_scheduler']['warmup_t'] == 20


def through_load_from(config, file, work_dir):
    runner = Runner(config.model, work_dir, load_from=file, default_scope='mmpretrain', log_level='ERROR')
    runner.load_or_resume()
    return runner.model


def through_init_cfg(config, file, work_dir):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**config.model, 'init_cfg': dict(type='Pretrained', checkpoint=file)})
    model.init_weights()
    return model


def through_inferencer(config, file, work_dir):
    """The function that MMPreTrain's inferencers call."""
    return get_model(config, pretrained=file)


def through_state_dict(config, file, work_dir):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model)
    content = read_checkpoint(file)
    model.load_state_dict(content.get('model', content.get('state_dict')))
    return model


@pytest.mark.parametrize(
    ('network', 'load'),
    [
        ('fcvit', through_load_from),
        ('dat++', through_init_cfg),
        ('dat v1', through_inferencer),
        *((network, through_state_dict) for network in BACKBONES),
    ],
)
def test_classifiers_load_directly(official, tmp_path, network, load):
    path, _, model = official(network)
    config = tmp_path / 'classifier.py'
    config.write_text(f"{IMPORTS}default_scope = 'mmpretrain'\nmodel = {classifier_config(network)!r}\n")
    loaded = load(Config.fromfile(config), str(path), str(tmp_path)).eval()
    image = torch.randn(2, 3, 40, 64)
    assert torch.equal(loaded(image), model(image))


@EACH
def test_the_backbone_of_a_detector_starts_from_a_classifier(official, network):
    path, _, model = official(network)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone = MODELS.build(dict(BACKBONES[network], out_indices=(0, 1, 2, 3), init_cfg=init_cfg))
    backbone.init_weights()
    own, weights = backbone.state_dict(), model.backbone.state_dict()
    assert {name.split('.')[0] for name in own.keys() - weights.keys()} == {'norm0', 'norm1', 'norm2'}
    assert all(torch.equal(own[name], value) for name, value in weights.items())
    assert all(torch.equal(own[f'norm{i}.weight'], torch.ones_like(own[f'norm{i}.weight'])) for i in range(3))


@EACH
def test_official_detectors(tmp_path, network):
    """Names in a file of the official detectors: a norm per output, and the names of MMDetection."""
    torch.manual_seed(0)
    backbone = MODELS.build(dict(BACKBONES[network], out_indices=(0, 1, 2, 3)))
    backbone.init_weights()
    ours = {
        f'backbone.{name}': torch.rand_like(value) if 'norm' in name and value.is_floating_point() else value
        for name, value in backbone.state_dict().items()
    }
    ours |= {f'{part}.weight': torch.rand(2) for part in ('neck.lateral_convs.0.conv', 'rpn_head.rpn_cls')}
    ours |= {f'roi_head.{head}.fc.bias': torch.rand(2) for head in ('bbox_head', 'mask_head')}
    official = mmdefocus_to_official(ours)
    norms = ('norm0', 'norm2', 'norm4', 'norm6') if network == 'fcvit' else [f'norms.{i}.norm' for i in range(4)]
    assert all(torch.equal(official[f'backbone.{n}.bias'], ours[f'backbone.norm{i}.bias']) for i, n in enumerate(norms))
    assert_bit_equal(official_to_mmdefocus(official), ours)
    torch.save({'meta': {'epoch': 36}, 'state_dict': official, 'optimizer': {}}, tmp_path / 'detector.pth')
    other = MODELS.build(dict(BACKBONES[network], out_indices=(0, 1, 2, 3)))
    load_checkpoint(other, str(tmp_path / 'detector.pth'), strict=True)
    assert_bit_equal(other.state_dict(), {name[9:]: value for name, value in ours.items() if name[:9] == 'backbone.'})


REPORTED = {
    'fcvit': [
        "network    FCViT, arch 'nano': embed_dims (32, 48, 64, 96), depths (1, 1, 2, 1)",
        '2 backbone.stages.*.*.channel_mixer.dwconv.bias (256,) float32 from network.*.*.channel_mixer.dwconv.bias',
        '1 backbone.downsample_layers.*.projection.bias (48,) float32 from network.*.proj.bias',
        '5 backbone.stages.*.*.token_mixer.gc1.rescale_bias (8,) float32 from network.*.*.token_mixer.gc1.rescale_bias',
    ],
    'dat++': [
        '1 backbone.stages.*.*.attn.rpb (4, 13, 13) float32 from stages.*.attns.*.rpb',
        '2 backbone.stages.*.*.norm1.weight (64,) float32 from stages.*.layer_norms.*.norm.weight',
        '1 backbone.downsample_layers.*.0.weight (64, 32, 3, 3) float32 from down_projs.*.0.weight',
    ],
    'dat v1': [
        '5 backbone.stages.*.*.attn.relative_position_index (49, 49) int64 from '
        'stages.*.attns.*.relative_position_index',
        '1 backbone.stages.*.*.attn.attn_mask (64, 49, 49) float32 from stages.*.attns.*.attn_mask',
    ],
}


@EACH
def test_there_and_back_is_bit_equal_and_equal_layers_share_a_line(official, command, network):
    path, state_dict, model = official(network)
    ours, printed = command(to_ours, path, 'ours.pth')
    assert_bit_equal(read_checkpoint(ours)['state_dict'], official_to_mmdefocus(state_dict))
    assert read_checkpoint(ours).keys() == {'meta', 'state_dict'}
    back, _ = command(to_official, ours, 'back.pth')
    content = torch.load(back, weights_only=True)
    assert_bit_equal(content[ENTRIES[network]], state_dict)
    again, _ = command(to_ours, back, 'again.pth')
    assert_bit_equal(read_checkpoint(again)['state_dict'], read_checkpoint(ours)['state_dict'])
    parameters = sum(value.numel() for value in model.parameters())
    lines = [' '.join(line.split()) for line in printed.splitlines()]
    for line in (f'keys {len(state_dict)} mapped, {parameters:,} parameters', *REPORTED[network]):
        assert ' '.join(line.split()) in lines
    assert lines[-4:-1] == ['dropped none', 'unexpected none', 'missing none']


@EACH
def test_averaged_weights(official, command, network):
    path, state_dict, _ = official(network)
    # The average of equal buffers of windows is the buffer.
    is_averaged = {name: value.is_floating_point() and 'attn_mask' not in name for name, value in state_dict.items()}
    average = {name: value / 2 if is_averaged[name] else value for name, value in state_dict.items()}
    torch.save(read_checkpoint(path) | {AVERAGES[network]: average}, path)
    ours, printed = command(to_ours, path, 'ours.pth', '--weights', 'ema')
    assert 'weights    model_ema' in printed
    assert_bit_equal(read_checkpoint(ours)['state_dict'], official_to_mmdefocus(average))


@EACH
def test_files_without_an_average_say_so(official, command, capsys, network):
    path, state_dict, _ = official(network)
    torch.save({ENTRIES[network]: state_dict}, path)
    with pytest.raises(SystemExit, match='2'):
        command(to_ours, path, 'ours.pth', '--weights', 'ema')
    assert f"there is no '{AVERAGES[network]}' in this file" in capsys.readouterr().err


@EACH
@pytest.mark.parametrize('options', [dict(head='drop'), dict(to='det')])
def test_heads_can_be_dropped(network, options):
    official = mmdefocus_to_official(make_classifier(network).state_dict())
    converted = convert_official({ENTRIES[network]: official}, **options)
    assert {name.split('.')[0] for name in converted['state_dict']} == {'backbone'}


@EACH
def test_a_file_that_would_run_code_is_refused(official, command, capsys, tmp_path, network):
    trap = tmp_path / 'it_ran'
    entry = 'args' if network == 'fcvit' else 'config'
    path, _, _ = official(network, **{entry: Call(os.mkdir, str(trap))})
    with pytest.raises(
        CheckpointError, match=r'was not loaded: it refers to \S*mkdir\. A checkpoint may contain only data'
    ):
        load_checkpoint(torch.nn.Linear(1, 1), str(path))
    with pytest.raises(SystemExit, match='2'):
        command(to_ours, path, 'ours.pth')
    assert 'no code from this file was run' in capsys.readouterr().err
    assert not trap.exists()


@EACH
def test_a_truncated_file_is_refused(official, network):
    path, _, _ = official(network)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r'truncated or damaged .* download or copy it again'):
        read_checkpoint(path)


@EACH
def test_official_files_cannot_be_resumed(official, network):
    path, _, _ = official(network)
    with pytest.raises(UsageError, match=r'is an official file and cannot be resumed; .* set load_from='):
        check_checkpoint(str(path), to_resume=True)


@EACH
@pytest.mark.parametrize('missing', [False, True])
def test_keys_that_do_not_belong_to_the_model(official, command, capsys, network, missing):
    path, state_dict, _ = official(network)
    name = next(name for name in state_dict if name.endswith('.bias'))
    changed = {key: value for key, value in state_dict.items() if not missing or key != name}
    torch.save({ENTRIES[network]: changed if missing else changed | {'pos_embed': torch.ones(1)}}, path)
    with pytest.raises(SystemExit, match='2'):
        command(to_ours, path, 'ours.pth')
    message = '1 keys of the model are missing' if missing else 'names: pos_embed'
    assert message in capsys.readouterr().err


def refusal(path, network, **changes):
    """The message with which the backbone of a config refuses a file."""
    backbone = MODELS.build(
        {**BACKBONES[network], **changes, 'init_cfg': dict(type='Pretrained', checkpoint=str(path))}
    )
    with pytest.raises(CheckpointError) as error:
        backbone.init_weights()
    return str(error.value)


@pytest.mark.parametrize(
    ('file', 'network', 'changes', 'expected'),
    [
        (
            'fcvit',
            'fcvit',
            dict(arch='tiny'),
            "got weights of arch='nano' (embed_dims=[32, 48, 64, 96], blocks=[1, 1, 2,",
        ),
        ('dat++', 'dat++', dict(arch='tiny'), "got weights of arch='nano', img_size=224, window_size=7 (embed_dims"),
        ('dat v1', 'dat++', {}, "blocks=['LS', 'L', 'LD', 'LD']"),
        ('dat++', 'dat v1', {}, "got weights of arch='nano', img_size=224, window_size=7 (embed_dims"),
        (
            'dat v1',
            'dat v1',
            dict(img_size=384, window_size=12),
            'got weights of another arch, img_size=224, window_size=7',
        ),
        ('dat++', 'dat++', dict(img_size=384), 'got weights of'),
    ],
)
def test_weights_of_another_variant_are_refused_by_name(official, file, network, changes, expected):
    message = refusal(official(file)[0], network, **changes)
    assert f'is not a checkpoint of this {BACKBONES[network]["type"]}: expected weights of ' in message
    assert expected in message
    assert 'Name a checkpoint of this network in the init_cfg' in message


TITLES = {'fcvit': 'FCViT', 'dat++': 'DAT', 'dat v1': 'DAT'}


@pytest.mark.parametrize(('file', 'network'), [('fcvit', 'dat++'), ('dat++', 'fcvit'), ('dat v1', 'fcvit')])
def test_weights_of_another_family_are_refused_by_name(official, file, network):
    message = refusal(official(file)[0], network)
    assert f'expected weights of {TITLES[network]}, got weights of {TITLES[file]}; give weights of ' in message


@EACH
def test_weights_of_defocus_mamba_are_refused_by_name(golden, network):
    _, weights = golden('cls_rope')
    backbone = MODELS.build(BACKBONES[network])
    for strict in (True, False):
        with pytest.raises(
            RuntimeError, match=rf'expected weights of {TITLES[network]}, got weights of De-focus Mamba'
        ):
            backbone.load_state_dict(weights, strict=strict)


def test_only_norms_of_outputs_may_be_left_over():
    weights = MODELS.build(BACKBONES['fcvit']).state_dict() | {
        'norm0.weight': torch.ones(32),
        'norm.weight': torch.ones(1),
    }
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "norm\.weight"\.'):
        MODELS.build(BACKBONES['fcvit']).load_state_dict(weights)
