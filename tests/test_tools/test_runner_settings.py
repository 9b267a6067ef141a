"""Settings that the tools complete or replace before MMEngine's runner sees them; whole runs are in test_runs.py."""

import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs import run_options, runner
from mmdefocus.apis.runs.launcher import prepare_launcher


def without_gpu(monkeypatch, **variables):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_LOCAL_RANK', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setitem(os.environ, name, value)
    groups = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: bool(groups))
    monkeypatch.setattr(torch.distributed, 'init_process_group', groups.append)
    return groups


@pytest.mark.parametrize('unused', [False, True])
def test_processes_on_cpus_talk_through_gloo(monkeypatch, unused):
    groups = without_gpu(monkeypatch, RANK='0')
    cfg = Config(dict(launcher='pytorch', find_unused_parameters=unused))
    for _ in range(2):
        prepare_launcher(cfg)
        assert groups == ['gloo']
        assert cfg.env_cfg.dist_cfg.backend == 'gloo'
        assert cfg.model_wrapper_cfg == dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=unused,
            device_ids=None,
        )


def test_the_wrapper_and_environment_of_the_config_are_kept(monkeypatch):
    without_gpu(monkeypatch, RANK='0')
    env_cfg = dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl', timeout=60))
    wrapper = dict(type='MMSeparateDistributedDataParallel', find_unused_parameters=True)
    cfg = Config(dict(launcher='pytorch', env_cfg=env_cfg, model_wrapper_cfg=wrapper))
    prepare_launcher(cfg)
    assert cfg.env_cfg == dict(cudnn_benchmark=True, dist_cfg=dict(backend='gloo', timeout=60))
    assert cfg.model_wrapper_cfg == dict(wrapper, device_ids=None)
    assert 'broadcast_buffers' not in cfg.model_wrapper_cfg


def test_one_process_needs_no_group(monkeypatch):
    groups = without_gpu(monkeypatch)
    for cfg in (Config(dict(launcher='none')), Config({})):
        prepare_launcher(cfg)
        assert 'model_wrapper_cfg' not in cfg
    assert groups == []


@pytest.mark.parametrize(('launcher', 'variable'), [('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_LOCAL_RANK')])
def test_other_launchers_need_gpus(monkeypatch, launcher, variable):
    groups = without_gpu(monkeypatch, **{variable: '0'})
    with pytest.raises(UsageError, match=f'--launcher {launcher} needs GPUs and PyTorch sees none; use --launcher py'):
        prepare_launcher(Config(dict(launcher=launcher)))
    assert groups == []


@pytest.mark.parametrize(('rank', 'fits'), [(None, True), ('1', True), ('2', False), ('3', False)])
def test_a_gpu_for_each_process(monkeypatch, rank, fits):
    without_gpu(monkeypatch, RANK='0', **({} if rank is None else {'LOCAL_RANK': rank}))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    cfg = Config(dict(launcher='pytorch'))
    if fits:
        prepare_launcher(cfg)
        assert 'model_wrapper_cfg' not in cfg
    else:
        with pytest.raises(UsageError, match=f'process {rank} on this machine has no GPU: PyTorch sees 2'):
            prepare_launcher(cfg)


@pytest.mark.parametrize(
    ('wrapper', 'scaling', 'base'),
    [
        (dict(accumulative_counts=4), dict(enable=True, base_batch_size=64), 16),
        (dict(accumulative_counts=2), dict(enable=True, base_batch_size=64), 32),
        (dict(accumulative_counts=1), dict(enable=True, base_batch_size=64), 64),
        ({}, dict(enable=True, base_batch_size=64), 64),
        (None, dict(enable=True, base_batch_size=64), 64),
        (dict(accumulative_counts=4), dict(enable=False, base_batch_size=64), 64),
    ],
)
def test_accumulated_batches_count_for_the_learning_rate(wrapper, scaling, base):
    built = SimpleNamespace(cfg=Config(dict(optim_wrapper=wrapper)), auto_scale_lr=scaling)
    runner._scale_lr_by_accumulation(built)
    assert built.auto_scale_lr == dict(scaling, base_batch_size=base)
    assert scaling['base_batch_size'] == 64


def test_accumulated_batches_without_scaling():
    built = SimpleNamespace(cfg=Config(dict(optim_wrapper=dict(accumulative_counts=4))), auto_scale_lr=None)
    runner._scale_lr_by_accumulation(built)
    assert built.auto_scale_lr is None


@pytest.mark.parametrize('gpu', [False, True])
def test_dataloaders_are_completed(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=1),
            val_dataloader={},
            test_dataloader=dict(
                num_workers=2, collate_fn=dict(type='mine'), pin_memory=not gpu, persistent_workers=False
            ),
        )
    )
    runner._complete_dataloaders(cfg)
    default = dict(type='default_collate')
    assert cfg.train_dataloader == dict(num_workers=1, collate_fn=default, pin_memory=gpu, persistent_workers=True)
    assert cfg.val_dataloader == dict(collate_fn=default, pin_memory=gpu, persistent_workers=False)
    assert cfg.test_dataloader.collate_fn.type == 'mine'
    assert (cfg.test_dataloader.pin_memory, cfg.test_dataloader.persistent_workers) == (not gpu, False)
    runner._complete_dataloaders(Config(dict(train_dataloader=None)))


def test_checkpoints_of_initialisations_are_found():
    pretrained = {'type': 'Pretrained', 'checkpoint': 'a.pth'}
    model = ConfigDict(
        backbone=dict(init_cfg=pretrained),
        neck=dict(init_cfg=[dict(type='Xavier'), dict(pretrained, checkpoint='b.pth')]),
        heads=(dict(init_cfg=dict(type='Pretrained')), dict(checkpoint='no.pth')),
    )
    assert list(run_options._pretrained(model)) == ['a.pth', 'b.pth']


@pytest.mark.parametrize(
    ('out_dir', 'expected'),
    [(None, 'runs/mine/'), ('runs/mine/', 'runs/mine/'), ('elsewhere', 'elsewhere/mine')],
)
def test_directory_of_checkpoints(out_dir, expected):
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir=out_dir))
    cfg = Config(dict(work_dir='runs/mine/', default_hooks=hooks))
    assert run_options._checkpoint_directory(cfg) == run_options.Path(expected)
    assert run_options._checkpoint_directory(Config(dict(work_dir='runs'))) == run_options.Path('runs')


def test_default_augmentations():
    steps = [dict(type='Load'), dict(type='Pack', meta_keys=('img_id',))]
    for scope, wraps in (('mmdet', 2), ('mmpretrain', 0)):
        dataset = dict(pipeline=steps)
        for _ in range(wraps):
            dataset = dict(type='RepeatDataset', dataset=dataset)
        cfg = Config(dict(default_scope=scope, model=dict(type='Net'), test_dataloader=dict(dataset=dataset)))
        run_options._use_tta(cfg)
        inner = cfg.test_dataloader.dataset
        for _ in range(wraps):
            inner = inner.dataset
        load, augment = inner.pipeline
        flips, [pack] = augment.transforms
        assert load.type == 'Load'
        assert [flip.prob for flip in flips] == [1.0, 0.0]
        assert {flip.type for flip in flips} == {'RandomFlip'}
        assert cfg.model.module == dict(type='Net')
        if scope == 'mmdet':
            assert cfg.model.type == 'DetTTAModel'
            assert cfg.model.tta_cfg == dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
            assert {'flip', 'flip_direction', 'scale_factor'} < set(pack.meta_keys)
        else:
            assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
            assert pack.meta_keys == ('img_id',)
