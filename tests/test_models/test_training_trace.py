"""Eight optimiser steps of the published recipe, through a runner built from the config of the base model."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus

CONFIG = Path(__file__).parents[2] / 'configs' / 'classification' / 'defocus_mamba_base.py'
EXPECTED = Path(__file__).parents[1] / 'golden' / 'trace_expected.pt'
TOLERANCE = 1e-4  # AdamW normalises gradients, which amplifies the errors of small ones


@DATASETS.register_module(force=True)
class TraceImages(Dataset):
    """The batches of the golden trace, image by image, with the targets after the augmentation of the recipe."""

    def __init__(self, path):
        expected = torch.load(path, weights_only=True)
        self.images, self.targets = expected['images'].flatten(0, 1), expected['soft_targets'].flatten(0, 1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        # The golden targets are already smoothed; the loss smooths them again, so the smoothing is removed here.
        score = (self.targets[index] - 0.1 / self.targets.shape[1]) / 0.9
        return {'inputs': self.images[index], 'data_samples': DataSample().set_gt_score(score)}


class Recorder(Hook):
    def __init__(self):
        self.rates, self.losses, self.norms = [], [], []

    def before_train_iter(self, runner, *args, **kwargs):
        (rate,) = {group['lr'] for group in runner.optim_wrapper.optimizer.param_groups}
        self.rates.append(rate)

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append(outputs['loss'].item())
        self.norms.append(runner.message_hub.get_scalar('train/grad_norm').current())


@pytest.fixture(scope='module')
def golden_trace():
    return [torch.load(path, weights_only=True) for path in (EXPECTED, EXPECTED.with_name('trace_official_state.pt'))]


@pytest.fixture(scope='module')
def trained(golden_trace, tmp_path_factory):
    """Runner after the steps, and the recorder. Sizes and lengths come from the trace, the rest from the config."""
    expected, state_dict = golden_trace
    arch = expected['arch']
    batches, images = expected['images'].shape[:2]
    rate = 1e-3
    work_dir = tmp_path_factory.mktemp('trace')
    torch.save({'state_dict': official_to_mmdefocus(state_dict)}, work_dir / 'start.pth')
    cfg = load_config(CONFIG, work_dir=str(work_dir))
    cfg.load_from = str(work_dir / 'start.pth')
    cfg.model.backbone.arch = {
        'embed_dims': arch['embed_dims'],
        'num_layers': arch['depth'],
        'inner_dims': arch['inner_dims'],
        'state_dims': arch['state'],
        'conv_kernel': arch['conv'],
        'dt_rank': arch['dt_rank'],
        'group_size': arch['group'],
    }
    cfg.model.backbone.img_size = arch['img']
    cfg.model.head.update(num_classes=arch['num_classes'], in_channels=arch['embed_dims'])
    cfg.model.train_cfg = None  # already mixed
    cfg.data_preprocessor = {}  # already normalised
    cfg.train_dataloader = {
        'batch_size': images,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': {'type': 'TraceImages', 'path': str(EXPECTED)},
    }
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.optim_wrapper.optimizer.lr = rate * cfg.auto_scale_lr.base_batch_size / images
    cfg.train_cfg.max_epochs = len(expected['lr_per_step']) // batches
    cfg.param_scheduler.update(warmup=1, start_factor=1e-5 / rate, end_factor=1e-4 / rate)
    cfg.default_hooks.drop_path.update(min_rate=0.0, max_rate=0.0)
    runner = build_runner(cfg)
    recorder = Recorder()
    runner.register_hook(recorder, priority='LOWEST')
    runner.train()
    return runner, recorder


def test_learning_rates(golden_trace, trained):
    assert trained[1].rates == pytest.approx(golden_trace[0]['lr_per_step'], rel=TOLERANCE)


def test_losses(golden_trace, trained):
    assert trained[1].losses == pytest.approx(golden_trace[0]['loss_per_step'], rel=TOLERANCE)


def test_gradient_norms(golden_trace, trained):
    expected, _ = golden_trace
    assert trained[1].norms == pytest.approx(expected['grad_norm_per_step'], rel=TOLERANCE)
    # Some steps reach the limit, so that the comparison includes clipping.
    assert min(expected['grad_norm_per_step']) < expected['clip_max_norm'] < max(expected['grad_norm_per_step'])


def test_final_weights(golden_trace, trained):
    weights = mmdefocus_to_official(trained[0].model.state_dict())
    expected = golden_trace[0]['final_state']
    assert set(weights) == set(expected)
    for name, weight in weights.items():
        error = (weight - expected[name]).norm() / expected[name].norm()
        assert error <= TOLERANCE, f'{name}: relative error {error:.2e}'


def test_optimiser_and_weight_decay(golden_trace, trained):
    expected, _ = golden_trace
    model, wrapper = trained[0].model, trained[0].optim_wrapper
    assert type(wrapper.optimizer) is torch.optim.AdamW
    for name in ('betas', 'eps'):
        assert wrapper.optimizer.defaults[name] == expected['adamw'][name]
    assert len(wrapper.optimizer.param_groups) == 2  # with and without weight decay
    assert wrapper.clip_grad_kwargs == {'max_norm': expected['clip_max_norm']}
    names = mmdefocus_to_official({name: name for name, _ in model.named_parameters()})
    official = {ours: name for name, ours in names.items()}
    name_of = {id(parameter): official[name] for name, parameter in model.named_parameters()}
    decays = {
        name_of[id(p)]: group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']
    }
    assert decays == {name: group['weight_decay'] for group in expected['param_groups'] for name in group['names']}
