"""Packages that the configs need: detectors do without MMPreTrain and scikit-learn, classifiers without MMDetection."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIGS = Path(__file__).parents[2] / 'configs'
# Importing a module that is None in sys.modules raises ModuleNotFoundError, as if it were not installed.
WITHOUT = 'import sys; sys.modules.update(dict.fromkeys({missing}))\n'
LOAD = """
from mmdefocus.apis.runs.config_file import load_config
cfg = load_config({config!r}, dict(data_root={data_root!r}), work_dir='work')
"""
BUILD = """
from mmdefocus.apis.runs.runner import build_runner
cfg.model.backbone.update(arch='nano', init_cfg=None)
cfg.load_from = None
{settings}
runner = build_runner(cfg)
runner.model.init_weights()
loader = runner.train_dataloader
runner.model.parse_losses(runner.model(**runner.model.data_preprocessor(next(iter(loader)), True), mode='loss'))
runner.build_evaluator(cfg.val_evaluator)
print('built', type(runner.model).__name__, len(loader.dataset))
"""


def run(folder: Path, program: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, '-c', program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def images(tmp_path) -> Path:
    """One image of each of two classes, for training and validation."""
    for number, name in enumerate(['train/a', 'train/b', 'val/a', 'val/b']):
        (tmp_path / 'images' / name).mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 60 * number, np.uint8)).save(tmp_path / 'images' / name / '0.png')
    return tmp_path / 'images'


def test_detectors_need_neither_mmpretrain_nor_scikit_learn(photos_coco, tmp_path):
    settings = 'cfg.model.num_queries = 10\ncfg.model.neck.in_channels = 96\n'
    settings += 'cfg.model.encoder.num_layers = cfg.model.decoder.num_layers = 1\n'
    settings += 'cfg.train_dataloader.dataset.pipeline[2].scale = (64, 64)\n'
    config = str(CONFIGS / 'dino' / 'defocus_mamba_base_36ep_photos.py')
    program = WITHOUT.format(missing=('mmpretrain', 'sklearn', 'timm'))
    program += LOAD.format(config=config, data_root=str(photos_coco)) + BUILD.format(settings=settings)
    assert 'built DINO 2' in run(tmp_path, program)


def test_classifiers_do_not_need_mmdet(images, tmp_path):
    settings = 'cfg.model.head.in_channels = 96\ncfg.train_dataloader.num_workers = 0\n'
    config = str(CONFIGS / 'classification' / 'defocus_mamba_base_finetune.py')
    program = WITHOUT.format(missing=('mmdet', 'sklearn', 'timm'))
    program += LOAD.format(config=config, data_root=str(images)) + BUILD.format(settings=settings)
    assert 'built ImageClassifier 2' in run(tmp_path, program)


@pytest.mark.parametrize(
    ('missing', 'config', 'start'),
    [
        ('sklearn', 'classification/defocus_mamba_nano_digits.py', "No module named '"),
        ('mmdet', 'dino/defocus_mamba_nano_digits.py', ''),
    ],
)
def test_a_missing_package_is_named(missing, config, start, tmp_path):
    program = WITHOUT.format(missing=(missing,)) + LOAD.format(config=str(CONFIGS / config), data_root='data')
    assert f'ModuleNotFoundError: {start}{missing}' in run(tmp_path, program, code=1).splitlines()[-1]


@pytest.mark.parametrize(
    ('missing', 'registered'),
    [
        (('mmpretrain', 'sklearn'), ['DefocusCocoDataset', 'DefocusCocoMetric', 'DefocusGroundTruthCheckHook']),
        (('mmdet', 'sklearn'), ['DefocusImageFolder', 'DefocusLoadImage']),
        (('mmdet', 'mmpretrain'), ['DefocusLoadImage', 'DefocusEpochSeedHook']),
    ],
)
def test_packages_register_what_can_be_used(missing, registered, tmp_path):
    program = WITHOUT.format(missing=missing) + (
        'import mmdefocus.models, mmdefocus.datasets, mmdefocus.engine\n'
        'from mmengine.registry import DATASETS, HOOKS, METRICS, TRANSFORMS\n'
        'print(*(name for registry in (DATASETS, HOOKS, METRICS, TRANSFORMS) for name in registry.module_dict))'
    )
    names = set(run(tmp_path, program).split())
    assert set(registered) <= names
    assert 'DefocusDigits' not in names
