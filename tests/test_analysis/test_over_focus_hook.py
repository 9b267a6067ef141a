"""Scores and pictures of over-focus during a training."""

import json
import logging
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmdefocus.analysis.attention_maps import attention_maps
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.scores import scores
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.engine import over_focus_log
from mmdefocus.engine.errors import SetupError
from mmdefocus.engine.over_focus_hook import DefocusOverFocusHook

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / 'configs' / 'classification' / 'defocus_vit_nano_digits.py'
BOXES = ROOT / 'configs' / 'dino' / 'defocus_vit_nano_digits.py'
BOTH = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that trains the nano classifier for two epochs of one iteration, and gives the runner."""
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))  # the log of the config
    numbers = iter(range(9))

    def train(hook=None, epochs=2, config=DIGITS, **options):
        cfg = Config.fromfile(config)
        number = next(numbers)
        cfg.merge_from_dict(
            {
                'work_dir': str(tmp_path / f'run_{number}'),
                'experiment_name': f'{tmp_path.name}_{number}',
                'train_cfg.max_epochs': epochs,
                'train_cfg.val_interval': 1,
                'train_dataloader.dataset.indices': 8,
                'train_dataloader.batch_size': 4,
                'val_dataloader.dataset.indices': 4,
                'model.backbone.drop_path_rate': 0.2,
                'default_hooks.over_focus': None if hook is None else dict(type='DefocusOverFocusHook', **hook),
                'visualizer.name': f'{tmp_path.name}_{number}',  # an earlier test may have made one of the same name
                'visualizer.vis_backends': BOTH,
                **{key: value for key, value in options.items() if '.' in key},
            }
        )
        for key in options.keys() - {key for key in options if '.' in key}:
            cfg[key] = options[key]
        cfg.launcher = 'none'
        runner = build_runner(cfg)
        runner.train()
        return runner

    return train


def logged(runner):
    """Return the scalars of TensorBoard as {(name, step): value}, and its event files' content."""
    events = EventAccumulator(str(Path(runner.log_dir) / 'vis_data'), size_guidance=dict(images=0, scalars=0)).Reload()
    tags = [tag for tag in events.Tags()['scalars'] if tag.startswith('over_focus/')]
    return {(tag, event.step): event.value for tag in tags for event in events.Scalars(tag)}, events


def test_scores_and_pictures_reach_both_backends(train):
    runner = train(dict(interval=2, layers=[0, -1], num_images=1, scores=['entropy', 'gini']), epochs=3)
    scalars, events = logged(runner)
    names = {f'over_focus/{name}/layer_{layer}' for name in ('entropy', 'gini') for layer in (0, 3)}
    assert set(scalars) == {(name, step) for name in names for step in (0, 2)}
    assert [event.step for event in events.Images('over_focus')] == [0, 2]
    folder = Path(runner.log_dir) / 'vis_data'
    lines = [json.loads(line) for line in (folder / 'scalars.json').read_text().splitlines()]
    local = {(name, line['step']): line[name] for line in lines for name in line if name in names}
    assert local == pytest.approx(scalars)
    with Image.open(folder / 'vis_image' / 'over_focus_2.png') as picture:
        assert picture.size == (3 * 228, 228)  # the image and two layers


def test_the_scores_are_those_of_the_current_weights(train):
    runner = train(dict(num_images=3), epochs=1)
    scalars, _ = logged(runner)
    batch = [runner.val_loop.dataloader.dataset[index] for index in range(3)]
    runner.model.eval()
    data = dict(
        inputs=[sample['inputs'] for sample in batch], data_samples=[sample['data_samples'] for sample in batch]
    )
    inputs = runner.model.data_preprocessor(data, False)['inputs']
    expected = scores(runner.model, inputs)
    for name in ('entropy', 'gradient_evenness', 'output_rank'):
        for layer in range(4):
            logged_value = scalars[f'over_focus/{name}/layer_{layer}', 1]
            assert logged_value == pytest.approx(expected.mean_std(name, layer)[0], rel=1e-5)
    assert scalars['over_focus/entropy/layer_2', 0] != scalars['over_focus/entropy/layer_2', 1]


def test_the_picture_shows_where_the_class_token_looks(train, tmp_path):
    Image.new('RGB', (32, 32)).save(tmp_path / 'black.png')
    runner = train(dict(images=[str(tmp_path / 'black.png')], layers=[1]), epochs=1)
    with Image.open(Path(runner.log_dir) / 'vis_data' / 'vis_image' / 'over_focus_1.png') as file:
        picture = np.asarray(file)[:224, 228:452].astype(int)
    runner.model.eval()
    inputs = torch.full((1, 3, 32, 32), -79 / 89)  # black after the normalisation
    row = attention_maps(runner.model, inputs, [1], queries=[64])[1][0, :, 0].abs().mean(0)
    layout = TokenNetwork(runner.model).layout(torch.zeros(1, 65, 1), (32, 32))
    grid = layout.to_grid(row / row[:64].max())  # (8, 8)
    # 65 % of viridis on black, in tiles of 28 x 28 pixels.
    expected = 0.65 * 255 * colormaps['viridis'](grid.numpy())[..., :3]
    assert abs(picture.reshape(8, 28, 8, 28, 3) - expected[:, None, :, None]).max() < 3


@pytest.mark.parametrize('settings', [{}, {'optim_wrapper.accumulative_counts': 2}])
def test_the_training_is_the_same_with_the_hook(train, settings):
    without = train(None, **settings)
    watched = train(dict(interval=1, by_epoch=False, layers=[1]), **settings)
    assert max(step for _, step in logged(watched)[0]) == 4
    weights = watched.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in without.model.state_dict().items())
    assert watched.message_hub.get_scalar('train/loss').data[0].tolist() == (
        without.message_hub.get_scalar('train/loss').data[0].tolist()
    )


def test_modes_random_numbers_and_gradients_stay(train, monkeypatch):
    runner = train(dict(num_images=1), epochs=1)
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, DefocusOverFocusHook)]
    runner.model.train()
    runner.model.backbone.layers[1].eval()  # as a frozen stage
    modes = [module.training for module in runner.model.modules()]
    gradients = [None if x.grad is None else x.grad.clone() for x in runner.model.parameters()]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    draw = over_focus_log.draw

    def draw_random_numbers(*args):
        torch.rand(1)
        np.random.rand()  # noqa: NPY002
        return draw(*args)

    monkeypatch.setattr(over_focus_log, 'draw', draw_random_numbers)
    hook.before_train(runner)
    hook.after_train_epoch(runner)
    assert modes == [module.training for module in runner.model.modules()]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()  # noqa: NPY002
    for parameter, gradient in zip(runner.model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in runner.model.modules())


def test_own_images(train, tmp_path):
    Image.fromarray(np.full((50, 40, 3), (200, 0, 0), np.uint8)).save(tmp_path / 'red.png')
    runner = train(dict(images=[str(tmp_path / 'red.png')], layers=[0]), epochs=1)
    with Image.open(Path(runner.log_dir) / 'vis_data' / 'vis_image' / 'over_focus_1.png') as picture:
        assert picture.getpixel((100, 100)) == (200, 0, 0)


def test_a_detector_is_watched_on_its_validation_images(train, digits_coco):
    data = {}
    for split in ('train', 'val'):
        data[f'{split}_dataloader.dataset.data_root'] = f'{digits_coco}/'
        data[f'{split}_dataloader.num_workers'] = 0
        data[f'{split}_dataloader.persistent_workers'] = False
    data['val_evaluator.ann_file'] = str(digits_coco / Config.fromfile(BOXES).val_dataloader.dataset.ann_file)
    runner = train(dict(num_images=2, layers=[0]), epochs=1, config=BOXES, **data)
    scalars, events = logged(runner)
    assert ('over_focus/entropy/layer_0', 1) in scalars
    assert ('over_focus/gradient_evenness/layer_0', 1) not in scalars  # no class logits
    assert len(events.Images('over_focus')) == 2


def test_a_later_failure_is_a_warning(train, monkeypatch):
    calls = []
    messages = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError('out of memory')
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr('mmdefocus.engine.over_focus_log.draw', fail)
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text, *_: messages.append(text))
    runner = train(dict(num_images=1))
    assert runner.epoch == 2
    assert 'DefocusOverFocusHook: no scores at 1 (RuntimeError: out of memory)' in messages
    assert {step for _, step in logged(runner)[0]} >= {0, 2}


@pytest.mark.parametrize(
    ('hook', 'options', 'message'),
    [
        (dict(layers=[4]), {}, r'DefocusOverFocusHook: DefocusViT has the layers 0 to 3 \(or -4 to -1\), got 4'),
        (dict(scores=['entrophy']), {}, r'expected scores among entropy, .*; got entrophy'),
        (dict(images=['none.png']), {}, r'DefocusOverFocusHook: .*none\.png'),
        (dict(num_images=5), {}, r'num_images=5, but the validation set has 4 images'),
        ({}, {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}, r'validation set, which the config'),
        ({}, {'train_cfg': dict(by_epoch=False, max_iters=2)}, r'counts iterations: set by'),
    ],
)
def test_mistakes_end_the_run_at_its_start(train, monkeypatch, hook, options, message):
    monkeypatch.setattr(DefocusOverFocusHook, 'after_train_epoch', lambda *_: pytest.fail('the training has begun'))
    with pytest.raises(SetupError, match=message):
        train(hook, **options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), r'interval must be a whole number of at least 1, got 0'),
        (dict(num_images=2.5), r'num_images must be a whole number of at least 1, got 2\.5'),
        (dict(layers=3), r'layers must be None or a list with at least one entry, got 3'),
        (dict(images='a.png'), r"images must be None or a list .* got 'a\.png'"),
        (dict(scores=[]), r'scores must be None or a list with at least one entry, got \[\]'),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='DefocusOverFocusHook', **options))


def test_other_processes_do_nothing(train, monkeypatch):
    monkeypatch.setattr('mmdefocus.engine.over_focus_hook.is_main_process', lambda: False)
    runner = train(dict(layers=[99]))
    assert logged(runner)[0] == {}


def test_sharded_models_are_refused(monkeypatch):
    class Sharded(torch.nn.Module):
        pass

    monkeypatch.setattr('mmdefocus.engine.over_focus_hook.is_model_wrapper', lambda model: True)
    runner = Runner.__new__(Runner)
    runner.model, runner._train_loop = Sharded(), None
    with pytest.raises(SetupError, match=r'needs all weights in one process, but the model is a Sharded'):
        DefocusOverFocusHook().before_run(runner)


def test_the_hook_is_switched_on_by_options_of_the_command_line(tmp_path, monkeypatch, capsys):
    options = [
        'default_hooks.over_focus.type=DefocusOverFocusHook',
        'default_hooks.over_focus.layers=[0,-1]',
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.indices=4',
        'val_dataloader.dataset.indices=4',
        f'experiment_name={tmp_path.name}',
    ]
    words = ['train.py', str(DIGITS), '--work-dir', str(tmp_path), '--cfg-options', *options]
    monkeypatch.setattr(sys, 'argv', words)
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')
    assert 'Over-focus at 1, mean of 2 layers: entropy ' in capsys.readouterr().out
    assert [path.name for path in sorted(tmp_path.glob('*/vis_data/vis_image/over*'))] == [
        'over_focus_0.png',
        'over_focus_1.png',
    ]
