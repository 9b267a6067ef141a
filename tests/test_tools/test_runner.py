import importlib
import re
from pathlib import Path

import pytest
import torch

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import check_mmcv_ops, load_config
from mmdefocus.apis.runs.run_options import apply_test_options, apply_train_options
from mmdefocus.apis.runs.runner import build_runner, dump_predictions
from mmdefocus.cli import report
from mmdefocus.engine import DefocusCheckpointCheckHook

HERE = Path(__file__).parent
GOLDEN = HERE.parent / 'golden'
DETECTOR, CLASSIFIER = HERE / 'toy_detector.py', HERE / 'toy_classifier.py'


@pytest.fixture
def checkpoint(tmp_path) -> str:
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta=dict(epoch=1, iter=2), state_dict={}, message_hub={}, optimizer={}), path)
    return str(path)


def test_work_dir_of_the_config_is_kept():
    assert load_config(DETECTOR, {'work_dir': 'mine'}).work_dir == 'mine'
    assert load_config(DETECTOR, {'work_dir': 'mine'}, 'other').work_dir == 'other'


def test_missing_config(tmp_path):
    with pytest.raises(UsageError, match=r"none\.py' does not exist: there is no directory .*nowhere here \("):
        load_config(tmp_path / 'nowhere' / 'none.py')
    with pytest.raises(UsageError, match=r'does not exist; did you mean .*toy_classifier\.py'):
        load_config(HERE / 'toy_clasifier.py')


def test_mmcv_without_operators(monkeypatch):
    real = importlib.import_module

    def without(name, *rest):
        if name == 'mmcv._ext':
            raise ImportError("No module named 'mmcv._ext'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, 'import_module', without)
    with pytest.raises(UsageError, match=r"no usable compiled operators \(No module named 'mmcv\._ext'\).*make setup"):
        check_mmcv_ops()
    with pytest.raises(UsageError, match='no usable compiled operators'):
        load_config(DETECTOR)


def test_amp():
    cfg = load_config(DETECTOR)
    cfg.optim_wrapper.dtype = 'bfloat16'
    apply_train_options(cfg, amp=True)
    assert cfg.optim_wrapper.type == 'DefocusAmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.dtype == 'bfloat16'


def test_auto_scale_lr():
    cfg = load_config(DETECTOR)
    apply_train_options(cfg)
    assert not cfg.auto_scale_lr.enable
    apply_train_options(cfg, auto_scale_lr=True)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(UsageError, match=r'write auto_scale_lr = dict\(base_batch_size=\.\.\.\) into the config'):
        apply_train_options(load_config(CLASSIFIER), auto_scale_lr=True)


def test_resume(checkpoint, tmp_path):
    cfg = load_config(DETECTOR, work_dir=str(tmp_path))
    apply_train_options(cfg)
    assert not cfg.get('resume')
    apply_train_options(cfg, resume=checkpoint)
    assert (cfg.resume, cfg.load_from) == (True, checkpoint)
    with pytest.raises(UsageError, match=r"epoch_7\.pth' does not exist; did you mean .*epoch_1\.pth\?"):
        apply_train_options(cfg, resume=checkpoint.replace('1.pth', '7.pth'))
    with pytest.raises(UsageError, match='does not exist: there is no directory'):
        apply_train_options(cfg, resume='nowhere/epoch_1.pth')


def test_resuming_what_has_not_begun_keeps_the_pretrained_weights(checkpoint, tmp_path):
    cfg = load_config(DETECTOR, {'load_from': checkpoint}, work_dir=str(tmp_path / 'new'))
    apply_train_options(cfg, resume='auto')
    assert (cfg.resume, cfg.load_from) == (False, checkpoint)
    cfg.work_dir = str(tmp_path)
    cfg.load_from = 'https://example.org/a.pth'
    apply_train_options(cfg, resume='auto')
    assert (cfg.resume, cfg.load_from) == (True, checkpoint)


def test_checkpoints_on_another_file_system_are_named(tmp_path):
    cfg = load_config(DETECTOR, {'default_hooks.checkpoint.out_dir': 's3://bucket'}, work_dir=str(tmp_path))
    with pytest.raises(UsageError, match=r"--resume finds no checkpoints in 's3://bucket'; name one"):
        apply_train_options(cfg, resume='auto')


@pytest.mark.parametrize('strict', [True, False])
def test_every_runner_compares_the_checkpoint(tmp_path, strict):
    options = {'custom_hooks': [], 'train_dataloader': None, 'train_cfg': None, 'optim_wrapper': None}
    options |= {'param_scheduler': None, 'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}
    cfg = load_config(CLASSIFIER, work_dir=str(tmp_path))
    cfg.merge_from_dict(options)
    if not strict:
        cfg.custom_hooks = [dict(type='DefocusCheckpointCheckHook', strict=False)]
    hooks = [hook for hook in build_runner(cfg).hooks if isinstance(hook, DefocusCheckpointCheckHook)]
    assert [hook.strict for hook in hooks] == [strict]


@pytest.mark.parametrize(
    ('option', 'value'),
    [('load_from', '{}'), ('model.backbone.init_cfg', dict(type='Pretrained', checkpoint='{}', prefix='backbone.'))],
)
def test_pretrained_weights_that_do_not_exist(checkpoint, option, value):
    def options(path):
        return {option: value.format(path) if isinstance(value, str) else dict(value, checkpoint=path)}

    apply_train_options(load_config(DETECTOR, options(checkpoint)))
    apply_train_options(load_config(DETECTOR, options('https://example.org/a.pth')))
    with pytest.raises(UsageError, match=r"checkpoint '.*/epoch_2\.pth' does not exist; did you mean .*epoch_1\.pth"):
        apply_train_options(load_config(DETECTOR, options(checkpoint.replace('1.pth', '2.pth'))))


def test_checkpoints_are_looked_at_first(tmp_path):
    cfg = load_config(DETECTOR)
    page = tmp_path / 'page.pth'
    page.write_text('<html>')
    with pytest.raises(UsageError, match=r'expected a file written by torch\.save, but .*page\.pth begins with'):
        apply_test_options(cfg, str(page))
    with pytest.raises(UsageError, match='is a directory; name the checkpoint file in it'):
        apply_train_options(cfg, resume=str(tmp_path))
    with pytest.raises(UsageError, match=r'official_cls\.pth\' is an official file and cannot be resumed'):
        apply_train_options(cfg, resume=str(GOLDEN / 'cls_rope_official_cls.pth'))
    apply_test_options(cfg, str(GOLDEN / 'cls_rope_official_cls.pth'))


def test_urls_are_left_to_mmengine():
    cfg = load_config(DETECTOR)
    apply_test_options(cfg, 'https://example.org/a.pth')
    assert cfg.load_from == 'https://example.org/a.pth'


def test_a_test_leaves_the_directory_of_the_training_alone(checkpoint):
    cfg = load_config(DETECTOR, work_dir='work')
    apply_test_options(cfg, checkpoint)
    assert cfg.work_dir == 'work/test'


def test_pictures_of_both_tasks(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('DISPLAY', ':0')
    cfg = load_config(DETECTOR)
    apply_test_options(cfg, checkpoint, show_dir='pictures')
    hook = cfg.default_hooks.visualization
    assert (hook.draw, hook.show, hook.test_out_dir) == (True, False, str(tmp_path / 'pictures'))
    cfg = load_config(CLASSIFIER)
    apply_test_options(cfg, checkpoint, show=True, wait_time=0.5)
    hook = cfg.default_hooks.visualization
    assert (hook.enable, hook.show, hook.out_dir, hook.wait_time, hook.interval) == (True, True, None, 0.5, 1)
    del cfg.default_hooks['visualization']
    with pytest.raises(UsageError, match='need a visualization hook; write default_hooks = dict'):
        apply_test_options(cfg, checkpoint, show_dir='pictures')


def test_augmentation_of_the_config_is_preferred(checkpoint):
    cfg = load_config(DETECTOR)
    model = cfg.model
    cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=7))
    cfg.tta_pipeline = [dict(type='LoadImageFromFile')]
    apply_test_options(cfg, checkpoint, tta=True)
    assert cfg.model.tta_cfg.max_per_img == 7
    assert cfg.model.module == model
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='LoadImageFromFile')]


def test_default_augmentation_keeps_what_the_metric_needs(checkpoint):
    cfg = load_config(DETECTOR)
    apply_test_options(cfg, checkpoint, tta=True)
    augmentation = cfg.test_dataloader.dataset.pipeline[-1]
    assert augmentation.type == 'TestTimeAug'
    assert {'img_id', 'flip', 'flip_direction', 'scale_factor'} <= set(augmentation.transforms[-1][0].meta_keys)


def test_augmented_classification(checkpoint):
    cfg = load_config(CLASSIFIER)
    apply_test_options(cfg, checkpoint, tta=True)
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == [
        'LoadImageFromFile',
        'Resize',
        'TestTimeAug',
    ]
    with pytest.raises(UsageError, match='give --tta and --show-dir in two runs'):
        apply_test_options(load_config(CLASSIFIER), checkpoint, show_dir='pictures', tta=True)


def test_configs_that_lack_a_task(checkpoint):
    cfg = load_config(DETECTOR)
    cfg.pop('train_cfg')
    cfg.pop('test_evaluator')
    with pytest.raises(UsageError, match='no train_dataloader and train_cfg, so there is nothing to train'):
        apply_train_options(cfg)
    with pytest.raises(UsageError, match='no test_dataloader and test_evaluator, so there is nothing to test'):
        apply_test_options(cfg, checkpoint)


@pytest.mark.parametrize(
    ('launcher', 'message'),
    [
        ('pytorch', 'expects to be started by tools/dist_train.sh or torchrun, but RANK is not set'),
        ('slurm', 'expects to be started by tools/slurm_train.sh or srun, but SLURM_PROCID is not set'),
        ('mpi', 'expects to be started by mpirun, but OMPI_COMM_WORLD_LOCAL_RANK is not set'),
    ],
)
def test_launchers_that_did_not_launch(launcher, message, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=message):
        build_runner(load_config(DETECTOR, launcher=launcher))


def test_launchers_and_gpus(monkeypatch):
    monkeypatch.setenv('SLURM_PROCID', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UsageError, match=r'--launcher slurm needs GPUs .* use --launcher pytorch \(gloo\) instead'):
        build_runner(load_config(DETECTOR, launcher='slurm'))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('RANK', '2')
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(UsageError, match='process 2 on this machine has no GPU: PyTorch sees 2'):
        build_runner(load_config(DETECTOR, launcher='pytorch'))


def test_predictions_go_to_pickle_files_only():
    with pytest.raises(UsageError, match=r"ends in \.pkl or \.pickle, got 'a\.json'"):
        dump_predictions(None, 'a.json')


def test_report_of_boxes():
    metrics = {
        'coco/bbox_mAP': 0.7512,
        'coco/bbox_mAP_50': 0.9,
        'coco/bbox_mAP_75': 0.8,
        'coco/bbox_mAP_s': 0.6,
        'coco/bbox_mAP_m': 0.8,
        'coco/bbox_mAP_l': -1.0,
        'coco/0_precision': 0.5,
        'coco/a_precision_precision': float('nan'),
        'coco/segm_mAP': 0.25,
    }
    text = report.format_metrics(metrics)
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if '|' in line]
    assert lines == [
        ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'],
        ['0.751', '0.900', '0.800', '0.600', '0.800', '-'],
        ['AP'],
        ['0.250'],
        ['class', 'AP'],
        ['0', '0.500'],
        ['a_precision', '-'],
    ]


def test_report_as_it_is_printed():
    metrics = {'coco/bbox_mAP': 0.0, 'coco/cat_precision': 0.5, 'coco/AR@100': 0.25}
    assert (
        report.format_metrics(metrics)
        == """COCO box AP
+-------+
|    AP |
+-------+
| 0.000 |
+-------+
COCO box AP per class
+-------+-------+
| class |    AP |
+-------+-------+
| cat   | 0.500 |
+-------+-------+
Other metrics
+-------------+-------+
| metric      | value |
+-------------+-------+
| coco/AR@100 |  0.25 |
+-------------+-------+
"""
    )
    assert report.format_metrics({'accuracy/top1': 50.0}).startswith('Metrics\n+')


def test_classes_are_those_of_the_last_metric():
    boxes, masks, cat = {'coco/bbox_mAP': 0.5}, {'coco/segm_mAP': 0.25}, {'coco/cat_precision': 0.4}
    titles = re.compile(r'^COCO .*', re.MULTILINE)
    expected = ['COCO box AP', 'COCO mask AP', 'COCO mask AP per class']
    assert titles.findall(report.format_metrics(boxes | cat | masks)) == expected
    assert titles.findall(report.format_metrics(masks | boxes | cat)) == [*expected[:2], 'COCO box AP per class']


def test_report_of_accuracy():
    text = report.format_metrics({'accuracy/top1': 97.314, 'accuracy/top5': 100.0})
    assert '| accuracy/top1 |  97.31 |' in text
    assert '| accuracy/top5 | 100.00 |' in text
    assert text.isascii()


@pytest.mark.parametrize('config', [DETECTOR, CLASSIFIER])
def test_every_runner_logs_into_its_own_folder(config, tmp_path):
    folders = [tmp_path / 'first', tmp_path / 'second']
    for folder in folders:
        cfg = load_config(config, {'visualizer.name': f'of {config.stem}'}, str(folder))
        runner = build_runner(cfg)
        runner.visualizer.add_scalar('loss', 1.0)
        (written,) = folder.glob('*/vis_data/scalars.json')
        assert '"loss": 1.0' in written.read_text()
