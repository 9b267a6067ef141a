"""A few images are learned by heart, or the result says why not."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.overfit import OverfitResult, overfit
from mmdefocus.apis.overfit_config import choose_images, fixed_pipeline, overfit_config, training_set
from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco
from mmdefocus.openmmlab import import_quietly

import_quietly('mmdet.datasets', 'mmpretrain.datasets')
SIDE = 32


def classifier():
    return Config.fromfile('configs/classification/defocus_mamba_nano_digits.py')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits') / 'digits'
    make_digits_coco(root, DigitsOptions(4, 1, SIDE, (1, 1), (12, 20), photos=False))
    return root


def detector(root):
    cfg = Config.fromfile('configs/dino/defocus_mamba_nano_digits.py')
    cfg.model.backbone.img_size = SIDE
    cfg.model.num_queries = 10
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = f'{root}/'
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (SIDE, SIDE)
    return cfg


def test_images_cover_the_classes():
    labels = [set(), {0}, {0}, {0, 1}, {2}, {1}]
    sizes = [0, 1, 5, 2, 1, 1]
    assert choose_images(labels, sizes, 2) == [3, 4]
    assert choose_images(labels, sizes, 4) == [1, 3, 4, 5] or choose_images(labels, sizes, 4) == [2, 3, 4, 5]
    assert choose_images(labels, sizes, 9) == [1, 2, 3, 4, 5]
    assert choose_images([set()], [0], 1) == []


def test_the_pipeline_has_no_random_step():
    training = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomChoiceResize', scales=[(8, 8), (9, 9)]),
        dict(type='PackDetInputs'),
    ]
    testing = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(9, 9)),
        dict(type='LoadAnnotations'),
        dict(type='PackDetInputs', meta_keys=('img_id',)),
    ]
    assert fixed_pipeline(training, testing) == [training[0], training[1], testing[1], training[4]]


def test_the_config(data):
    cfg = detector(data)
    cfg.default_hooks.ema = dict(type='EMAHook')
    cfg.default_hooks.drop_path = dict(type='DefocusScheduledDropPathHook', max_rate=0.2)
    cfg.optim_wrapper.accumulative_counts = 4
    cfg.optim_wrapper.optimizer.lr = 0.1
    before = cfg.pretty_text
    own = overfit_config(cfg, [0, 2], 0.9, 40, 'out')
    assert cfg.pretty_text == before
    assert own.optim_wrapper.optimizer.weight_decay == 0
    assert own.optim_wrapper.optimizer.lr == 1e-3
    assert 'accumulative_counts' not in own.optim_wrapper
    assert own.train_cfg.max_epochs == 4
    assert own.param_scheduler[1].end == 4 * 10  # a batch has both images
    assert overfit_config(cfg, [0, 2], 0.9, 40, 'out', lr=0.05).optim_wrapper.optimizer.lr == 0.05
    assert {'ema', 'drop_path'}.isdisjoint(own.default_hooks)
    trained, tested = own.train_dataloader.dataset.dataset, own.val_dataloader.dataset
    assert trained.indices == tested.indices == [0, 2]
    assert trained.ann_file == tested.ann_file
    assert own.val_evaluator.ann_file == str(data / 'annotations/instances_train.json')
    classes = classifier()
    classes.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=0.8)])
    assert 'augments' not in overfit_config(classes, [0, 1], 1.0, 10, 'out').model.train_cfg


def test_a_classifier_learns_eight_images(tmp_path):
    before = torch.get_rng_state()
    result = overfit(classifier(), 8, work_dir=tmp_path)
    assert result.passed
    assert result.score == 1.0
    assert len(result.images) == 8
    assert result.epochs < 300
    assert result.work_dir == tmp_path / 'overfit'
    assert len(list(result.work_dir.glob('*.png'))) == 8
    assert torch.equal(before, torch.get_rng_state())
    result.raise_if_failed()
    assert result.verdict == (
        f'accuracy 1.000 on 8 images after {result.epochs} passes: the data and the model fit together'
    )


def test_a_detector_that_has_no_time(data, tmp_path):
    result = overfit(detector(data), 2, max_epochs=10, work_dir=tmp_path)
    assert not result.passed
    assert (result.epochs, result.objects, result.most_predictions) == (10, 2, 40)
    assert len(list(result.work_dir.glob('*.png'))) == 2
    assert not list(tmp_path.rglob('*.pth'))
    with pytest.raises(UsageError, match=r'AP 0\.\d+ on 2 images after 10 passes, expected at least 0\.9: the model'):
        result.raise_if_failed()


@pytest.mark.parametrize('contradictory', [False, True])
def test_a_detector_learns_what_is_not_contradictory(data, tmp_path, contradictory):
    """With equal training, right labels are learned, and those of twins with different classes are not."""
    root = data
    if contradictory:
        root = tmp_path / 'twins'
        (root / 'annotations').mkdir(parents=True)
        (root / 'train').mkdir()
        content = json.loads((data / 'annotations/instances_train.json').read_text())
        picture = (data / 'train' / content['images'][0]['file_name']).read_bytes()
        box = content['annotations'][0]
        # Six images, since rounding orders equal scores at random: two may come out right.
        numbers = range(6)
        content['images'] = [dict(content['images'][0], id=n, file_name=f'{n}.jpg') for n in numbers]
        content['annotations'] = [dict(box, id=n, image_id=n, category_id=1 + n % 2) for n in numbers]
        for n in numbers:
            (root / 'train' / f'{n}.jpg').write_bytes(picture)
        (root / 'annotations/instances_train.json').write_text(json.dumps(content))
    cfg = detector(root)
    result = overfit(cfg, 6 if contradictory else 2, target=0.9, max_epochs=120, work_dir=tmp_path)
    assert result.passed is not contradictory
    if contradictory:
        assert result.score < 0.8


def result(**changes):
    values = dict(
        score=0.31,
        metric='coco/bbox_mAP',
        epochs=300,
        passed=False,
        images=('a.jpg', 'b.jpg'),
        work_dir=Path('out'),
        target=0.9,
        objects=30,
        tiny=12,
        most_objects=60,
        most_predictions=40,
        lr=1e-3,
    )
    return OverfitResult(**{**values, **changes})


def test_the_verdict_of_a_success():
    text = result(score=0.923, epochs=120, passed=True, images=('a.jpg',) * 8).verdict
    assert text == 'AP 0.923 on 8 images after 120 passes: the data and the model fit together'


def test_the_causes_of_a_failure():
    text = result().verdict
    parts = [
        'AP 0.310 on 2 images after 300 passes, expected at least 0.9',
        '(1) boxes in another format, or of another size of the images: run "mmdefocus check-data"',
        '(2) wrong or mixed classes',
        '(3) objects too small for the image size: 12 of 30 boxes have a side below 8 pixels',
        '(4) more objects than predictions: an image has 60 boxes, and the model predicts at most 40',
        '(5) the learning rate 0.001',
    ]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert 'more objects than' not in result(most_objects=40).verdict
    of_classes = result(metric='accuracy/top1').verdict
    assert of_classes.startswith('accuracy 0.310')
    assert '(1) wrong or mixed classes' in of_classes


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(images=1), 'overfit must be a number of images of at least 2, got 1; raise it'),
        (dict(target=1.5), r'target must be above 0 and at most 1, got 1\.5'),
        (dict(max_epochs=5), 'max_epochs must be at least 10, got 5'),
    ],
)
def test_impossible_requests(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        overfit(classifier(), work_dir=tmp_path, **changes)


def test_configs_that_cannot_be_used(tmp_path):
    with pytest.raises(UsageError, match="must be 'mmdet' for detectors or 'mmpretrain' for classifiers, got None"):
        overfit(Config(dict(model=dict(type='DINO'))), work_dir=tmp_path)
    cfg = classifier()
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    assert training_set(cfg)['split'] == 'train'
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, inner])
    with pytest.raises(UsageError, match='needs train_dataloader with one data set, got a concatenation'):
        overfit(cfg, work_dir=tmp_path)
