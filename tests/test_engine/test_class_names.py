"""Names of classes in checkpoints and data sets; tests/test_tools covers their comparison through the tools."""

from types import SimpleNamespace

import pytest

from mmdefocus.datasets import DataError, DefocusConcatDataset, DefocusImageFolder
from mmdefocus.engine import SetupError
from mmdefocus.engine.class_count_hook import _check_folders
from mmdefocus.engine.class_identity import category_id_difference, classes_of, dataset_meta_of, predicted_classes


@pytest.mark.parametrize(
    ('checkpoint', 'expected'),
    [
        ({'meta': {'dataset_meta': {'classes': ('a', 'b'), 'category_ids': [3, 1]}}}, ('a', 'b')),
        ({'meta': {'CLASSES': ['a', 'b'], 'PALETTE': [(1, 2, 3)], 'epoch': 1}}, ['a', 'b']),
        ({'meta': {'CLASSES': ['old'], 'dataset_meta': {'CLASSES': ['a', 'b']}}}, ['a', 'b']),
        ({'meta': {'epoch': 1}}, None),
        ({'meta': None}, None),
        ({'state_dict': {}}, None),
        (None, None),
    ],
)
def test_names_in_checkpoints_of_all_versions(checkpoint, expected):
    assert dataset_meta_of(checkpoint).get('classes') == expected
    assert 'epoch' not in dataset_meta_of(checkpoint)


def test_names_of_predictions():
    assert predicted_classes(('a', 'b', 'c'), None) == ('a', 'b', 'c')
    assert predicted_classes(('a', 'b', 'c'), [2, 0]) == ('c', 'a')
    assert predicted_classes(('a', 'b', 'c'), [2, 3]) is None, 'a class without a name'
    assert predicted_classes(None, [2, 0]) is None


def test_category_ids_are_compared_where_both_are_known():
    checkpoint = {'meta': {'dataset_meta': {'classes': ('a', 'b'), 'category_ids': [1, 2]}}}
    owners = ('the checkpoint', 'the data set')

    def difference(**metainfo):
        return category_id_difference(checkpoint, SimpleNamespace(metainfo={'classes': ('a', 'b'), **metainfo}), owners)

    assert difference(category_ids=(1, 2)) is None
    assert difference() is None
    assert difference(category_ids=[1, '2']) == (
        "the checkpoint and the data set have different category ids: b is 2 and '2'"
    )


def test_parts_with_different_metainfo_in_the_concatenation_of_mmdetection():
    dataset = SimpleNamespace(metainfo=[{'classes': ('a', 'b')}, {'classes': ('b', 'a')}])
    message = r"differ in classes or other metainfo \(a, b; b, a\), .*type='DefocusConcatDataset' and give all parts"
    with pytest.raises(SetupError, match=message):
        classes_of(dataset)


@pytest.fixture
def folders(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.png').touch()
    return str(tmp_path)


def test_parts_of_a_concatenation(folders):
    config = dict(type='DefocusImageFolder', data_root=folders)
    joined = DefocusConcatDataset([config, DefocusImageFolder(folders)])
    assert len(joined) == joined.metainfo['cumulative_sizes'][-1] == 4
    assert joined.metainfo['classes'] == ('a', 'b')
    assert [joined.get_dataset_source(index) for index in range(4)] == [0, 0, 1, 1]
    with pytest.raises(DataError, match=f"in different orders, .*: a, b in '{folders}/'; b, a in '{folders}/'"):
        DefocusConcatDataset([config, dict(config, classes=('b', 'a'))])


def test_folders_in_all_wrappers_are_compared():
    part = SimpleNamespace(folder_to_idx={'a': 0, 'b': 1}, metainfo={'classes': ('b', 'a')}, img_prefix='images')
    wrapped = SimpleNamespace(dataset=SimpleNamespace(datasets=[part]))
    with pytest.raises(SetupError, match="labels the folders of 'images' in the order a, b, but its classes are b, a"):
        _check_folders(wrapped)
    part.metainfo = {'classes': ('first', 'second')}  # words for folders that are named by synset
    _check_folders(wrapped)
