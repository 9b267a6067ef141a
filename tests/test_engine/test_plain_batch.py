"""Batches that go to a file and back."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample, MultiTaskDataSample

from mmdefocus.engine.plain_batch import from_plain, image_paths, stored, to_plain

CPU = torch.device('cpu')


def through_a_file(tmp_path, value):
    torch.save(to_plain(value), tmp_path / 'batch.pt')
    return from_plain(torch.load(tmp_path / 'batch.pt', weights_only=True), CPU)


def test_a_sample_of_a_detector(tmp_path):
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    sample = DetDataSample(metainfo=dict(img_path='a.jpg', img_shape=(8, 9), scale_factor=(np.float32(0.5), 2.0)))
    sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor([7]))
    sample.gt_instances.masks = BitmapMasks(np.ones((1, 8, 9), np.uint8), 8, 9)
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], masks=PolygonMasks([], 8, 9))
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, 8, 9))
    (again,) = through_a_file(tmp_path, [sample])
    assert type(again) is DetDataSample
    assert again.metainfo == dict(img_path='a.jpg', img_shape=(8, 9), scale_factor=(0.5, 2.0))
    assert torch.equal(again.gt_instances.bboxes.tensor, boxes)
    assert again.gt_instances.labels.tolist() == [7]
    assert np.array_equal(again.gt_instances.masks.masks, sample.gt_instances.masks.masks)
    assert len(again.ignored_instances) == 0
    assert again.gt_sem_seg.sem_seg.shape == (1, 8, 9)


def test_samples_of_classifiers(tmp_path):
    sample = DataSample(metainfo=dict(img_path='b.png')).set_gt_label(2).set_gt_score(torch.tensor([0.25, 0.75]))
    tasks = MultiTaskDataSample()
    tasks.set_field(sample, 'colour')
    again, again_tasks = through_a_file(tmp_path, (sample, tasks))
    assert again.gt_label.tolist() == [2]
    assert again.gt_score.tolist() == [0.25, 0.75]
    assert again_tasks.colour.gt_label.tolist() == [2]
    assert image_paths({'inputs': torch.ones(1), 'data_samples': [again, DataSample()]}) == ['b.png', 'unknown']


def test_a_subclass_of_a_sample_becomes_the_sample(tmp_path):
    class OwnSample(DataSample):
        pass

    assert type(through_a_file(tmp_path, OwnSample().set_gt_label(1))) is DataSample


def test_values_and_arrays(tmp_path):
    batch = {'numbers': (1, 2.5, None, True, b'x'), 'array': np.arange(3), 'kinds': [torch.float16, torch.Size([2])]}
    again = through_a_file(tmp_path, batch)
    assert np.array_equal(again.pop('array'), np.arange(3))
    assert again == {key: value for key, value in batch.items() if key != 'array'}


def test_objects_of_other_classes():
    with pytest.raises(TypeError, match=r'^a batch with a builtins.object cannot be saved$'):
        to_plain({'x': [object()]})
    with pytest.raises(ValueError, match=r"^the batch holds a 'Popen', which the packages installed here do not have$"):
        from_plain({'<kind>': 'Popen', 'fields': {}}, CPU)


def test_a_part_of_a_large_tensor_is_stored_alone():
    assert stored(torch.ones(1000)[:2]).untyped_storage().nbytes() == 8
