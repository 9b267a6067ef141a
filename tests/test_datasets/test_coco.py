"""COCO data as MMDetection reads it, and the arguments of the data set."""

import json

import pytest
from coco_files import build, write
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.utils import register_all_modules
from mmengine.registry import DATASETS, DefaultScope

from mmdefocus.datasets import DefocusCocoDataset


def test_is_found_from_the_scope_of_mmdetection():
    register_all_modules(init_default_scope=False)
    assert MMDET_DATASETS.get('DefocusCocoDataset') is DefocusCocoDataset
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert DATASETS.get('DefocusCocoDataset') is DefocusCocoDataset


@pytest.mark.parametrize('test_mode', [False, True])
def test_good_data_is_read_as_mmdetection_reads_it(tmp_path, content, test_mode):
    write(tmp_path, content)
    ours = build(tmp_path, test_mode=test_mode, filter_cfg=dict(filter_empty_gt=True))
    stock = CocoDataset(
        data_root=str(tmp_path),
        ann_file='ann.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
        test_mode=test_mode,
        filter_cfg=dict(filter_empty_gt=True),
    )
    assert len(ours) == len(stock) == 2
    assert [ours.get_data_info(i) for i in range(2)] == [stock.get_data_info(i) for i in range(2)]
    assert ours.cat_ids == stock.cat_ids == [3, 5]
    sample = ours[0]
    assert sample['img'].shape == (30, 40, 3)
    assert sample['gt_bboxes'].numpy().tolist() == [[1, 2, 11, 14], [20, 5, 28.5, 14]]
    assert sample['gt_bboxes_labels'].tolist() == [0, 1]


def test_coco_2017_passes(tmp_path, photos_coco):
    """80 classes with ids up to 90, a crowd, an image without annotations, unused keys."""
    annotations = json.loads((photos_coco / 'annotations' / 'instances_train2017.json').read_text())
    annotations['images'].append(dict(id=3, file_name='empty.jpg', width=640, height=427, coco_url='http://x'))
    (tmp_path / 'more.json').write_text(json.dumps(annotations))
    settings = dict(ann_file=str(tmp_path / 'more.json'), data_prefix=dict(img=str(photos_coco / 'train2017')))
    assert len(DefocusCocoDataset(**settings)) == 3
    assert len(DefocusCocoDataset(**settings, filter_cfg=dict(filter_empty_gt=True, min_size=32))) == 2
    dataset = DefocusCocoDataset(**settings, test_mode=True)
    assert dataset.cat_ids == [category['id'] for category in annotations['categories']]
    assert len(dataset.get_data_info(0)['instances']) == 9


def test_filter_that_leaves_nothing(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r"filter_cfg=\{'min_size': 100\} leaves none of 2 images"):
        build(tmp_path, filter_cfg=dict(min_size=100))


def test_unknown_arguments_are_refused(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(TypeError, match='anotation_file'):
        build(tmp_path, anotation_file='x')
