"""Mistakes by the kind of the finding that they cause. Each has exactly this mistake."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from small_sets import HEIGHT, WIDTH, Break, draw

Content = dict[str, Any]


def set_box(box: list[Any]) -> Break:
    def change(content: Content, folder: Path) -> None:
        content['annotations'][0]['bbox'] = box

    return change


def corners(content: Content, folder: Path) -> None:
    for ann in content['annotations']:
        x, y, w, h = ann['bbox']
        ann['bbox'] = [x + 5, y + 20, x + 5 + w, y + 20 + min(h, 13)]


def normalised(content: Content, folder: Path) -> None:
    for ann in content['annotations']:
        ann['bbox'] = [side / (WIDTH, HEIGHT)[number % 2] for number, side in enumerate(ann['bbox'])]


def twin(content: Content, folder: Path) -> None:
    content['annotations'].append(dict(content['annotations'][0], id=900))


def no_category(content: Content, folder: Path) -> None:
    content['annotations'].append(dict(content['annotations'][0], id=900, category_id=7))


def no_image(content: Content, folder: Path) -> None:
    content['annotations'].append(dict(content['annotations'][0], id=900, image_id='x'))


def same_id(content: Content, folder: Path) -> None:
    content['annotations'][1]['id'] = content['annotations'][0]['id']


def same_image_id(content: Content, folder: Path) -> None:
    content['images'][-1]['id'] = 3
    content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] != 6]


def malformed(content: Content, folder: Path) -> None:
    content['annotations'].append(dict(id=900))


def area_of_nothing(content: Content, folder: Path) -> None:
    content['annotations'][0]['area'] = 0


def missing(content: Content, folder: Path) -> None:
    (folder / '0.jpg').unlink()


def no_jpeg(content: Content, folder: Path) -> None:
    (folder / '0.jpg').write_bytes(b'no image')


def half(content: Content, folder: Path) -> None:
    data = (folder / '0.jpg').read_bytes()
    (folder / '0.jpg').write_bytes(data[: len(data) // 2])


def damaged(content: Content, folder: Path) -> None:
    data = (folder / '0.jpg').read_bytes()
    middle = (data.rindex(b'\xff\xda') + len(data)) // 2
    (folder / '0.jpg').write_bytes(data[:middle] + b'\xff\xd0' * 40 + data[middle + 80 :])


def twice(content: Content, folder: Path) -> None:
    content['images'].append(dict(content['images'][0], id=99, file_name='./0.jpg'))
    content['annotations'] += [dict(content['annotations'][0], id=900, image_id=99, bbox=[40, 44, 16, 16])]


def unlisted(content: Content, folder: Path) -> None:
    draw(folder / 'other.jpg', 77)


def size(content: Content, folder: Path) -> None:
    content['images'][0]['width'] = WIDTH + 10


def turn(orientation: int, stored: tuple[int, int], entry: tuple[int, int]) -> Break:
    def change(content: Content, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        draw(folder / '0.jpg', 3, stored, exif=exif)
        content['images'][0].update(width=entry[0], height=entry[1])
        if entry[0] < WIDTH:
            for ann in content['annotations']:
                if ann['image_id'] == 1:
                    ann['bbox'] = [ann['bbox'][1], ann['bbox'][0] * 0.6, 14, 12]

    return change


def sixteen_bits(content: Content, folder: Path) -> None:
    (folder / '0.jpg').unlink()
    Image.fromarray(np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 9).save(folder / '0.png')
    content['images'][0]['file_name'] = '0.png'


def cmyk(content: Content, folder: Path) -> None:
    with Image.open(folder / '0.jpg') as image:
        image.convert('CMYK').save(folder / '0.jpg', quality=95)


def alpha(content: Content, folder: Path) -> None:
    with Image.open(folder / '0.jpg') as image:
        image.convert('RGBA').save(folder / '0.png')
    (folder / '0.jpg').unlink()
    content['images'][0]['file_name'] = '0.png'


def crowd(content: Content, folder: Path) -> None:
    content['annotations'][0]['iscrowd'] = 1


def whole(content: Content, folder: Path) -> None:
    content['annotations'].append(dict(content['annotations'][0], id=900, bbox=[0, 0, WIDTH, HEIGHT]))


def many(content: Content, folder: Path) -> None:
    content['annotations'] += [
        dict(content['annotations'][0], id=900 + one, bbox=[one, 45, 10, 10 + one % 9]) for one in range(80)
    ]


def background(content: Content, folder: Path) -> None:
    draw(folder / '9.jpg', 99)
    content['images'].append(dict(content['images'][0], id=9, file_name='9.jpg'))


def nothing(content: Content, folder: Path) -> None:
    content['annotations'] = []


def unused(content: Content, folder: Path) -> None:
    content['categories'].append(dict(id=9, name='horse'))


def other_ids(content: Content, folder: Path) -> None:
    for entry in content['categories']:
        entry['id'] = 3 - entry['id']
    for ann in content['annotations']:
        ann['category_id'] = 3 - ann['category_id']


def no_dogs(content: Content, folder: Path) -> None:
    content['annotations'] = [ann for ann in content['annotations'] if ann['category_id'] == 1]


def few_dogs(content: Content, folder: Path) -> None:
    content['annotations'] = [ann for ann in content['annotations'] if ann['category_id'] == 1 or ann['image_id'] == 1]


def much_more(content: Content, folder: Path) -> None:
    few = few_dogs
    few(content, folder)
    cats = [ann for ann in content['annotations'] if ann['category_id'] == 1]
    content['annotations'] += [
        dict(cats[0], id=900 + one, image_id=1 + one % 4, bbox=[one % 50, 20 + one // 50, 10, 10]) for one in range(300)
    ]


def copied(content: Content, folder: Path) -> None:
    shutil.copy(folder.parent / 'train' / '1.jpg', folder / '2.jpg')


# Kind: split, change, repairs after which the finding is gone.
MISTAKES: dict[str, tuple[str, Break, tuple[str, ...]]] = {
    'malformed': ('train', malformed, ()),
    'ambiguous_ids': ('train', same_image_id, ()),
    'duplicate_ids': ('train', same_id, ('ids',)),
    'unknown_image': ('train', no_image, ('strays',)),
    'unknown_category': ('val', no_category, ('categories',)),
    'invalid_area': ('train', area_of_nothing, ('area',)),
    'missing_file': ('train', missing, ('unreadable',)),
    'unreadable': ('train', no_jpeg, ('unreadable',)),
    'truncated': ('train', half, ('unreadable',)),
    'damaged': ('train', damaged, ('unreadable',)),
    'listed_twice': ('train', twice, ('merge',)),
    'unlisted': ('train', unlisted, ()),
    'wrong_size': ('train', size, ('sizes',)),
    'rotated': ('train', turn(6, (WIDTH, HEIGHT), (HEIGHT, WIDTH)), ()),
    'rotated_boxes': ('train', turn(6, (WIDTH, HEIGHT), (WIDTH, HEIGHT)), ('orientation',)),
    'rotation_unclear': ('train', turn(3, (WIDTH, HEIGHT), (WIDTH, HEIGHT)), ()),
    'colour_mode': ('train', cmyk, ()),
    'transparent': ('train', alpha, ()),
    'invalid_box': ('train', set_box([1, 2, float('nan'), 9]), ('invalid',)),
    'xyxy': ('train', corners, ('xyxy',)),
    'normalised': ('train', normalised, ()),
    'outside': ('train', set_box([200, 10, 20, 20]), ('empty',)),
    'empty': ('train', set_box([20, 10, 0, 20]), ('empty',)),
    'partly_outside': ('train', set_box([80, 10, 30, 20]), ('clip',)),
    'twins': ('train', twin, ('twins',)),
    'crowds': ('train', crowd, ()),
    'tiny': ('train', set_box([20, 10, 5, 20]), ()),
    'whole_image': ('train', whole, ()),
    'too_many': ('train', many, ()),
    'no_objects': ('train', background, ()),
    'few_examples': ('train', few_dogs, ()),
    'class_in_one_split': ('val', no_dogs, ()),
    'category_ids': ('val', other_ids, ('categories',)),
    'duplicates': ('val', copied, ('duplicates',)),
}
