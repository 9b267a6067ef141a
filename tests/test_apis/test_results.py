"""Conversions and pictures of results that were made by hand."""

import json
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import decode

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.results import ClassificationResult, DetectionResult

IMAGE = np.full((40, 60, 3), (255, 0, 0), np.uint8)  # blue


def detection(path=None, image=IMAGE, count=2, **changes):
    values = dict(
        path=path,
        scores=np.array([0.9, 0.5], np.float32)[:count],
        labels=np.array([1, 0])[:count],
        names=('nut', 'screw')[:count],
        image_size=(60, 40),
        boxes=np.array([[10, 5, 30, 25], [0, 0, 60, 40]], np.float32)[:count],
        category_ids=(7, 3)[:count],
        image=image,
    )
    return DetectionResult(**{**values, **changes})


def classification(**changes):
    values = dict(scores=np.array([0.75, 0.25], np.float32), labels=np.array([4, 2]), names=('four', 'two'))
    return ClassificationResult(path=None, image=IMAGE, **{**values, **changes})


def test_supervision_has_boxes_scores_classes_and_names():
    found = detection().to_supervision()
    assert found.xyxy.tolist() == [[10, 5, 30, 25], [0, 0, 60, 40]]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.5])
    assert found.class_id.tolist() == [1, 0]
    assert found.data['class_name'].tolist() == ['nut', 'screw']
    assert found.mask is None


def test_supervision_of_nothing_is_empty():
    empty = detection(count=0)
    assert len(empty) == len(empty.to_supervision()) == 0
    assert empty.to_coco(1) == []
    assert np.array_equal(empty.draw(), IMAGE)
    assert str(empty) == 'image: 0 objects in 60 x 40 pixels'


def test_coco_results_have_the_original_ids_and_are_evaluated_as_perfect(tmp_path):
    results = json.loads(json.dumps(detection().to_coco(image_id=12)))
    assert results[0] == dict(image_id=12, category_id=7, bbox=[10, 5, 20, 20], score=pytest.approx(0.9))
    truth = COCO()
    boxes = [dict(result, id=index + 1, iscrowd=0, area=100) for index, result in enumerate(results)]
    truth.dataset = dict(
        info={}, images=[dict(id=12, width=60, height=40)], annotations=boxes, categories=[dict(id=7), dict(id=3)]
    )
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_masks_are_kept_as_run_lengths_and_drawn():
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:25, 10:30] = True
    result = detection(masks=masks)
    first = json.loads(json.dumps(result.to_coco('picture')))[0]
    assert np.array_equal(decode(first['segmentation']), masks[0])
    assert np.array_equal(result.to_supervision().mask, masks)
    assert not np.array_equal(result.draw(), detection().draw())


def test_coco_results_without_known_ids_are_refused():
    with pytest.raises(UsageError, match='need the category ids of the annotation file, which the checkpoint does not'):
        detection(category_ids=None).to_coco(1)


def test_boxes_are_drawn_at_their_places_and_the_image_stays_as_it_was():
    before = IMAGE.copy()
    drawn = detection(count=1).draw()
    assert np.array_equal(IMAGE, before)
    changed = np.argwhere((drawn != IMAGE).any(-1))
    assert {10, 30} <= set(changed[:, 1])  # left and right edge
    assert {5, 25} <= set(changed[:, 0])
    assert np.array_equal(drawn[30:, 40:], IMAGE[30:, 40:])


def test_a_file_is_read_for_its_picture_and_another_image_can_be_given(tmp_path):
    Image.fromarray(IMAGE[..., ::-1]).save(tmp_path / 'blue.png')
    expected = detection().draw()
    assert np.array_equal(detection(str(tmp_path / 'blue.png'), None).draw(), expected)
    assert np.array_equal(detection(None, None).draw(Image.fromarray(IMAGE[..., ::-1])), expected)
    with pytest.raises(UsageError, match=r'neither the path nor the pixels of its image; pass it: draw\(image\)'):
        detection(None, None).draw()
    with pytest.raises(UsageError, match='expected an image of 60 x 40 pixels, to which the boxes refer, got 60 x 20'):
        detection().draw(IMAGE[:20])


def test_pictures_are_saved_into_a_new_folder(tmp_path):
    path = detection().save(tmp_path / 'new' / 'picture.png')
    assert np.array_equal(cv2.imread(str(path)), detection().draw())
    with pytest.raises(UsageError, match=r"expected the name of an image file, such as picture.png, got '.*notes.txt'"):
        detection().save(tmp_path / 'notes.txt')


def test_text_of_a_detection_is_a_table():
    assert str(detection('shelf.jpg')).splitlines() == [
        'shelf.jpg: 2 objects in 60 x 40 pixels',
        '  0.900  nut       10.0     5.0    30.0    25.0',
        '  0.500  screw      0.0     0.0    60.0    40.0',
    ]


def test_long_tables_are_shortened_with_the_number_of_the_rest():
    many = detection(
        scores=np.full(25, 0.5), labels=np.zeros(25, int), names=('nut',) * 25, boxes=np.zeros((25, 4), np.float32)
    )
    lines = str(many).splitlines()
    assert len(lines) == 22
    assert lines[-1] == '  … and 5 more'


def test_classification_converts_to_supervision_and_json():
    found = classification().to_supervision()
    assert found.class_id.tolist() == [4, 2]
    assert found.confidence.tolist() == [0.75, 0.25]
    expected = dict(path=None, labels=[4, 2], names=['four', 'two'], scores=[0.75, 0.25])
    assert json.loads(json.dumps(classification().to_dict())) == expected
    assert str(classification()) == 'image\n  0.750  four\n  0.250  two'


def test_classes_are_written_below_the_image():
    drawn = classification().draw()
    assert drawn.shape == (40 * 4 + 2 * 24 + 6, 60 * 4, 3)
    assert (drawn[:160] == IMAGE[0, 0]).all()
    assert (drawn[160:] != 255).any()  # text


def test_results_are_made_without_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    assert len(detection().to_coco(1)) == 2
    assert str(classification()).startswith('image')
