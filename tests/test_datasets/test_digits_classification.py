from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from PIL import Image
from sklearn.datasets import load_digits

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_test_options
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.datasets.digits_classification import DefocusDigits

NANO = Path(__file__).parents[2] / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'


def split_of(split: str, **options) -> DefocusDigits:
    return DATASETS.build(dict(type='DefocusDigits', split=split, **options))


def labels_and_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    data = split_of(split)
    return data.get_gt_labels(), np.stack([item['img'] for item in data])


def test_splits_are_the_collection_in_its_order():
    collection = load_digits()
    train, test = labels_and_images('train'), labels_and_images('test')
    assert (len(train[0]), len(test[0])) == (1397, 400)
    assert np.array_equal(np.concatenate((train[0], test[0])), collection.target)
    images = np.concatenate((train[1], test[1]))
    assert (images.shape, images.dtype) == ((1797, 32, 32, 3), np.uint8)
    # Enlarging spreads the ink and keeps its amount, apart from rounding and clipping; grey stays grey.
    assert np.abs(images.mean((1, 2, 3)) - collection.images.mean((1, 2)) * 255 / 16).max() < 4
    assert (images == images[..., :1]).all()
    # Seen from as far as the originals, every digit looks most like its own original.
    small = images[:300, ..., 0].reshape(300, 8, 4, 8, 4).mean((2, 4)).reshape(300, -1)
    distances = np.linalg.norm(small[:, None] - collection.data[None, :300] * 255 / 16, axis=-1)
    assert np.array_equal(distances.argmin(1), np.arange(300))


def test_test_digits_do_not_occur_in_training():
    train, test = labels_and_images('train')[1], labels_and_images('test')[1]
    seen = {image.tobytes() for image in train}
    assert len(seen) == 1397
    assert not any(image.tobytes() in seen for image in test)


def test_last_three_forms_are_wholly_held_out():
    """All forms ask for the same digits, of which a few are missing; the test set begins in the fourth from the end."""
    labels = np.concatenate([split_of(split).get_gt_labels() for split in ('train', 'test')]).tolist()
    borders = [1287, 1415, 1545, 1667, 1797]
    forms = [labels[begin:end] for begin, end in pairwise(borders)]
    assert [SequenceMatcher(None, labels[:130], form, autojunk=False).ratio() > 0.96 for form in forms] == [True] * 4
    assert borders[0] < len(split_of('train')) == borders[1] - 18


def test_classes_are_balanced():
    for split, least, most in (('train', 135, 146), ('test', 39, 43)):
        counts = np.bincount(split_of(split).get_gt_labels(), minlength=10)
        assert len(counts) == 10
        assert least <= counts.min() <= counts.max() <= most
    assert split_of('test').metainfo['classes'] == tuple('0123456789')


def test_options():
    assert split_of('train', size=8)[0]['img'][..., 0].max() == 239  # 15 of 16 grey levels
    assert len(split_of('train', indices=20)) == 20
    assert 'Split: \ttest' in repr(split_of('test'))
    with pytest.raises(ValueError, match=r"split must be one of \['train', 'test'\], got 'val'"):
        DefocusDigits('val')
    with pytest.raises(ValueError, match='size must be at least 8, the side of the original digits, got 4'):
        DefocusDigits('test', size=4)
    with pytest.raises(TypeError, match='colour'):
        DefocusDigits('test', colour=True)


class Losses(Hook):
    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.values.append(outputs['loss'].item())


class Hits(Hook):
    """Return True for each correct prediction."""

    def __init__(self) -> None:
        self.values: list[bool] = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.values += [bool(sample.pred_label == sample.gt_label) for sample in outputs]


def test_config_learns_and_draws_what_it_predicts(tmp_path):
    """Thirty steps on 32 digits, then a test of three others with pictures and one with augmentation."""
    few = {
        'train_dataloader.dataset.indices': 32,
        'test_dataloader.dataset.indices': 3,
        'train_cfg.max_epochs': 30,
        'train_cfg.val_interval': 31,
        'param_scheduler': [],
    }
    runner = build_runner(load_config(NANO, few, str(tmp_path / 'work')))
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    assert len(losses.values) == 30
    assert np.mean(losses.values[:3]) - np.mean(losses.values[-3:]) > 0.3

    checkpoint = (tmp_path / 'work' / 'last_checkpoint').read_text()
    for number, options in enumerate((dict(show_dir=str(tmp_path / 'pictures')), dict(tta=True))):
        cfg = load_config(NANO, few, str(tmp_path / f'test{number}'))
        apply_test_options(cfg, checkpoint, **options)
        runner, hits = build_runner(cfg), Hits()
        runner.register_hook(hits)
        accuracy = runner.test()['accuracy/top1']
        assert len(hits.values) == 3
        assert accuracy == pytest.approx(100 * np.mean(hits.values))
    pictures = sorted((tmp_path / 'pictures').iterdir())
    assert len(pictures) == 3
    with Image.open(pictures[0]) as picture:
        assert picture.size == (320, 320)
