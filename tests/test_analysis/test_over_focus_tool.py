"""tools/analysis/over_focus.py as a user types it, with toy networks."""

import json
import re
import runpy
import sys
from collections import OrderedDict
from importlib import resources
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis' / 'over_focus.py'
CONFIGS = ROOT / 'configs' / 'classification'
RANDOM = ('--random-weights', '--layers', '0')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with two small photographs in ``photos``, a config and its checkpoint, and broken inputs."""
    root = tmp_path_factory.mktemp('project')
    (root / 'photos').mkdir()
    for name in ('china.jpg', 'flower.jpg'):
        with resources.files('sklearn.datasets.images').joinpath(name).open('rb') as file:
            Image.open(file).resize((64, 48)).save(root / 'photos' / name)
    (root / 'mamba.py').write_text(f"_base_ = '{CONFIGS / 'defocus_mamba_nano_digits.py'}'")
    (root / 'vit.py').write_text(f"_base_ = '{CONFIGS / 'defocus_vit_nano_digits.py'}'")
    torch.manual_seed(0)
    cfg = Config.fromfile(root / 'mamba.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    meta = dict(dataset_meta=dict(classes=list('0123456789')))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), root / 'mamba.pth')
    (root / 'odd.py').write_text(
        "_base_ = 'mamba.py'\nmodel = dict(head=dict(predict_classes=[7, 9]))\n"
        "test_dataloader = dict(dataset=dict(metainfo=dict(classes=['seven', 'nine'])))"
    )
    (root / 'half.jpg').write_bytes((root / 'photos' / 'china.jpg').read_bytes()[:-500])
    (root / 'text.png').write_text('no image')
    (root / 'notes.txt').write_text('no image')
    (root / 'empty').mkdir()
    (root / 'file').write_text('in the way')
    (root / 'broken.py').write_text('model = dict(')
    return root


@pytest.fixture
def run(monkeypatch, capsys, project):
    def run(*words):
        monkeypatch.setattr(
            'mmengine.logging.MMLogger._instance_dict', OrderedDict()
        )  # one may write to a closed stream
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, words)])
        capsys.readouterr()
        runpy.run_path(str(TOOL), run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.fixture
def error(run, capsys):
    def error(*words):
        with pytest.raises(SystemExit) as stop:
            run(*words)
        printed = capsys.readouterr()
        assert stop.value.code == 2
        assert 'Traceback' not in printed.out + printed.err
        return re.search(r'error: (.*)', printed.err, re.DOTALL)[1].strip()

    return error


def test_networks_are_compared(run, project, tmp_path):
    out = tmp_path / 'new' / 'report'
    words = ['mamba.py@mamba.pth', 'photos', 'Plain=timm:test_resnet', 'photos/china.jpg', '--layers', '-1']
    printed = run(*words, '--random-weights', '--out', out)
    page = (out / 'index.html').read_text()
    for text in ('mamba', 'Plain', 'china.jpg', 'flower.jpg', 'mamba.py, mamba.pth', 'random weights (seed 0)'):
        assert text in page
    assert list(out.glob('*.png'))
    tables = json.loads((out / 'scores.json').read_text())
    assert list(tables) == ['mamba', 'Plain']
    assert tables['mamba']['layers'] == [3]
    values = tables['mamba']['scores']['entropy']['layers'][0]['values']
    assert [len(values), len(values[0])] == [2, 3]  # images, groups of channels
    listed = (out / 'scores.md').read_text()
    assert '## mamba\nmamba.py, mamba.pth' in listed
    assert '2 images: china.jpg, flower.jpg' in listed
    assert list(json.loads((out / 'spectra.json').read_text())) == ['mamba']
    assert re.search(r'^\| mamba +\| +\d\.\d{3} ', printed, re.MULTILINE)
    assert re.search(r'^\| Plain +\| +- ', printed, re.MULTILINE)
    assert f'{len(list(out.iterdir()))} files in {out}' in printed


def test_pyramids_are_reported_without_attention(run, tmp_path):
    words = [f'{name}={CONFIGS / name}_nano_digits.py' for name in ('fcvit', 'dat')]
    printed = run(
        *words, 'photos/china.jpg', '--random-weights', '--layers', '0', '-1', '--size', '64', '--out', tmp_path
    )
    assert 'fcvit: layers 0, 4: no attention: it mixes by convolutions and a global context' in printed
    assert 'dat: layer 0: no attention: it attends within neighbourhoods of 7 x 7 tokens' in printed
    assert 'dat: layer 7: no attention: it attends to sampled positions, not to tokens' in printed
    tables = json.loads((tmp_path / 'scores.json').read_text())
    assert [table['layers'] for table in tables.values()] == [[0, 4], [0, 7]]
    for table in tables.values():
        (evenness,) = table['scores']['gradient_evenness']['layers'][0]['values'][0]
        assert 0 < evenness <= 1
    assert list(tmp_path.glob('china_receptive-field*.png'))
    assert list(tmp_path.glob('china_class-gradient*.png'))


def test_the_predicted_class_is_one_of_the_classes_of_the_head(run, tmp_path):
    run('odd.py@mamba.pth', 'photos/china.jpg', '--layers', '0', '--out', tmp_path)
    assert re.search(r'"predicted":"(seven|nine) \(', (tmp_path / 'index.html').read_text())


def test_a_size_and_no_band_pass(run, tmp_path):
    run('timm:test_resnet', 'photos/china.jpg', *RANDOM, '--size', '32', '--out', tmp_path)
    assert not (tmp_path / 'spectra.json').exists()
    assert (tmp_path / 'index.html').exists()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (
            ['vit.py', 'photos', '--random-weights', '--layers', '4'],
            r"'vit': DefocusViT has the layers 0 to 3 \(or -4 to -1\), got 4",
        ),
        (['vit.py', 'photos', '--random-weights', '--layers', '-5'], r'has the layers 0 to 3 \(or -4 to -1\), got -5'),
        (['vit.py', 'none.jpg', *RANDOM], r"image file 'none\.jpg' does not exist .* correct it"),
        (['vit.py', 'half.jpg', *RANDOM], r'half\.jpg'),
        (['vit.py', 'text.png', *RANDOM], r'text\.png'),
        (['vit.py', 'notes.txt', *RANDOM], r"'notes\.txt' is neither a network nor an image: expected .* rename"),
        (['vit.py', 'empty', *RANDOM], r"expected images in folder 'empty'"),
        (['vit.py', *RANDOM], r'no image among the arguments \(vit\.py\)'),
        (['photos', *RANDOM], r'no network among the arguments \(photos\)'),
        (['vit.py', 'vit.py@mamba.pth', 'photos'], r"2 networks have the label 'vit'; give each its own: LABEL="),
        (['vit.py', 'photos'], r'vit\.py has no published weights; name a checkpoint, vit\.py@FILE, or use --random'),
        (['vit.py@mamba.pth', 'photos'], r'mamba\.pth does not fit vit\.py: .* Use the config of its training'),
        (['mamba.py@none.pth', 'photos'], r'checkpoint none\.pth does not exist'),
        (['mamba.py@notes.txt', 'photos'], r'notes\.txt'),
        (['none.py@mamba.pth', 'photos'], r"config file 'none\.py' does not exist; did you mean|does not exist"),
        (['broken.py@mamba.pth', 'photos'], r'broken\.py'),
        (['defocus-mamba-bas_in1k', 'photos'], r'neither a network nor an image.*did you mean .*mamba-base'),
        (['timm:deit_tiny', 'photos'], r"timm has no network 'deit_tiny'; did you mean deit_tiny_"),
        (['timm:dla46_c', 'photos', *RANDOM], r"'dla46_c': DLA has no layers that are known to give tokens"),
        (
            ['timm:test_vit', 'timm:hiera_tiny_224', 'photos', *RANDOM],
            r"'hiera_tiny_224': Hiera reorders its tokens, expected .*; leave the network out",
        ),
        (['vit.py', 'photos', *RANDOM, '--include', 'conv'], r"'vit' has no attention that can include conv: "),
        (
            ['timm:test_vit', 'photos', *RANDOM, '--include', 'gate'],
            r"'test_vit' has no attention that can include",
        ),
        (['timm:test_vit', 'photos', *RANDOM, '--size', '8'], r'cannot take images of 8 x 8'),
        (['vit.py', 'photos', *RANDOM, '--size', '-3'], r'at least 1, got -3'),
        (['vit.py', 'photos', *RANDOM, '--device', 'tpu'], r"device must be 'cpu'"),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_errors_of_the_user(error, words, message, tmp_path):
    assert re.search(message, error(*words, '--out', tmp_path / 'out'), re.DOTALL)


@pytest.mark.parametrize('out', ['file', 'file/in/it'])
def test_the_out_folder_is_checked_before_the_work(error, monkeypatch, out):
    monkeypatch.setattr('mmdefocus.apis.analysis_models.load_network', lambda *_, **__: pytest.fail('work has begun'))
    assert re.search(
        r"--out needs a directory that can be written to, got 'file.*name another one",
        error('vit.py', 'photos', *RANDOM, '--out', out),
    )


def test_the_usage_says_what_is_missing(error):
    assert 'the following arguments are required: --out' in error('vit.py', 'photos')
    assert "argument --layers: expected numbers, got 'vit.py'; name networks" in error(
        '--layers', '0', 'vit.py', 'photos'
    )
    assert "argument --include: invalid choice: 'norm'" in error('vit.py', '--out', 'x', '--include', 'norm')
