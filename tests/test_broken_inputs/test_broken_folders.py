"""Folders of images per class that a training cannot use."""

import shutil
from collections.abc import Callable
from pathlib import Path

from broken_inputs import Case, Workplace, each

INTRODUCTION = 'Folders of images per class, and lists of images with labels, in a training or test of a classifier.'


def folders(what: str, change: Callable[[Path], object], says: str, options: tuple[str, ...] = ()) -> Case:
    """A case in which the directory with ``train`` and ``val`` is changed."""

    def attempt(place: Workplace) -> str:
        change(place.root)
        return place.train('classifier.py', *(('--cfg-options', *options) if options else ()))

    return Case(what, attempt, says)


def images_at_the_top(root: Path) -> None:
    for name in ('cat', 'dog'):
        shutil.copy(root / 'train' / name / 'a.jpg', root / 'train' / f'{name}.jpg')
        shutil.rmtree(root / 'train' / name)


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def one_level_too_deep(root: Path) -> None:
    shutil.copytree(root / 'train', root / 'train' / 'train')
    for name in ('cat', 'dog'):
        shutil.rmtree(root / 'train' / name)


def replaced(folder: Path, content: str = '') -> None:
    shutil.rmtree(folder)
    folder.write_text(content)


def hidden(root: Path) -> None:
    for name in ('cat', 'dog'):
        (root / 'train' / name).rename(root / 'train' / f'.{name}')


def other_suffix(root: Path) -> None:
    for file in (root / 'train' / 'cat').iterdir():
        file.rename(file.with_suffix('.heic'))


def listing(what: str, lines: str, says: str, classes: str = "['cat','dog']") -> Case:
    """A case in which a file lists the images and labels."""
    data = 'train_dataloader.dataset'
    options = [f'{data}.ann_file=labels.txt', f'{data}.data_prefix=train', 'model.head.num_classes=2']
    if classes:
        options.append(f'{data}.classes={classes}')
    return folders(
        what,
        lambda root: (root / 'labels.txt').write_text(lines),
        says,
        options=(*options, 'data_preprocessor.num_classes=2'),
    )


def evaluation(what: str, change: Callable[[Path], object], says: str) -> Case:
    def attempt(place: Workplace) -> str:
        change(place.root)
        return place.test()

    return Case(what, attempt, says)


def damaged(root: Path) -> None:
    for image in (root / 'train').glob('*/*.jpg'):
        image.write_bytes(image.read_bytes()[:-300])


CASES = [
    folders(
        'There is no folder for training',
        lambda root: shutil.rmtree(root / 'train'),
        "'./train' | the folder that has a folder per split | set data_root to",
    ),
    folders(
        'There is no folder for validation',
        lambda root: shutil.rmtree(root / 'val'),
        "'./val' | the folder that has a folder per split | set data_root to",
    ),
    folders(
        'The folder is a file',
        lambda root: replaced(root / 'train'),
        "'./train' | the folder that has a folder per split | set data_root to",
    ),
    folders(
        'The folder is empty',
        lambda root: [shutil.rmtree(f) for f in (root / 'train').iterdir()],
        'no folder | a classifier needs at least two classes | move the images into such folders',
    ),
    folders(
        'Images are not in a folder per class',
        images_at_the_top,
        'no folder | a classifier needs at least two classes | move the images into such folders',
    ),
    folders(
        'There is one class only',
        lambda root: shutil.rmtree(root / 'train' / 'dog'),
        "only one folder, 'cat' | a classifier needs at least two classes | move the images into such folders",
    ),
    folders(
        'The classes are one folder deeper',
        one_level_too_deep,
        "only one folder, 'train' | a classifier needs at least two classes | move the images into such folders",
    ),
    folders(
        'A class has no images',
        lambda root: emptied(root / 'train' / 'dog'),
        'without an image: dog | images end in | Fill or remove these folders',
    ),
    folders(
        'A class has files of an unknown kind only',
        other_suffix,
        'without an image: cat | images end in | Fill or remove these folders',
    ),
    folders(
        'Validation: a class has no images',
        lambda root: emptied(root / 'val' / 'dog'),
        'without an image: dog | images end in | Fill or remove these folders',
    ),
    folders(
        'Validation: a class is missing',
        lambda root: shutil.rmtree(root / 'val' / 'dog'),
        'only in the folder none | only in the classes dog | Rename, add or remove folders',
    ),
    folders(
        'Validation: there is another class',
        lambda root: shutil.copytree(root / 'val/dog', root / 'val/cow'),
        'only in the folder cow | only in the classes none | Rename, add or remove folders',
    ),
    folders(
        'Validation: a class has another name',
        lambda root: (root / 'val/dog').rename(root / 'val/Dog'),
        'only in the folder Dog | only in the classes dog | Rename, add or remove folders',
    ),
    folders(
        'All folders are hidden',
        hidden,
        'no folder | a classifier needs at least two classes | move the images into such folders',
    ),
    folders(
        'Images are cut off',
        damaged,
        'image file is truncated (94 bytes not processed) | expected the whole file | restore it, or remove it',
    ),
    folders(
        'The root does not exist',
        lambda root: None,
        "'nowhere/train' | the folder that has a folder per split | set data_root to",
        options=('data_root=nowhere',),
    ),
    folders(
        'The classes of the config are not the folders',
        lambda root: None,
        'only in the folder dog | only in the classes cow | Rename, add or remove folders',
        options=("train_dataloader.dataset.classes=['cat','cow']",),
    ),
    folders(
        'The classes of the config repeat a name',
        lambda root: None,
        'got more than once: cat | classes must be distinct names | list each class once',
        options=("train_dataloader.dataset.classes=['cat','cat','dog']",),
    ),
    folders(
        'The file of the class names is missing',
        lambda root: None,
        "'names.txt' does not exist | file of class names | make it, or set",
        options=('train_dataloader.dataset.classes=names.txt',),
    ),
    listing(
        'A list of images has no class names',
        'cat/a.jpg 0\ndog/a.jpg 1\n',
        'labels as numbers | name them | name them with classes=',
        classes='',
    ),
    listing(
        'A list has a label beyond the classes',
        'cat/a.jpg 0\ndog/a.jpg 2\n',
        'the label 2 | labels must be from 0 to 1 | correct the label, or name more classes',
    ),
    listing(
        'A list has names in place of labels',
        'cat/a.jpg cat\ndog/a.jpg dog\n',
        'got \'cat/a.jpg cat\' | line 1 must be "path label" with a blank | write the position of the class in',
    ),
    listing(
        'A list has no labels',
        'cat/a.jpg\ndog/a.jpg\n',
        'got \'cat/a.jpg\' | line 1 must be "path label" with a blank | write the position of the class in classes',
    ),
    listing(
        'A list has commas',
        'cat/a.jpg,0\ndog/a.jpg,1\n',
        'got \'cat/a.jpg,0\' | line 1 must be "path label" with a blank | write the position of the class in',
    ),
    listing(
        'A list names a missing image',
        'cat/a.jpg 0\ndog/z.jpg 1\n',
        "the first is './train/dog/z.jpg' | lists 2 images | check data_root, data_prefix and the file names",
    ),
    listing(
        'A list is empty',
        '',
        'got an empty file | \'./labels.txt\' must list images | write a line "path label" for each',
    ),
    folders(
        'A list of images is missing',
        lambda root: None,
        "'./labels.txt' does not exist | annotation file | make it, or set",
        options=('train_dataloader.dataset.ann_file=labels.txt', "train_dataloader.dataset.classes=['cat','dog']"),
    ),
    evaluation(
        'Test: the folders have other classes than the checkpoint',
        lambda root: [(root / s / 'dog').rename(root / s / 'cow') for s in ('train', 'val')],
        'the data set has 2 classes (cat | the checkpoint has 2 classes (cat | give the data set the classes of the',
    ),
    evaluation(
        'Test: there is one more class than in the checkpoint',
        lambda root: [shutil.copytree(root / s / 'dog', root / s / 'cow') for s in ('train', 'val')],
        '4 of | does not fit the model | Use the config that the checkpoint was trained with',
    ),
]


@each(CASES)
def test_broken_folders(case, check):
    check(case)
