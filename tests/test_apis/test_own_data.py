"""The config of a training on own data."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.own_data import TrainingOptions, own_data_config
from mmdefocus.apis.zoo import CONFIGS
from mmdefocus.datasets.prepared.source_data import PreparedData, PreparedSplit

CLASSES = ('nut', 'bolt', 'screw')


def data(task='detection', has_masks=False, names=('train', 'val'), empty=0):
    splits = {
        name: PreparedSplit(Path('/data') / name, Path(f'/out/{name}.json'), 100, 300, (640, 480), 9, empty)
        for name in names
    }
    return PreparedData(Path('/data'), 'coco', task, CLASSES, splits, (1, 2, 3), has_masks)


def config(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def test_data_and_classes_are_everywhere():
    recipe = config('dino/defocus_mamba_base_12ep')
    before = recipe.pretty_text
    cfg = own_data_config(recipe, data(names=('train', 'val', 'test')), TrainingOptions())
    assert recipe.pretty_text == before
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert (dataset.type, dataset.ann_file) == ('DefocusCocoDataset', f'/out/{split}.json')
        assert tuple(dataset.metainfo.classes) == CLASSES
        assert dataset.data_prefix.img == f'/data/{split}'
    assert (cfg.val_evaluator.ann_file, cfg.test_evaluator.ann_file) == ('/out/val.json', '/out/test.json')
    assert cfg.model.bbox_head.num_classes == 3
    assert cfg.train_dataloader.dataset.filter_cfg.min_size == 1
    assert any('smaller than 32 pixels' in note for note in cfg.notes)


def test_all_heads_of_a_cascade_get_the_classes():
    cfg = own_data_config(config('cascade_mask_rcnn/dat_pp_tiny_12ep'), data(has_masks=True), TrainingOptions())
    assert [head.num_classes for head in cfg.model.roi_head.bbox_head] == [3, 3, 3]
    assert cfg.model.roi_head.mask_head.num_classes == 3


def test_a_classifier():
    recipe = config('classification/defocus_vit_small')
    cfg = own_data_config(recipe, data('classification'), TrainingOptions(epochs=30, image_size=96))
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type, dataset.ann_file, dataset.classes) == ('DefocusImageFolder', '/out/train.json', [*CLASSES])
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (3, 3)
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.val_evaluator.topk == (1,)
    assert (cfg.param_scheduler.warmup, cfg.train_cfg.max_epochs) == (2, 30)
    assert cfg.model.backbone.img_size == 96
    assert [step.get('crop_size') for step in cfg.val_dataloader.dataset.pipeline].count(96) == 1


def test_the_schedule_is_scaled():
    cfg = own_data_config(config('mask_rcnn/fcvit_b12_12ep'), data(has_masks=True), TrainingOptions(epochs=6))
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.end, steps.milestones, steps.end) == (15, [4, 5], 6)  # 25 batches of 4, a tenth of 6 epochs
    assert any('warm-up takes 15 steps' in note for note in cfg.notes)
    cfg = own_data_config(config('dino/defocus_mamba_base_12ep'), data(), TrainingOptions(epochs=60))
    assert (cfg.param_scheduler[0].milestones, cfg.train_cfg.val_interval) == ([55], 3)


def test_images_without_boxes_are_counted():
    cfg = own_data_config(config('mask_rcnn/fcvit_b12_12ep'), data(has_masks=True, empty=20), TrainingOptions(epochs=6))
    assert any('20 of 100 training images have no box and are left out' in note for note in cfg.notes)
    assert cfg.param_scheduler[0].end == 12  # 20 batches of 4, a tenth of 6 epochs
    kept = own_data_config(config('dino/defocus_mamba_nano'), data(empty=20), TrainingOptions())
    assert not any('no box' in note for note in kept.notes)


def test_the_learning_rate_follows_the_rule_unless_it_is_given():
    recipe = config('dino/defocus_mamba_nano')
    scaled = own_data_config(recipe, data(), TrainingOptions(batch_size=4))
    assert scaled.auto_scale_lr == dict(base_batch_size=8, enable=True)
    assert any('it is 0.0005' in note for note in scaled.notes)
    given = own_data_config(recipe, data(), TrainingOptions(batch_size=4, lr=1e-4))
    assert (given.optim_wrapper.optimizer.lr, given.auto_scale_lr.enable) == (1e-4, False)


def test_image_size_is_the_longest_side():
    cfg = own_data_config(config('dino/defocus_mamba_base_12ep'), data(), TrainingOptions(image_size=640))
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (640, 384)
    crop = cfg.train_dataloader.dataset.pipeline[3].transforms[1]
    assert crop[1].crop_size == (184, 288)
    assert crop[0].scales[0] == (192, 2017)


def test_without_data_only_the_options_change():
    recipe = config('dino/defocus_mamba_base_12ep')
    assert own_data_config(recipe, None, TrainingOptions()).pretty_text == Config(recipe.to_dict()).pretty_text


@pytest.mark.parametrize(
    ('name', 'given', 'options', 'message'),
    [
        ('dino/defocus_mamba_nano', data('classification'), {}, 'has data for classification, and the config is for'),
        ('mask_rcnn/fcvit_b12_12ep', data(), {}, 'has boxes without masks'),
    ],
)
def test_what_does_not_fit_is_an_error(name, given, options, message):
    with pytest.raises(UsageError, match=message):
        own_data_config(config(name), given, TrainingOptions(**options))


def test_options_without_effect_are_errors():
    recipe = config('dino/defocus_mamba_nano')
    recipe.train_cfg = dict(type='IterBasedTrainLoop', max_iters=5)
    with pytest.raises(UsageError, match='epochs has no effect'):
        own_data_config(recipe, data(), TrainingOptions(epochs=3))
    recipe = config('dino/defocus_mamba_nano')
    for split in ('train', 'val', 'test'):
        recipe[f'{split}_dataloader'].dataset.pipeline = [dict(type='LoadImageFromFile')]
    with pytest.raises(UsageError, match='image_size has no effect'):
        own_data_config(recipe, data(), TrainingOptions(image_size=64))
    with pytest.raises(UsageError, match='epochs must be a whole number of at least 1, got 0'):
        TrainingOptions(epochs=0)
