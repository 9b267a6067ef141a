"""Annotations in COCO format that a training cannot use."""

import json
from collections.abc import Callable
from typing import Any

from broken_inputs import Case, Workplace, each
from toy_inputs import annotations

INTRODUCTION = 'Annotation files in COCO format, read by `tools/train.py` before the training begins.'


def changed(
    what: str, change: Callable[[dict], object], says: str, use: Callable[[Workplace], str] = Workplace.train
) -> Case:
    """A case in which the content of the file is changed."""

    def attempt(place: Workplace) -> str:
        content = annotations()
        change(content)
        (place.root / 'ann.json').write_text(json.dumps(content))
        return use(place)

    return Case(what, attempt, says)


def entry(what: str, kind: str, says: str, **values: Any) -> Case:
    """A case in which the first entry of a list gets other values; None removes the key."""

    def change(content: dict) -> None:
        first = content[kind][0]
        first.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del first[key]

    return changed(what, change, says)


def box(what: str, value: Any, says: str) -> Case:
    return entry(what, 'annotations', says, bbox=value)


def every_box(what: str, change: Callable[[list], list], says: str, use: Callable = Workplace.train) -> Case:
    def change_all(content: dict) -> None:
        for ann in content['annotations']:
            ann['bbox'] = change(ann['bbox'])

    return changed(what, change_all, says, use)


def file(what: str, content: bytes, says: str) -> Case:
    """A case in which the file has this content."""

    def attempt(place: Workplace) -> str:
        (place.root / 'ann.json').write_bytes(content)
        return place.train()

    return Case(what, attempt, says)


def no_file(place: Workplace) -> str:
    (place.root / 'ann.json').unlink()
    return place.train()


def directory(place: Workplace) -> str:
    (place.root / 'ann.json').unlink()
    (place.root / 'ann.json').mkdir()
    return place.train()


def for_testing(place: Workplace) -> str:
    content = annotations()
    del content['annotations'][1]['iscrowd']
    (place.root / 'test.json').write_text(json.dumps(content))
    return place.train('detector.py', '--cfg-options', 'val_dataloader.dataset.ann_file=test.json')


def other_file_for_metric(place: Workplace) -> str:
    content = annotations()
    del content['images'][1], content['annotations'][2:]
    (place.root / 'other.json').write_text(json.dumps(content))
    return place.train('detector.py', '--cfg-options', 'val_evaluator.ann_file=other.json')


def corners(b: list) -> list:
    return [b[0], b[1], b[0] + b[2], b[1] + b[3]]


VALID = json.dumps(annotations())
COCO_LINES = '\n'.join(json.dumps(image) for image in annotations()['images'])
CASES = [
    Case(
        'The file does not exist',
        no_file,
        "data_root='.' | annotation file | make or download the data, or set data_root and ann_file",
    ),
    Case(
        'The file is a directory',
        directory,
        "got the directory './ann.json' | the annotation file must be a file | set ann_file of the data set to the",
    ),
    file(
        'The file is empty',
        b'',
        "it begins with b'' | not valid JSON | download it or export it again as one JSON object in COCO format",
    ),
    file(
        'The file is cut off',
        VALID.encode()[:100],
        'it begins with b\'{"images": [{"id": 7 | not valid JSON | download it or export it again as one JSON',
    ),
    file(
        'The file is an HTML page',
        b'<!DOCTYPE html><html>404: Not Found</html>',
        "it begins with b'<!DOCTYPE html><html>404 | not valid JSON | download it or export it again as one JSON",
    ),
    file(
        'The file is a Git LFS pointer',
        b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
        'it begins with b\'version | not valid JSON | it is a Git LFS pointer: run "git lfs pull"',
    ),
    file(
        'The file is JSON lines',
        COCO_LINES.encode(),
        'it begins with b\'{"id": 7, "file_name" | not valid JSON | download it or export it again as one JSON',
    ),
    file(
        'The file begins with a byte-order mark and is UTF-16',
        VALID.encode('utf-16')[:-2],
        'it begins with | not valid JSON | it is in UTF-16: save it in UTF-8',
    ),
    file(
        'The file is compressed',
        b'\x1f\x8b\x08\x00' + bytes(20),
        'it begins with | not valid JSON | it is compressed: unpack it',
    ),
    file(
        'The file is a list of annotations',
        json.dumps(annotations()['annotations']).encode(),
        "got a list | annotation file './ann.json' is not in COCO format | convert the annotations to COCO format",
    ),
    file(
        'The file is in another format',
        json.dumps(dict(shapes=[], imagePath='a.jpg')).encode(),
        'found shapes, imagePath | expected the lists images, annotations | convert the annotations to COCO format',
    ),
    changed(
        '`images` is a dictionary',
        lambda c: c.update(images={'7': {}}),
        'found images, annotations, categories | expected the lists images | convert the annotations to COCO format',
    ),
    changed(
        'There are no images',
        lambda c: c.update(images=[], annotations=[]),
        "got an empty list | annotation file './ann.json' must list images | export it again",
    ),
    changed(
        'There are no categories',
        lambda c: c.update(categories=[]),
        '3, 5; the file has | the file has none | correct these annotations or remove them',
    ),
    changed(
        'There are no annotations',
        lambda c: c.update(annotations=[]),
        '(0 boxes, 0 of them degenerate, 0 crowds) | usable box to train on | give the data set a file with boxes',
    ),
    changed(
        'An annotation is a list',
        lambda c: c['annotations'].insert(0, [1, 2]),
        'got [1, 2] | annotation 0 must be an object with id, image_id | write or export it again in COCO format',
    ),
    changed(
        'An annotation is null',
        lambda c: c['annotations'].insert(0, None),
        'got None | annotation 0 must be an object with id, image_id | write or export it again in COCO format',
    ),
    box(
        'A box is a text',
        '1 2 10 12',
        "got '1 2 10 12' | the bbox of annotation 1 must be [x, y, width | correct the annotation or remove it",
    ),
    box(
        'A box has texts',
        ['1', '2', '10', '12'],
        "got ['1', '2', '10', '12'] | the bbox of annotation 1 must be [x, y | correct the annotation or remove it",
    ),
    box(
        'A box has three numbers',
        [1, 2, 10],
        'got [1, 2, 10] | the bbox of annotation 1 must be [x, y, width | correct the annotation or remove it',
    ),
    box(
        'A box is a dictionary',
        dict(x=1, y=2, w=3, h=4),
        "got {'h': 4, 'w': 3, 'x': 1, 'y' | the bbox of annotation 1 must be | correct the annotation or remove it",
    ),
    box(
        'A box is null',
        [None] * 4,
        'got [None, None, None, None] | the bbox of annotation 1 must be [x | correct the annotation or remove it',
    ),
    box(
        'A box has NaN',
        [1, 2, float('nan'), 12],
        'got [1, 2, nan, 12] | the bbox of annotation 1 must be [x, y, width | correct the annotation or remove it',
    ),
    box(
        'A box has infinity',
        [1, 2, float('inf'), 12],
        'got [1, 2, inf, 12] | the bbox of annotation 1 must be [x, y, width | correct the annotation or remove it',
    ),
    box(
        'A box is far too large',
        [1, 2, 1e9, 12],
        'got [1, 2, 1000000000.0, 12] | the bbox of annotation 1 must be in | correct the annotation or remove it',
    ),
    every_box(
        'Boxes are two corners',
        corners,
        '3 of 4 boxes reach beyond their | COCO format has [x, y, width, height] | write [x1, y1, x2 - x1, y2 - y1]',
    ),
    every_box(
        'Boxes are fractions of the image',
        lambda b: [value / 40 for value in b],
        '(4 boxes, 4 of them degenerate, 0 crowds) | usable box to train on | correct the boxes',
    ),
    every_box(
        'Boxes have negative sizes',
        lambda b: [b[0], b[1], -b[2], -b[3]],
        '(4 boxes, 4 of them degenerate, 0 crowds) | usable box to train on | correct the boxes',
    ),
    every_box(
        'Boxes lie outside of their images',
        lambda b: [b[0] + 400, *b[1:]],
        '(4 boxes, 4 of them degenerate, 0 crowds) | usable box to train on | correct the boxes',
    ),
    every_box(
        'Boxes reach far beyond their images',
        lambda b: [b[0], b[1], 10 * b[2], 10 * b[3]],
        '4 of 4 boxes reach beyond their image | belong to images | of a different size?',
        Workplace.train_with_warning,
    ),
    entry(
        'An area is a text',
        'annotations',
        "got '120' | the area of annotation 1 must be a finite number | write the width times the height of the box",
        area='120',
    ),
    entry(
        'An area is missing',
        'annotations',
        'annotation 0 has no area | each needs id, image_id, category_id | area may be the width times the height',
        area=None,
    ),
    entry(
        'A box is missing',
        'annotations',
        'annotation 0 has no bbox | each needs id, image_id, category_id, bbox, area | add it, or remove the entry',
        bbox=None,
    ),
    entry(
        'iscrowd is a text',
        'annotations',
        "got '0' | iscrowd of annotation 1 must be 0 or 1, without quotes | write 0 for a single object",
        iscrowd='0',
    ),
    entry(
        'iscrowd is 2',
        'annotations',
        'got 2 | iscrowd of annotation 1 must be 0 or 1, without quotes | write 0 for a single object',
        iscrowd=2,
    ),
    Case(
        'iscrowd is missing in a validation set',
        for_testing,
        'annotation 1 has no iscrowd | each needs id, image_id, category_id | iscrowd is 0 for a single object',
    ),
    entry(
        'An annotation belongs to an image that is not listed',
        'annotations',
        '8; the file has | the file has 7, 9 | correct these annotations or remove them',
        image_id=8,
    ),
    entry(
        'An annotation has an unknown category',
        'annotations',
        '77; the file has | the file has 3, 5 | correct these annotations or remove them',
        category_id=77,
    ),
    entry(
        'An annotation has category 0',
        'annotations',
        '0; the file has | the file has 3, 5 | correct these annotations or remove them',
        category_id=0,
    ),
    entry(
        'A category id is a text',
        'annotations',
        'is a string | of others a number (5) | write all of them in one way',
        category_id='3',
    ),
    entry(
        'An image id is null',
        'images',
        'got [None] | the id of image 0 must be a whole number or a string | number the entries',
        id=[None],
    ),
    entry(
        'An image id is a fraction',
        'images',
        'got 7.5 | the id of image 0 must be a whole number or a string | number the entries',
        id=7.5,
    ),
    changed(
        'All image ids of annotations are texts',
        lambda c: [a.update(image_id=str(a['image_id'])) for a in c['annotations']],
        '"7", "9"; the file has | the file has 7, 9 | correct these annotations or remove them',
    ),
    entry(
        'Two images have one id',
        'images',
        'image id 9 occurs more than once | it must be unique | renumber or merge these entries',
        id=9,
    ),
    entry(
        'Two annotations have one id',
        'annotations',
        'annotation id 2 occurs more than once | it must be unique | renumber or merge these entries',
        id=2,
    ),
    entry(
        'Two categories have one id',
        'categories',
        'category id 5 occurs more than once | it must be unique | renumber or merge these entries',
        id=5,
    ),
    entry(
        'Two categories have one name',
        'categories',
        "category name 'dog' occurs more than once | it must be unique | renumber or merge these entries",
        name='dog',
    ),
    entry(
        'A category has a number as its name',
        'categories',
        'got 3 | the name of category 3 must be a string | write "3" with quotes in the file',
        name=3,
    ),
    entry(
        'A category has no name',
        'categories',
        'category 0 has no name | each needs id, name | add it, or remove the entry',
        name=None,
    ),
    entry(
        'A category has an empty name',
        'categories',
        "got '' | the name of category 3 must not be empty | name it in the file",
        name='',
    ),
    entry(
        'A category has another name than in the config',
        'categories',
        'the config has classes that the file does not | in the config (2): cat, dog | Give the data set',
        name='Cat',
    ),
    changed(
        'A category is not in the config',
        lambda c: c['categories'].append(dict(id=8, name='bird')),
        'the file has categories that the config does not, and | in the config (2): cat, dog | Give the data set',
    ),
    entry(
        'Two images are the same file',
        'images',
        "images 7 and 9 are the same file 'b.jpg' | the same file | list it once",
        file_name='b.jpg',
    ),
    entry(
        'A file name is missing',
        'images',
        'image 0 has no file_name | each needs id, file_name, height, width | add it, or remove the entry',
        file_name=None,
    ),
    entry(
        'A file name is empty',
        'images',
        "got '' | the file_name of image 7 must be a string that is | write the path of the file below data_prefix",
        file_name='',
    ),
    entry(
        'A file name has backslashes',
        'images',
        "the first is './images/images\\\\a.jpg' | lists 2 images | check data_root, data_prefix and the file names",
        file_name='images\\a.jpg',
    ),
    entry(
        'A file name is an absolute path of another machine',
        'images',
        "the first is '/data/coco/a.jpg' | lists 2 images | check data_root, data_prefix and the file names",
        file_name='/data/coco/a.jpg',
    ),
    entry(
        'A file name repeats the folder',
        'images',
        "the first is './images/images/a.jpg' | lists 2 images | check data_root, data_prefix and the file names",
        file_name='images/a.jpg',
    ),
    entry(
        'A file name has another extension',
        'images',
        "the first is './images/a.png' | lists 2 images | check data_root, data_prefix and the file names",
        file_name='a.png',
    ),
    entry(
        'A file name differs in case',
        'images',
        "the first is './images/A.JPG' | lists 2 images | check data_root, data_prefix and the file names",
        file_name='A.JPG',
    ),
    entry(
        'Width and height are missing',
        'images',
        'image 0 has no height, width | each needs id, file_name, height, width | add it, or remove the entry',
        width=None,
        height=None,
    ),
    entry(
        'A width is 0',
        'images',
        "got 0 | the width of image 7 ('a.jpg') must be a whole number of pixels | write the size of the image file",
        width=0,
    ),
    entry(
        'A width is a text',
        'images',
        "got '40' | the width of image 7 ('a.jpg') must be a whole number of | write the size of the image file",
        width='40',
    ),
    entry(
        'A width is a fraction',
        'images',
        "got 40.5 | the width of image 7 ('a.jpg') must be a whole number of | write the size of the image file",
        width=40.5,
    ),
    changed(
        'Width and height are swapped',
        lambda c: [i.update(width=30, height=40) for i in c['images']],
        '40x30 pixels | its annotation says 30x40 | correct the annotation file or the image',
    ),
    Case(
        'The metric has another annotation file than the data set',
        other_file_for_metric,
        'the data set has 2 images and the | is not that of the val data set | Set val_evaluator.ann_file to',
    ),
]


@each(CASES)
def test_broken_annotations(case, check):
    check(case)
