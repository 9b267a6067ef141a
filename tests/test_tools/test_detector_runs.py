"""A small DINO as a user trains it: resumed, with a learning rate that is far too high, with wrong settings."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from commands import TOOLS
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdefocus.models.checkpoint import read_checkpoint

CONFIG = Path(__file__).parent / 'toy_dino.py'


@pytest.fixture(autouse=True)
def one_thread():
    """With several, the order of sums differs from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(monkeypatch, digits_coco):
    """tools/train.py with a working directory, options of the command line and settings of the config."""

    def run(work_dir: Path, *options: str, **settings) -> None:
        settings = {'data_root': f'{digits_coco}/'} | settings
        settings = [f'{key.replace("__", ".")}={value}' for key, value in settings.items()]
        monkeypatch.setattr(
            sys, 'argv', ['train.py', str(CONFIG), '--work-dir', str(work_dir), *options, '--cfg-options', *settings]
        )
        runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')

    return run


def test_a_resumed_training_is_equal_to_the_last_bit(train, tmp_path):
    """Without a seed in the config: that of the first training is taken from its checkpoint."""
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train(whole)
    train(resumed, '--resume', str(whole / 'epoch_1.pth'))
    expected, actual = (read_checkpoint(folder / 'epoch_2.pth')['state_dict'] for folder in (whole, resumed))
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []


def test_a_loss_that_cannot_be_computed_is_reported_with_its_origin(train, tmp_path):
    """DINO's matching raises an error for values that are not finite, before there is a loss."""
    with pytest.raises(RuntimeError) as error:
        train(tmp_path, optim_wrapper__optimizer__lr=1e6)
    message = str(error.value)
    assert re.match(r'the loss of iteration \d cannot be computed \(ValueError: matrix contains invalid', message)
    assert '. The first module with finite inputs and an output that is not is ' in message
    assert 'Lower the learning rate or lengthen its warm-up' in message


def test_an_error_of_another_kind_is_left_as_it_is(train, tmp_path, monkeypatch):
    def refuse(cost):
        raise ValueError('no more memory')

    monkeypatch.setattr('mmdet.models.task_modules.assigners.hungarian_assigner.linear_sum_assignment', refuse)
    monkeypatch.setenv('MMDEFOCUS_TRACEBACK', '1')
    with pytest.raises(ValueError, match=r'^no more memory$'):
        train(tmp_path)


def test_a_head_for_other_classes_is_refused_before_the_training(train, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        train(tmp_path, model__bbox_head__num_classes=80)
    message = 'DefocusCocoDataset has 10 classes, but the model has 80 (model.bbox_head.num_classes): set model.bbox_'
    assert f'error: {message}' in capsys.readouterr().err


@pytest.mark.parametrize('epochs', [0, -1, 1.5, "'two'"])
def test_a_training_without_an_epoch_is_refused(train, tmp_path, capsys, epochs):
    with pytest.raises(SystemExit, match='2'):
        train(tmp_path, train_cfg__max_epochs=epochs)
    expected = 'error: train_cfg.max_epochs must be a whole number of at least 1, got '
    assert capsys.readouterr().err.startswith(expected)


def test_a_training_without_an_iteration_is_refused(train, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        train(tmp_path, train_cfg__max_iters=0)
    expected = 'error: train_cfg.max_iters must be a whole number of at least 1, got 0; '
    assert capsys.readouterr().err.startswith(expected)


def test_weights_that_cannot_be_downloaded(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    address = 'http://127.0.0.1:9/base.pth'
    with pytest.raises(SystemExit, match='2'):
        train(
            tmp_path / 'work',
            model__backbone__init_cfg__type='Pretrained',
            model__backbone__init_cfg__checkpoint=address,
        )
    message = capsys.readouterr().err
    assert f'error: {address} could not be downloaded (URLError: ' in message
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in message
    assert not list(tmp_path.rglob('*.pth'))


def test_encoder_and_decoder_may_come_from_another_dino(train, tmp_path, capsys):
    """As a warm start from a detector of MMDetection's with a ResNet."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=4, out_indices=(1, 2, 3), norm_cfg=dict(type='BN'))
    cfg.model.neck = dict(type='ChannelMapper', in_channels=[8, 16, 32], kernel_size=1, out_channels=96, num_outs=3)
    with DefaultScope.overwrite_default_scope('mmdet'):
        other = MODELS.build(cfg.model)
    other.init_weights()
    torch.save({'state_dict': other.state_dict()}, tmp_path / 'resnet.pth')

    train(tmp_path / 'work', load_from=tmp_path / 'resnet.pth', optim_wrapper__optimizer__lr=0.0)
    log = capsys.readouterr().out
    assert re.search(r'Initial values remain in backbone \((\d+) of \1 tensors\), neck \((\d+) of \2 tensors\)\n', log)
    trained, given = read_checkpoint(tmp_path / 'work' / 'epoch_2.pth')['state_dict'], other.state_dict()
    parts = [name for name in trained if not name.startswith(('backbone.', 'neck.'))]
    assert {name.partition('.')[0] for name in parts} >= {'encoder', 'decoder', 'bbox_head', 'query_embedding'}
    assert [name for name in parts if not torch.equal(trained[name], given[name])] == []
