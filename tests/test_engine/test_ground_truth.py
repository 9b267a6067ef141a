"""Evaluation through the runner of the tools, with a detector that knows the true boxes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from mmengine.structures import InstanceData

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_test_options
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.engine import DefocusGroundTruthCheckHook

CONFIGS = Path(__file__).parents[2] / 'configs'
BASE, DINO = CONFIGS / '_base_' / 'datasets' / 'digits_detection.py', CONFIGS / 'dino'
CONFIG = f"""
_base_ = '{BASE}'
default_scope = 'mmdet'
custom_imports = dict(imports=['mmdefocus.datasets'], allow_failed_imports=False)
model = dict(type='Oracle', data_preprocessor=dict(type='DetDataPreprocessor'))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = {{}}
test_cfg = {{}}
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(ground_truth_check=dict(type='mmdefocus.engine.DefocusGroundTruthCheckHook'))
"""


@MODELS.register_module()
class Oracle(BaseModel):
    """Predicts the true boxes."""

    def __init__(self, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return dict(loss=self.weight * 1)
        for sample in data_samples:
            truth = sample.gt_instances
            scores = torch.linspace(0.9, 0.5, len(truth))
            sample.pred_instances = InstanceData(bboxes=truth.bboxes, scores=scores, labels=truth.labels)
        return data_samples


@pytest.fixture
def root(tmp_path, digits_coco) -> Path:
    """A copy of the digits whose annotations may be changed."""
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        name = f'annotations/instances_{split}.json'
        (tmp_path / name).write_bytes((digits_coco / name).read_bytes())
        (tmp_path / split).symlink_to(digits_coco / split)
    (tmp_path / 'config.py').write_text(CONFIG)
    torch.save({'state_dict': {'weight': torch.ones(())}}, tmp_path / 'oracle.pth')
    return tmp_path


def annotations(root: Path, split: str = 'val') -> dict[str, Any]:
    return json.loads((root / 'annotations' / f'instances_{split}.json').read_text())


def write(root: Path, content: dict[str, Any], name: str = 'instances_val.json') -> str:
    path = root / 'annotations' / name
    path.write_text(json.dumps(content))
    return str(path)


def runner_of(root: Path, options: dict[str, Any], test: bool = True):
    options = {'data_root': f'{root}/', **options}
    cfg = load_config(root / 'config.py', options, str(root / 'work'))
    if test:
        apply_test_options(cfg, str(root / 'oracle.pth'))
    return build_runner(cfg)


def evaluate(root: Path, **options: Any) -> dict[str, float]:
    return runner_of(root, {key.replace('__', '.'): value for key, value in options.items()}).test()


@pytest.mark.parametrize('path', sorted(DINO.glob('*.py')), ids=lambda path: path.stem)
def test_configs_of_detectors_evaluate_with_checks(path):
    cfg = Config.fromfile(path)
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'DefocusCocoMetric'
    assert HOOKS.get(cfg.default_hooks.ground_truth_check.type) is DefocusGroundTruthCheckHook


@pytest.mark.parametrize('first_id', [0, 1])
def test_annotation_ids_do_not_matter(root, first_id):
    content = annotations(root)
    for number, ann in enumerate(content['annotations']):
        ann['id'] = first_id + number
    write(root, content)
    assert evaluate(root)['coco/bbox_mAP'] == 1.0


def test_stock_metric_with_the_id_0_is_an_error(root):
    """pycocotools would count the box as not found."""
    content = annotations(root)
    content['annotations'][2]['id'] = 0
    write(root, content)
    message = r"annotation with the id 0, which CocoMetric counts .*set test_evaluator\.type='DefocusCocoMetric'"
    with pytest.raises(ValueError, match=message):
        evaluate(root, test_evaluator__type='CocoMetric')


def test_stock_metric_is_accepted_with_other_ids(root):
    assert evaluate(root, test_evaluator__type='CocoMetric')['coco/bbox_mAP'] == 1.0


def test_part_of_the_images_is_evaluated_alone(root):
    assert evaluate(root, test_dataloader__dataset__indices=2)['coco/bbox_mAP'] == 1.0
    message = r"test data set has 2 of the 4 images of .*counts the boxes of the others as missed; .*DefocusCocoMetric'"
    with pytest.raises(ValueError, match=message):
        evaluate(root, test_dataloader__dataset__indices=2, test_evaluator__type='CocoMetric')


def test_annotation_file_of_another_split(root):
    other = str(root / 'annotations' / 'instances_train.json')
    message = (
        r'test_evaluator: the ann_file of CocoMetric is not that of the test data set, .*instances_val\.json.: '
        r'the data set has \d+ boxes and the evaluator \d+, of which 0 are the same\. Set test_evaluator\.ann_file to'
    )
    with pytest.raises(ValueError, match=message):
        evaluate(root, test_evaluator__ann_file=other, test_evaluator__type='CocoMetric')


def test_annotation_file_with_other_images(root):
    content = annotations(root)
    content['images'].append(dict(content['images'][0], id=99))
    other = write(root, content, 'more.json')
    with pytest.raises(ValueError, match='has 4 images and the evaluator 5, of which 4 are the same'):
        evaluate(root, test_evaluator__ann_file=other)


def test_annotation_file_with_categories_in_another_order(root):
    content = annotations(root)
    content['categories'].reverse()
    other = write(root, content, 'reversed.json')
    assert evaluate(root, test_evaluator__ann_file=other)['coco/bbox_mAP'] == 1.0, 'categories are found by name'
    message = (
        r"CocoMetric takes labels for positions .* not that of the classes 0, 1, .*; set test_evaluator\.type='Def"
    )
    with pytest.raises(ValueError, match=message):
        evaluate(root, test_evaluator__ann_file=other, test_evaluator__type='CocoMetric')


def test_copy_of_the_annotation_file_is_accepted(root):
    content = annotations(root)
    content['annotations'].reverse()
    for number, ann in enumerate(content['annotations'], start=1):
        ann['id'] = number
    assert evaluate(root, test_evaluator__ann_file=write(root, content, 'copy.json'))['coco/bbox_mAP'] == 1.0


def test_training_does_not_begin_with_the_wrong_validation(root):
    other = str(root / 'annotations' / 'instances_train.json')
    runner = runner_of(root, {'val_evaluator.ann_file': other}, test=False)
    with pytest.raises(ValueError, match='val_evaluator: the ann_file of DefocusCocoMetric is not that of the val'):
        runner.train()
    assert runner.iter == 0


def lose_an_image(root: Path) -> None:
    names = [image['file_name'] for image in annotations(root)['images']]
    (root / 'val').unlink()
    (root / 'val').mkdir()
    for name in names[1:]:
        (root / 'val' / name).touch()


def quote_iscrowd(root: Path) -> None:
    content = annotations(root)
    content['annotations'][-1]['iscrowd'] = '0'
    write(root, content)


@pytest.mark.parametrize(
    ('spoil', 'error', 'message'),
    [
        (lose_an_image, FileNotFoundError, r'lists 4 images, of which 1 do not exist, the first is .*/val/000000\.jpg'),
        (quote_iscrowd, ValueError, r"iscrowd of annotation \d+ must be 0 or 1, without quotes, got '0'"),
    ],
)
def test_training_does_not_begin_with_spoiled_validation_data(root, spoil, error, message):
    spoil(root)
    runner = runner_of(root, {}, test=False)
    with pytest.raises(error, match=message):
        runner.train()
    assert runner.iter == 0


def test_training_ends_with_an_evaluation(root):
    runner = runner_of(root, {}, test=False)
    runner.train()
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() == 1.0


def test_concatenated_data_sets(root):
    """Two halves with one evaluator for both."""
    content = annotations(root)
    halves = []
    for number, part in enumerate((content['images'][:2], content['images'][2:])):
        ids = {image['id'] for image in part}
        boxes = [ann for ann in content['annotations'] if ann['image_id'] in ids]
        halves.append(write(root, dict(content, images=part, annotations=boxes), f'{number}.json'))
    cfg = load_config(root / 'config.py', {'data_root': f'{root}/'}, str(root / 'work'))
    apply_test_options(cfg, str(root / 'oracle.pth'))
    single = cfg.test_dataloader.dataset
    parts = [dict(single, ann_file=half) for half in halves]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    assert build_runner(cfg).test()['coco/bbox_mAP'] == 1.0
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts[:1])
    with pytest.raises(ValueError, match='has 2 images and the evaluator 4, of which 2 are the same'):
        build_runner(cfg).test()


def test_metric_without_an_annotation_file_takes_the_truth_of_the_data_set(root):
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
    options = {'test_evaluator.ann_file': None, 'test_dataloader.dataset.pipeline.3.meta_keys': meta_keys}
    assert runner_of(root, options).test()['coco/bbox_mAP'] == 1.0
