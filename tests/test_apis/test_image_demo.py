"""tools/image_demo.py with toy networks of random weights."""

import re
import runpy
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

ROOT = Path(__file__).parents[2]
DETECTOR = ROOT / 'configs' / 'dino' / 'defocus_mamba_nano_digits.py'
SECONDS = r'\d+\.\d{3} s per image in the network \(%s images?, cpu, \d+ threads?\)'


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    """Two photographs in ``photos``, a toy classifier's config and the weights of it and of the nano detector."""
    root = tmp_path_factory.mktemp('demo')
    (root / 'photos').mkdir()
    for name in ('china.jpg', 'flower.jpg'):
        (root / 'photos' / name).write_bytes(resources.files('sklearn.datasets.images').joinpath(name).read_bytes())
    (root / 'broken').mkdir()
    (root / 'broken' / 'half.jpg').write_bytes((root / 'photos' / 'china.jpg').read_bytes()[:-9999])
    (root / 'classifier.py').write_text(
        f"_base_ = '{ROOT / 'configs' / 'classification' / 'defocus_mamba_base.py'}'\n"
        'sizes = dict(embed_dims=16, num_layers=2, inner_dims=32, state_dims=4)\n'
        'arch = dict(sizes, conv_kernel=4, dt_rank=2, group_size=16, _delete_=True)\n'
        'model = dict(backbone=dict(arch=arch), head=dict(in_channels=16))\n'
    )
    (root / 'notes.py').write_text('these are no settings')
    (root / 'none_base.py').write_text("_base_ = 'nowhere.py'")
    torch.manual_seed(0)
    for config, out in ((root / 'classifier.py', 'classifier.pth'), (DETECTOR, 'detector.pth')):
        cfg = Config.fromfile(config)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        model.init_weights()  # MMDetection leaves some of its parameters without values before
        meta = dict(dataset_meta=dict(classes=tuple('0123456789'))) if config == DETECTOR else {}
        torch.save(dict(meta=meta, state_dict=model.state_dict()), root / out)
    return root


@pytest.fixture
def demo(monkeypatch, capsys, directory):
    def run(*arguments):
        monkeypatch.chdir(directory)
        monkeypatch.setattr(sys, 'argv', ['image_demo.py', *map(str, arguments), '--device', 'cpu'])
        runpy.run_path(str(ROOT / 'tools' / 'image_demo.py'), run_name='__main__')
        return capsys.readouterr().out

    return run


def test_a_photograph_is_classified(demo, directory):
    printed = demo('photos/china.jpg', 'classifier.py', '--checkpoint', 'classifier.pth', '--out-dir', 'out/one')
    lines = printed[printed.index('photos/china.jpg\n') :].splitlines()
    scores = [float(re.fullmatch(r'  (0\.\d{4})  \d+  \w.*', line)[1]) for line in lines[1:6]]
    assert scores == sorted(scores, reverse=True)
    assert re.fullmatch(SECONDS % 1, lines[6])
    assert lines[7:] == ['pictures: out/one']
    with Image.open(directory / 'out' / 'one' / 'china.png') as picture:
        assert picture.size == (640, 427)


def test_a_folder_is_classified_in_batches(demo):
    printed = demo('photos', 'classifier.py', '--checkpoint', 'classifier.pth', '--batch-size', 2, '--topk', 2)
    lines = printed[printed.index('photos/china.jpg\n') :].splitlines()
    assert [index for index, line in enumerate(lines) if not line.startswith('  ')] == [0, 3, 6]
    assert lines[3] == 'photos/flower.jpg'
    assert re.fullmatch(SECONDS % 2, lines[6])


def test_objects_are_found(demo, directory):
    arguments = ['photos', DETECTOR, '--checkpoint', 'detector.pth', '--out-dir', 'out/boxes', '--score-thr', 0]
    lines = demo(*arguments).splitlines()
    first, second = lines.index('photos/china.jpg'), lines.index('photos/flower.jpg')
    assert second - first == 1 + 40, 'the detector gives 40 boxes'
    for line in lines[first + 1 : second]:
        assert re.fullmatch(r'  0\.\d{4}  (\d)  \1  -?\d+\.\d -?\d+\.\d -?\d+\.\d -?\d+\.\d', line)
    assert re.fullmatch(SECONDS % 2, lines[-2])
    assert sorted(path.name for path in (directory / 'out/boxes/vis').iterdir()) == ['china.jpg', 'flower.jpg']
    assert 'china.jpg\nphotos/flower.jpg\n' in demo(*arguments[:4], '--score-thr', 1.1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['photos', 'vit'], "expected one of the models .*, defocus-vit-base_in1k, .*; got 'vit'"),
        (['photos', 'none.py', '--checkpoint', 'classifier.pth'], "config file 'none.py' does not exist"),
        (['photos', 'defocus-mamba-small_in1k'], 'in1k has no published weights; name a checkpoint with --checkpoint'),
        (['.', 'classifier.py', '--checkpoint', 'classifier.pth'], r"expected images in folder '.' .*got none"),
        (['none.jpg', 'classifier.py', '--checkpoint', 'classifier.pth'], "image file 'none.jpg' does not exist"),
        (['broken', 'classifier.py', '--checkpoint', 'classifier.pth'], "image file 'broken/half.jpg' is truncated"),
        (['broken', DETECTOR, '--checkpoint', 'detector.pth'], "image file 'broken/half.jpg' is truncated"),
        (['photos', 'classifier.py', '--checkpoint', 'none.pth'], 'none.pth'),
        (
            ['photos', 'classifier.py', '--checkpoint', 'classifier.pth', '--batch-size', 0],
            'batch-size must be at least 1',
        ),
        (['photos', 'classifier.py', '--checkpoint', 'classifier.pth', '--topk', 0], 'topk must be positive, got 0'),
        (
            ['photos', 'classifier.py', '--checkpoint', 'classifier.pth', '--out-dir', 'classifier.py'],
            "--out-dir needs a directory that can be written to, got 'classifier.py'",
        ),
        (
            ['photos', 'classifier.py', '--checkpoint', 'classifier.pth', '--out-dir', 'classifier.py/pictures'],
            "got 'classifier.py/pictures'",
        ),
        (['photos', 'photos', '--checkpoint', 'classifier.pth'], "'photos' is a directory; name the config file in it"),
        (
            ['photos', 'notes.py', '--checkpoint', 'classifier.pth'],
            r"config file 'notes.py' cannot be read \(SyntaxError",
        ),
        (['photos', 'none_base.py', '--checkpoint', 'classifier.pth'], r"'none_base.py' cannot be read \(FileNotFound"),
        (
            ['http://127.0.0.1:9/photo.jpg', 'classifier.py', '--checkpoint', 'classifier.pth'],
            "image 'http://127.0.0.1:9/photo.jpg' cannot be read .*refused",
        ),
        (['photos', 'classifier.py', '--checkpoint', 'http://127.0.0.1:9/weights.pth'], 'refused'),
        (['photos', DETECTOR, '--checkpoint', 'http://127.0.0.1:9/weights.pth'], 'refused'),
        # The name selects its config: the weights of the toy do not fit the base network.
        (
            ['photos', 'defocus-mamba-base_3rdparty_in1k', '--checkpoint', 'classifier.pth'],
            "expected weights of arch='base'",
        ),
    ],
)
def test_mistakes_are_said_in_one_line(demo, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        demo(*arguments)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert re.search(message, line)


def edit(directory, source, out, change):
    content = torch.load(directory / source, weights_only=True)
    change(content['state_dict'])
    torch.save(content, directory / out)
    return out


def other_classes(state, prefix):
    for key in [key for key in state if key.startswith(prefix)]:
        state[key] = state[key][:2]


MISFITS = [
    (
        'classifier',
        'classifier',
        lambda state: other_classes(state, 'head.'),
        'of a different shape .*head.fc.weight: .2, 16.',
    ),
    ('classifier', 'classifier', lambda state: state.pop('head.fc.bias'), r'1 missing \(head.fc.bias\)'),
    ('classifier', 'classifier', lambda state: state.update(x=torch.zeros(1)), r'1 unexpected \(x\)'),
    (
        'detector',
        'detector',
        lambda state: other_classes(state, 'bbox_head.cls'),
        'of a different shape .*bbox_head.cls_branch',
    ),
    ('detector', 'classifier', lambda state: None, ''),
    ('classifier', 'detector', lambda state: None, ''),
]


@pytest.mark.parametrize(('task', 'source', 'change', 'message'), MISFITS)
def test_weights_of_another_model_are_refused(demo, capsys, directory, task, source, change, message):
    config = dict(classifier='classifier.py', detector=DETECTOR)[task]
    checkpoint = edit(directory, f'{source}.pth', 'misfit.pth', change)
    with pytest.raises(SystemExit) as stop:
        demo('photos/china.jpg', config, '--checkpoint', checkpoint)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    # Another architecture may be refused by the backbone first.
    assert re.search(f'misfit.pth does not fit the model: .*{message}.*--no-strict|expected weights of .*arch', line)


@pytest.mark.parametrize('task', ['classifier', 'detector'])
def test_weights_that_do_not_fit_can_be_allowed(demo, directory, task):
    config = dict(classifier='classifier.py', detector=DETECTOR)[task]
    checkpoint = edit(directory, f'{task}.pth', 'more.pth', lambda state: state.update(more=torch.zeros(1)))
    assert 'photos/china.jpg\n' in demo('photos/china.jpg', config, '--checkpoint', checkpoint, '--no-strict')
