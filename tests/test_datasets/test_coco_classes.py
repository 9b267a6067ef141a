"""Categories of the file against classes of the config."""

import pytest
from coco_files import build, write

from mmdefocus.datasets import DataError, DefocusCocoDataset


def test_categories_that_the_config_lacks(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='the config does not, and their boxes would be lost: dog') as info:
        build(tmp_path, classes=('cat',))
    message = str(info.value)
    assert 'in the file (2): cat, dog' in message
    assert 'in the config (1): cat' in message
    assert "metainfo=dict(classes=('cat', 'dog'))" in message
    assert 'num_classes=2' in message
    assert 'allow_missing_categories=True' in message


def test_subset_of_the_categories_on_purpose(tmp_path, content, monkeypatch):
    write(tmp_path, content)
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    dataset = build(tmp_path, classes=('dog',), allow_missing_categories=True)
    assert [[one['bbox_label'] for one in dataset.get_data_info(i)['instances']] for i in range(2)] == [[0], [0]]
    assert len(said) == 1
    assert '1 of 3 boxes are ignored: their categories are not in the classes' in said[0]


@pytest.mark.parametrize('allow', [False, True])
def test_classes_that_the_file_lacks(tmp_path, content, allow):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='the config has classes that the file does not: bird') as info:
        build(tmp_path, classes=('cat', 'bird', 'dog'), allow_missing_categories=allow)
    assert "metainfo=dict(classes=('cat', 'dog'))" in str(info.value)
    assert 'allow_missing' not in str(info.value)


def test_default_classes_on_own_data(tmp_path, content):
    content['categories'][0]['name'] = 'forklift'
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r'in the config \(80\): person, bicycle.* \(80 in all\)'):
        build(tmp_path, metainfo=None)


def test_classes_in_another_order(tmp_path, content):
    write(tmp_path, content)
    labels = {
        classes: [
            [one['bbox_label'] for one in dataset.get_data_info(i)['instances']]
            for dataset in [build(tmp_path, classes=classes)]
            for i in range(2)
        ]
        for classes in (('cat', 'dog'), ('dog', 'cat'))
    }
    assert labels['dog', 'cat'] == [[1 - label for label in image] for image in labels['cat', 'dog']]
    ids = {category['name']: category['id'] for category in content['categories']}
    assert build(tmp_path, classes=('dog', 'cat')).metainfo['category_ids'] == [ids['dog'], ids['cat']]


def test_single_class_without_a_comma(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(DataError, match=r"classes must be a tuple of names, got 'cat'; .* write classes=\('cat',\)"):
        build(tmp_path, classes='cat')


def test_every_class_has_a_colour():
    classes = tuple(map(str, range(81)))
    options = dict(ann_file='none.json', lazy_init=True, pipeline=[])
    assert DefocusCocoDataset(metainfo=dict(classes=classes), **options).metainfo['palette'] == 'random'
    assert len(DefocusCocoDataset(metainfo=dict(classes=classes[:80]), **options).metainfo['palette']) == 80
    with pytest.raises(DataError, match=r"a colour for each of the 3 classes, got 1; .* write palette='random'"):
        DefocusCocoDataset(metainfo=dict(classes=classes[:3], palette=[(1, 2, 3)]), **options)
