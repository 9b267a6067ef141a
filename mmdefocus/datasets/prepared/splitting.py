"""A validation split from the training images: stratified by classes, seeded, independent of the order of files."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.equal_files import group_equal_files
from mmdefocus.datasets.prepared.source_data import SourceData, SourceSplit
from mmdefocus.datasets.prepared.split_names import SPLITS

# Roboflow writes the augmented copies of a.jpg as a_jpg.rf.<hash>.jpg.
_AUGMENTED = re.compile(r'^(.+)\.rf\.[0-9a-zA-Z]+\.\w+$')


def split_data(source: SourceData, val_fraction: float = 0.2, seed: int = 0) -> SourceData:
    """Make ``val`` from ``train`` if there is none.

    The classes are spread by iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011): the rarest class first,
    each image to the side that lacks it most. Files with equal bytes, and augmented copies of Roboflow (``name.rf.*``),
    stay on one side. Equal file names and annotations give an equal split, whatever their order.

    Args:
        source: A data set; returned unchanged if it has ``val``.
        val_fraction: Part of the images for ``val``, between 0 and 1.
        seed: Seed of the choice between equally good images, at least 0.

    Returns:
        The data set with ``train`` and ``val``, and notes. A class with at least two images (groups of equal images
        count once) is in both splits; a note lists the classes for which this is impossible.

    Raises:
        DataError: There is no ``train``, it has fewer than two different images, or an argument is out of range.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f'val_fraction must be between 0 and 1, got {val_fraction!r}; 0.2 is usual')
    if seed < 0:
        raise DataError(f'seed must not be negative, got {seed!r}')
    if 'train' not in source.splits:
        raise DataError(
            f'{source.root} has {", ".join(source.splits)} but no train; expected a split for training: name its '
            'folder or file train'
        )
    if 'val' in source.splits:
        return source
    train = source.splits['train']
    groups = _groups(train)
    if len(groups) < 2:
        raise DataError(
            f'{source.root}: train has {len(groups)} different images; expected at least two, to take some for '
            'validation: add images, or a split val'
        )
    classes = _classes_of_images(train.content)
    members = [frozenset().union(*(classes[number] for number in group)) for group in groups]
    chosen = _stratify(members, [len(group) for group in groups], val_fraction, seed)
    val_positions = {number for group, is_val in zip(groups, chosen, strict=True) if is_val for number in group}
    parts = {
        'train': _part(train, 'train', {*range(len(train.content['images']))} - val_positions),
        'val': _part(train, 'val', val_positions),
    }
    total = len(train.content['images'])
    notes = [
        f'{len(val_positions)} of {total} training images are taken for validation, stratified by classes '
        f'(val_fraction {val_fraction:g}, seed {seed}), as there is no val.'
    ]
    if 'test' in source.splits:
        notes.append('The test split is not used for validation.')
    names = {category['id']: category['name'] for category in train.content['categories'] if 'id' in category}
    counts = Counter(one for group in members for one in group)
    for is_val, side in ((True, 'val'), (False, 'train')):
        present = {one for group, where in zip(members, chosen, strict=True) if where == is_val for one in group}
        if lacking := sorted(str(names.get(one, one)) for one in counts if one not in present):
            notes.append(f'{side}: no image has the classes {abbreviate(lacking)}; too few different images have them.')
    splits = {**source.splits, **parts}
    return replace(
        source,
        splits={split: splits[split] for split in SPLITS if split in splits},
        notes=(*source.notes, *notes),
    )


def _groups(split: SourceSplit) -> list[list[int]]:
    """Return positions of images that belong together, in an order that depends on the file names only."""
    images = split.content['images']
    names = [str(image.get('file_name', '')) for image in images]
    order = sorted(range(len(images)), key=lambda position: names[position])
    keys: dict[str, str] = {}
    for group in group_equal_files(dict.fromkeys(split.image_root / names[position] for position in order)):
        keys |= dict.fromkeys((str(path) for path in group), str(group[0]))
    # Two rules may connect more than two images: equal bytes of one copy, equal origin of another.
    parents: dict[str, str] = {}

    def find(key: str) -> str:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    for name in (names[position] for position in order):
        path = str(split.image_root / name)
        match = _AUGMENTED.match(path)
        for other in (keys.get(path), match and f'{match[1]}.rf'):
            if other:
                parents[find(path)] = find(other)
    groups: dict[str, list[int]] = defaultdict(list)
    for position in order:
        groups[find(str(split.image_root / names[position]))].append(position)
    return list(groups.values())


def _classes_of_images(content: dict[str, Any]) -> list[frozenset[Any]]:
    classes: dict[Any, set[Any]] = defaultdict(set)
    for ann in content['annotations']:
        classes[ann.get('image_id')].add(ann.get('category_id'))
    return [
        frozenset({image['category_id']} if 'category_id' in image else classes.get(image.get('id'), ()))
        for image in content['images']
    ]


def _stratify(members: Sequence[frozenset[Any]], sizes: Sequence[int], fraction: float, seed: int) -> list[bool]:
    """Return for every group whether it goes to ``val``."""
    order = np.random.default_rng(seed).permutation(len(members)).tolist()
    having: dict[Any, list[int]] = defaultdict(list)
    for number in order:
        for one in members[number]:
            having[one].append(number)
    totals = Counter({one: len(numbers) for one, numbers in having.items()})
    wanted = {one: max(1.0, fraction * count) if count > 1 else fraction for one, count in totals.items()}
    lacking = {True: dict(wanted), False: {one: totals[one] - wanted[one] for one in totals}}
    images = sum(sizes)
    val_images = min(max(1.0, fraction * images), images - 1.0)
    space = {True: val_images, False: images - val_images}
    placed: dict[int, bool] = {}

    def place(number: int, is_val: bool) -> None:
        placed[number] = is_val
        space[is_val] -= sizes[number]
        for one in members[number]:
            lacking[is_val][one] -= 1

    remaining = Counter(totals)
    while remaining := +remaining:
        rarest = min(remaining, key=lambda one: (remaining[one], str(one)))
        for number in having[rarest]:
            if number in placed:
                continue
            # A single image of a class is for training.
            needs = {side: (lacking[side][rarest], space[side]) for side in (True, False)}
            place(number, totals[rarest] > 1 and needs[True] > needs[False])
            remaining.subtract(members[number])
    for number in order:
        if number not in placed:
            place(number, space[True] > space[False])
    chosen = [placed[number] for number in range(len(members))]
    _repair(chosen, members, totals, order)
    return chosen


def _repair(chosen: list[bool], members: Sequence[frozenset[Any]], totals: Counter[Any], order: Sequence[int]) -> None:
    """Move groups so that both sides have some, and every class with two groups, where no other class is lost."""
    on_side = {side: Counter[Any]() for side in (True, False)}
    for is_val, group in zip(chosen, members, strict=True):
        on_side[is_val].update(group)
    for one in sorted(totals, key=lambda one: (totals[one], str(one))):
        for side in (True, False):
            if totals[one] < 2 or on_side[side][one]:
                continue
            movable = [
                number
                for number in order
                if one in members[number]
                and all(on_side[not side][other] > 1 or totals[other] < 2 for other in members[number])
                and (not side or all(totals[other] > 1 for other in members[number]))
            ]
            if movable:
                number = min(movable, key=lambda number: len(members[number]))
                chosen[number] = side
                on_side[side].update(members[number])
                on_side[not side].subtract(members[number])
    for side in (True, False):
        if side not in chosen:
            unique = [any(totals[one] < 2 for one in group) for group in members]
            chosen[min(order, key=lambda number: (unique[number], len(members[number])))] = side


def _part(train: SourceSplit, name: str, positions: set[int]) -> SourceSplit:
    images = [image for position, image in enumerate(train.content['images']) if position in positions]
    ids = {image.get('id') for image in images}
    others = {image.get('id') for image in train.content['images']} - ids
    # Annotations without an image stay in train, so that the checks find them.
    annotations = [
        ann
        for ann in train.content['annotations']
        if ann.get('image_id') in ids or (name == 'train' and ann.get('image_id') not in others)
    ]
    content = dict(train.content, images=images, annotations=annotations)
    return replace(train, name=name, content=content, problems=train.problems if name == 'train' else ())
