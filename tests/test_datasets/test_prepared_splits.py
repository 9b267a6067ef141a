"""The validation split: stratified, seeded, independent of the order of files, without copies on both sides."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import source_sets as sets

from mmdefocus.datasets import DataError
from mmdefocus.datasets.prepared import SourceData, SourceSplit, read_data, split_data


def source_of(classes_of_images: list[tuple[int, ...]], root: Path = Path('/nowhere')) -> SourceData:
    """Return a source whose images have boxes of the given classes."""
    content = dict(
        images=[dict(id=number, file_name=f'{number:04}.jpg') for number in range(len(classes_of_images))],
        annotations=[
            dict(id=1, image_id=number, category_id=one)
            for number, classes in enumerate(classes_of_images)
            for one in classes
        ],
        categories=[dict(id=one, name=f'class {one}') for one in sorted(set().union(*classes_of_images))],
    )
    return SourceData(root, 'coco', 'detection', {'train': SourceSplit('train', root, content)})


def counts(split: SourceSplit) -> Counter:
    return Counter(one for _, one in {(ann['image_id'], ann['category_id']) for ann in split.content['annotations']})


def names(split: SourceSplit) -> set[str]:
    return {image['file_name'] for image in split.content['images']}


def test_every_class_has_its_part_in_validation():
    rng = np.random.default_rng(0)
    weights = 0.5 ** np.arange(8)
    images = [tuple(np.flatnonzero(rng.random(8) < weights).tolist()) for _ in range(600)]
    source = source_of(images)
    done = split_data(source, 0.25)
    train, val = done.splits['train'], done.splits['val']
    assert names(train) | names(val) == names(source.splits['train'])
    assert not names(train) & names(val)
    assert len(names(val)) == pytest.approx(150, abs=4)
    total = counts(source.splits['train'])
    for one, number in counts(val).items():
        assert number == pytest.approx(0.25 * total[one], abs=3)
    assert counts(val).keys() == total.keys()


@pytest.mark.parametrize('seed', range(5))
def test_a_class_with_two_images_is_on_both_sides(seed):
    images = [(0,)] * 30 + [(0, 1), (0, 1), (0, 2), (2, 1), (3, 0), (3, 2)]
    done = split_data(source_of(images), 0.1, seed)
    assert counts(done.splits['train']).keys() == counts(done.splits['val']).keys() == {0, 1, 2, 3}


def test_a_class_with_one_image_is_for_training():
    done = split_data(source_of([(0,)] * 9 + [(0, 1)]), 0.5)
    assert 1 in counts(done.splits['train'])
    assert 'val: no image has the classes class 1; too few different images have them.' in done.notes


def test_the_split_depends_on_names_and_seed_only():
    source = source_of([(number % 3,) for number in range(40)])
    content = source.splits['train'].content
    turned = dict(content, images=content['images'][::-1], annotations=content['annotations'][::-1])
    reordered = replace(source, splits={'train': replace(source.splits['train'], content=turned)})
    val = names(split_data(source).splits['val'])
    assert names(split_data(reordered).splits['val']) == val
    assert names(split_data(source, seed=1).splits['val']) != val


def test_copies_stay_on_one_side(tmp_path):
    root = sets.make_coco(tmp_path, ('train',))
    file = root / 'annotations' / 'instances_train.json'
    content = json.loads(file.read_text())
    shutil.copy(root / 'train' / 'train_00.png', root / 'train' / 'copy.png')
    for number, name in enumerate(('copy.png', 'x_jpg.rf.0a1b.jpg', 'x_jpg.rf.2c3d.jpg', 'x_jpg.rf.4e5f.jpg'), 50):
        content['images'].append(dict(id=number, file_name=name, width=64, height=48))
    file.write_text(json.dumps(content))
    source = read_data(root)
    for seed in range(6):
        for split in split_data(source, 0.4, seed).splits.values():
            assert len(names(split) & {'copy.png', 'train_00.png'}) in (0, 2)
            assert len([name for name in names(split) if '.rf.' in name]) in (0, 3)


def test_a_set_with_validation_is_unchanged_and_test_is_not_taken_for_it(tmp_path):
    source = read_data(sets.make_coco(tmp_path / 'a'))
    assert split_data(source) is source
    done = split_data(read_data(sets.make_coco(tmp_path / 'b', ('train', 'test'))))
    assert list(done.splits) == ['train', 'val', 'test']
    assert names(done.splits['val']) < {f'train_{number:02}.png' for number in range(6)}
    assert 'The test split is not used for validation.' in done.notes


@pytest.mark.parametrize('fraction', [0, 1, -0.1, 20])
def test_fractions_out_of_range_are_errors(fraction):
    with pytest.raises(DataError, match='val_fraction must be between 0 and 1'):
        split_data(source_of([(0,), (1,)]), fraction)


def test_sets_that_cannot_be_split_are_errors(tmp_path):
    with pytest.raises(DataError, match='train has 1 different images; expected at least two'):
        split_data(source_of([(0,)]))
    with pytest.raises(DataError, match='has val but no train'):
        split_data(read_data(sets.make_coco(tmp_path, ('val',))))
