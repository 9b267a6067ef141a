"""What cannot be resumed exactly in the middle of an epoch is refused, and parts with a state go on with it."""

import itertools
import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from commands import TOOLS, error_of
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmdefocus.engine import SetupError
from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent
numbers = itertools.count()
# Three batches of an epoch; a step every two batches; a file after every batch.
SETTINGS = """
custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.engine', 'own_loop'], allow_failed_imports=False)
train_dataloader = dict(batch_size=2)
custom_hooks = [
    dict(type='CheckpointHook', interval=1, by_epoch=False),
    dict(type='EarlyStoppingHook', monitor='accuracy/top1', patience=3, min_delta=200),
]
train_cfg = dict(max_epochs=3)
optim_wrapper = dict(accumulative_counts=2)
param_scheduler = [
    dict(
        type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', threshold=200, threshold_rule='abs',
        patience=0, factor=0.5,
    )
]
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Two images of each of three classes, the config, and a loop of the user's own."""
    root = tmp_path_factory.mktemp('middle')
    for value, name in zip((250, 20, 120), ('bright', 'dark', 'red'), strict=True):
        folder = root / 'data' / 'folders' / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((40, 40, 3), value + number, np.uint8)).save(folder / f'{number}.png')
    (root / 'config.py').write_text(f'_base_ = {str(HERE / "toy_classifier.py")!r}\n{SETTINGS}')
    (root / 'own_loop.py').write_text(
        'from mmengine.registry import LOOPS\nfrom mmengine.runner import EpochBasedTrainLoop\n\n\n'
        '@LOOPS.register_module(force=True)\nclass OwnLoop(EpochBasedTrainLoop):\n    pass\n'
    )
    return root


@pytest.fixture
def train(root, monkeypatch):
    """Run tools/train.py in ``root`` with values of the config."""
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)

    def train(work_dir: str, *words: str | Path, config: str = 'config.py', **options: object) -> Path:
        settings = [f'{key.replace("__", ".")}={value}' for key, value in options.items()]
        settings.append(f'experiment_name=middle_{next(numbers)}')  # MMEngine keeps state under this name
        arguments = [config, '--work-dir', work_dir, *map(str, words), '--cfg-options', *settings]
        with patch('sys.argv', ['train.py', *arguments]):
            runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
        return root / work_dir

    return train


@pytest.fixture
def whole(root, train) -> Path:
    return root / 'whole' if (root / 'whole').exists() else train('whole')


@pytest.fixture
def own_config(root) -> Callable[[str], str]:
    """Write a config with another ``train_cfg``, and return its name."""

    def write(train_cfg: str) -> str:
        path = root / f'own_{next(numbers)}.py'
        text = (root / 'config.py').read_text()
        path.write_text(text.replace('train_cfg = dict(max_epochs=3)', f'train_cfg = dict(_delete_=True, {train_cfg})'))
        return path.name

    return write


@pytest.fixture
def refused(train, capsys):
    return partial(error_of, capsys, train)


def altered(whole: Path, root: Path, name: str, change) -> Path:
    """A copy of a checkpoint with a change of its content."""
    checkpoint = read_checkpoint(whole / name)
    change(checkpoint)
    path = root / f'altered_{next(numbers)}.pth'
    torch.save(checkpoint, path)
    return path


def without_position(checkpoint):
    del checkpoint['meta']['position']


@pytest.mark.parametrize(
    ('name', 'change', 'expected'),
    [
        (
            'iter_4.pth',
            without_position,
            'it has no position in the data, and its iteration 4 is not the end of an epoch of 3 batches. Resume',
        ),
        (
            'epoch_1.pth',
            lambda checkpoint: (without_position(checkpoint), checkpoint.pop('gradients')),
            'it has no gradients of the 1 batches since the last step of the optimiser (a training of several',
        ),
        (
            'iter_5.pth',
            lambda checkpoint: checkpoint.pop('gradients'),
            'its iteration 5 is no multiple of optim_wrapper.accumulative_counts=2. Resume another checkpoint, such as',
        ),
    ],
)
def test_a_checkpoint_without_what_it_takes(refused, root, whole, name, change, expected):
    path = altered(whole, root, name, change)
    message = refused('other', '--resume', path)
    assert f'error: {path} cannot be resumed exactly: ' in message
    assert expected in message
    assert f'or start a new training from its weights, without --resume, with load_from={path}' in message


def test_a_training_by_iterations_needs_the_position(refused, root, whole, own_config):
    path = altered(whole, root, 'iter_4.pth', without_position)
    message = refused('other', '--resume', path, config=own_config('by_epoch=False, max_iters=9'))
    assert 'it has no position in the data. Resume another checkpoint' in message


def test_former_checkpoints_of_the_end_of_an_epoch(train, root, whole):
    path = altered(whole, root, 'epoch_2.pth', without_position)
    assert (train('former', '--resume', path) / 'epoch_3.pth').is_file()


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (
            {'train_dataloader__batch_size': 3},
            'train_dataloader.batch_size is 3 in the config and 2 in the checkpoint, which is from the middle of an',
        ),
        (
            {'train_dataloader__dataset__indices': 5},
            'the number of training images is 5 in the config and 6 in the checkpoint, which is from the middle of an',
        ),
        (
            {'train_dataloader__sampler__type': 'RepeatAugSampler'},
            'train_dataloader.sampler.type is RepeatAugSampler in the config and DefaultSampler in the checkpoint',
        ),
        (
            {'optim_wrapper__accumulative_counts': 3},
            'optim_wrapper.accumulative_counts is 3 in the config and 2 in the checkpoint, and iteration 4 is no',
        ),
    ],
)
def test_other_data_is_refused(refused, whole, options, expected):
    message = refused('other', '--resume', whole / 'iter_4.pth', **options)
    assert 'comes from a training with different settings:\n  ' in message
    assert expected in message


def test_another_kind_of_loop_is_refused(refused, whole, own_config):
    message = refused('other', '--resume', whole / 'iter_4.pth', config=own_config('by_epoch=False, max_iters=9'))
    assert 'the training counts iterations in the config and epochs in the checkpoint' in message


def test_the_end_of_an_epoch_allows_other_batches(train, whole, capsys):
    """After iteration 6 of two epochs, where a step of two batches ends."""
    resumed = train('larger', '--resume', whole / 'epoch_2.pth', train_dataloader__batch_size=3)
    assert sorted(path.name for path in resumed.glob('iter_*.pth')) == ['iter_7.pth', 'iter_8.pth']
    printed = capsys.readouterr().out
    assert 'Differs from the uninterrupted training, as it continues with batch_size=3 instead of 2' in printed


def test_a_loop_of_the_users_own_is_refused(refused, train, whole, own_config):
    config = own_config("type='OwnLoop', max_epochs=3")
    message = refused('other', '--resume', whole / 'iter_4.pth', config=config)
    assert 'iter_4.pth was saved after 1 batches of an epoch, and OwnLoop cannot start there: set train' in message
    assert (train('own', '--resume', whole / 'epoch_1.pth', config=config) / 'epoch_3.pth').is_file()


def test_a_runner_with_the_loops_of_mmengine_refuses(root, whole, monkeypatch):
    monkeypatch.chdir(root)
    cfg = Config.fromfile(root / 'config.py')
    cfg.update(work_dir='stock', load_from=str(whole / 'iter_4.pth'), resume=True)
    cfg.experiment_name = 'stock'
    cfg.default_hooks.sampler_seed = dict(type='DefocusEpochSeedHook')
    cfg.train_dataloader.collate_fn = cfg.val_dataloader.collate_fn = dict(type='default_collate')
    with pytest.raises(SetupError, match='was saved after 1 batches of an epoch, and EpochBasedTrainLoop cannot start'):
        Runner.from_cfg(cfg).train()


def test_without_seeds_it_is_refused(refused, whole):
    message = refused('other', '--resume', whole / 'iter_4.pth', default_hooks__sampler_seed=None)
    assert 'the run has no DefocusEpochSeedHook' in message


def test_the_saved_config_names_the_loops_of_mmengine(whole):
    assert Config.fromfile(whole / 'config.py').train_cfg == dict(by_epoch=True, max_epochs=3)


@pytest.mark.parametrize('save_best', [False, True])
def test_every_validation_counts_once(train, whole, capsys, save_best):
    """It lowers the learning rate and counts towards an early stop. With a new best score, its checkpoint is later."""
    options = {'default_hooks__checkpoint__save_best': 'accuracy/top1'} if save_best else {}
    uninterrupted = train('whole_best', **options) if save_best else whole
    capsys.readouterr()
    resumed = train(f'again_{save_best}', '--resume', uninterrupted / 'epoch_1.pth', **options)
    assert ('Epoch(val) [1]' in capsys.readouterr().out.partition('Epoch(train) [2]')[0]) is not save_best
    checkpoints = [read_checkpoint(path / 'epoch_3.pth') for path in (resumed, uninterrupted)]
    rates = [checkpoint['optimizer']['param_groups'][0]['lr'] for checkpoint in checkpoints]
    assert rates[0] == rates[1] == 0.005
    waited = [checkpoint['meta']['position']['kept'] for checkpoint in checkpoints]
    kept = {'early stopping by accuracy/top1': [1, pytest.approx(100 / 3)], 'training loop': [False]}
    assert waited[0] == waited[1] == kept


def test_transforms_that_keep_images_are_refused():
    """They draw from the samples that their worker has loaded."""
    from mmdet.datasets.transforms import CachedMixUp, CachedMosaic
    from mmengine.dataset import Compose

    from mmdefocus.engine.resume_position import stateful_transforms

    class Images:
        pipeline = Compose([CachedMosaic(img_scale=(8, 8)), Compose([CachedMixUp(img_scale=(8, 8))])])

    assert [type(found).__name__ for found in stateful_transforms(Images())] == ['CachedMosaic', 'CachedMixUp']


def test_random_image_sizes_go_on():
    """MMDetection draws a size for several batches."""
    from types import SimpleNamespace

    from mmdet.models import BatchSyncRandomResize

    from mmdefocus.engine.resume_position import continue_at_position, parts_with_state

    resize = BatchSyncRandomResize((64, 128))
    loader = torch.utils.data.DataLoader([1])
    loop = SimpleNamespace(dataloader=loader)
    runner = SimpleNamespace(
        model=torch.nn.ModuleList([resize]), hooks=[], train_loop=loop, train_dataloader=loader, optim_wrapper=None
    )
    assert parts_with_state(runner) == {'0': (resize, ('_input_size',))}
    continue_at_position(runner, {'meta': {'position': {'kept': {'0': [(96, 64)]}}}})
    assert resize._input_size == (96, 64)
