"""Masks in the evaluation: perfect ones, none in the annotations, none in the predictions."""

import copy
import json

import numpy as np
import pytest
from mmdet.structures.mask import encode_mask_results
from pycocotools.coco import COCO

from mmdefocus.datasets.coco import DefocusCocoDataset
from mmdefocus.engine.ground_truth import check_ground_truth
from mmdefocus.evaluation import DefocusCocoMetric

ANNOTATIONS = 'annotations/instances_val2017.json'
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True)]


def build(root, **options):
    dataset = DefocusCocoDataset(
        data_root=str(root), ann_file=ANNOTATIONS, data_prefix=dict(img='val2017/'), pipeline=PIPELINE, test_mode=True
    )
    metric = DefocusCocoMetric(**dict(ann_file=str(root / ANNOTATIONS), metric=['bbox', 'segm']) | options)
    metric.dataset_meta = dataset.metainfo
    return dataset, metric


def without_masks(root, photos_coco, *positions):
    """Link the photographs, with annotations of which some lack their mask."""
    content = json.loads((photos_coco / ANNOTATIONS).read_text())
    for position in positions:
        del content['annotations'][position]['segmentation']
    (root / 'annotations').mkdir()
    (root / 'val2017').symlink_to(photos_coco / 'val2017')
    (root / ANNOTATIONS).write_text(json.dumps(content))
    return root


def predict(dataset, photos_coco, shift=0):
    """Predict the true boxes, and their masks moved to the right by some pixels."""
    coco = COCO(str(photos_coco / ANNOTATIONS))
    labels = {number: label for label, number in enumerate(dataset.cat_ids)}
    for image in coco.imgs.values():
        truth = [ann for ann in coco.imgToAnns[image['id']] if not ann['iscrowd']]
        boxes = np.array([ann['bbox'] for ann in truth])
        boxes[:, 2:] += boxes[:, :2]
        masks = np.stack([np.roll(coco.annToMask(ann), shift, 1) for ann in truth])
        prediction = dict(
            img_id=image['id'],
            bboxes=boxes,
            scores=np.linspace(0.9, 0.5, len(truth)),
            labels=np.array([labels[ann['category_id']] for ann in truth]),
            masks=encode_mask_results(masks),
        )
        yield dict(img_id=image['id'], width=image['width'], height=image['height']), prediction


def test_true_masks_have_an_ap_of_one_and_others_less(photos_coco):
    dataset, metric = build(photos_coco)
    for shift in (0, 4):
        found = metric.compute_metrics(list(predict(dataset, photos_coco, shift)))
        assert found['bbox_mAP'] == 1.0
        assert found['segm_mAP'] == 1.0 if shift == 0 else found['segm_mAP'] < 0.8
        # COCO's size of an object is the area of its mask.
        assert (found['segm_mAP_s'], found['segm_mAP_m']) == ((1.0, 1.0) if shift == 0 else (0.0, found['segm_mAP_m']))


def test_predictions_without_masks(photos_coco):
    dataset, metric = build(photos_coco)
    predictions = list(predict(dataset, photos_coco))
    del predictions[1][1]['masks']
    message = (
        r"^the metric 'segm' evaluates masks, and the model predicts none; use .*, or set metric='bbox' in val_eval"
    )
    with pytest.raises(ValueError, match=message):
        metric.compute_metrics(predictions)
    del predictions[0][1]['masks']
    metric.metrics = ['bbox']
    assert metric.compute_metrics(predictions)['bbox_mAP'] == 1.0


def test_masks_are_evaluated_only_if_all_boxes_have_one(photos_coco, tmp_path):
    dataset, metric = build(photos_coco)
    check_ground_truth(dataset, [metric], 'val')
    root = without_masks(tmp_path, photos_coco, 1, 4)
    dataset, metric = build(root)
    message = (
        r"^test_evaluator: the metric 'segm' evaluates masks, and 2 of 11 boxes of .* have no segmentation "
        r"\(the first is annotation 2\); export the annotations with masks, or set test_evaluator.metric='bbox'$"
    )
    with pytest.raises(ValueError, match=message):
        check_ground_truth(dataset, [metric], 'test')
    with pytest.raises(ValueError, match=message):
        check_ground_truth(dataset, [build(root, ann_file=None)[1]], 'test')
    check_ground_truth(dataset, [build(root, metric='bbox')[1]], 'test')


def test_check_is_repeated_after_an_evaluation(photos_coco):
    """pycocotools replaces the polygons by run lengths."""
    dataset, metric = build(photos_coco)
    metric.compute_metrics(copy.deepcopy(list(predict(dataset, photos_coco))))
    check_ground_truth(dataset, [metric], 'val')
