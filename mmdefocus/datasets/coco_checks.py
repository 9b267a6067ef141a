"""Checks of COCO-format annotations. Messages name the expected form, the value found and the remedy."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmdefocus.datasets.coco_values import check_boxes, check_category_names, check_ids, check_images
from mmdefocus.datasets.errors import DataError

_IMAGE_KEYS = ('id', 'file_name', 'height', 'width')
_BOX_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')


def read_coco(path: str | Path, name: str, test_mode: bool) -> dict[str, Any]:
    """Read a COCO-format annotation file and check everything that can be checked without images.

    Args:
        path: Local file.
        name: Name of the file in messages.
        test_mode: The file is for testing. It may then lack annotations (as COCO's ``image_info`` files) and with them
            categories; present annotations need ``iscrowd``, which the evaluation reads.

    Returns:
        The content with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: The file is not JSON, not in COCO format, or contradictory.
    """
    content = load_coco(path, name, test_mode)
    check_keys(name, 'image', content['images'], _IMAGE_KEYS)
    check_keys(name, 'category', content['categories'], ('id', 'name'))
    check_keys(name, 'annotation', content['annotations'], (*_BOX_KEYS, 'iscrowd') if test_mode else _BOX_KEYS)
    if not content['images']:
        raise DataError(f'annotation file {name} must list images, got an empty list; export it again')
    for kind, listed in (('image', 'images'), ('category', 'categories'), ('annotation', 'annotations')):
        check_ids(name, kind, 'id', content[listed])
    for key in ('image_id', 'category_id'):
        check_ids(name, 'annotation', key, content['annotations'])
    check_category_names(name, content['categories'])
    check_unique(name, 'image', 'id', content['images'])
    check_unique(name, 'category', 'id', content['categories'])
    check_unique(name, 'category', 'name', content['categories'])
    check_unique(name, 'annotation', 'id', content['annotations'])
    check_images(name, content['images'])
    check_references(name, content)
    check_boxes(name, content['annotations'])
    return content


def load_coco(path: str | Path, name: str, test_mode: bool) -> dict[str, Any]:
    """Read a COCO-format annotation file whose entries may be wrong.

    Args:
        path: Local file.
        name: Name of the file in messages.
        test_mode: The file may lack annotations and with them categories.

    Returns:
        The content with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: The file is not JSON, or lacks one of the lists.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        start = Path(path).read_bytes()[:40]
        raise DataError(
            f'annotation file {name} is not valid JSON ({error}); it begins with {start!r}; {_remedy(start)}'
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f'annotation file {name} is not in COCO format: expected an object with images, annotations and '
            f'categories, got a {type(content).__name__}; convert the annotations to COCO format'
        )
    if test_mode:
        content.setdefault('annotations', [])
        if not content['annotations']:
            content.setdefault('categories', [])
    keys = ('images', 'annotations', 'categories')
    missing = [key for key in keys if not isinstance(content.get(key), list)]
    if missing:
        raise DataError(
            f'annotation file {name} is not in COCO format: expected the lists {", ".join(keys)}; '
            f'no list {", ".join(missing)}, found {", ".join(map(str, content)) or "nothing"}; convert the annotations '
            'to COCO format'
        )
    return content


def _remedy(start: bytes) -> str:
    if start.startswith(b'version https://git-lfs'):
        return 'it is a Git LFS pointer: run "git lfs pull"'
    if start.startswith((b'\xff\xfe', b'\xfe\xff')):
        return 'it is in UTF-16: save it in UTF-8'
    if start.startswith((b'\x1f\x8b', b'PK')):
        return 'it is compressed: unpack it'
    return 'download it or export it again as one JSON object in COCO format'


def check_keys(name: str, kind: str, entries: Sequence[Any], keys: Sequence[str]) -> None:
    """Raise ``DataError`` unless every entry is an object with all ``keys``."""
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(
                f'{name}: {kind} {position} must be an object with {", ".join(keys)}, got {entry!r}; write or export '
                'it again in COCO format'
            )
        missing = [key for key in keys if key not in entry]
        if missing:
            remedy = '; add it, or remove the entry'
            if 'area' in missing:
                remedy = '; area may be the width times the height of the box'
            elif 'iscrowd' in missing:
                remedy = '; iscrowd is 0 for a single object'
            raise DataError(
                f'{name}: {kind} {position} has no {", ".join(missing)}; each needs {", ".join(keys)}{remedy}'
            )


def check_unique(name: str, kind: str, key: str, entries: Sequence[dict[str, Any]]) -> None:
    """Raise ``DataError`` if two entries share a value of ``key``."""
    seen = set()
    for entry in entries:
        if entry[key] in seen:
            raise DataError(
                f'{name}: the {kind} {key} {entry[key]!r} occurs more than once; it must be unique: '
                'renumber or merge these entries'
            )
        seen.add(entry[key])


def check_references(name: str, content: dict[str, Any]) -> None:
    """Raise ``DataError`` if an annotation refers to an image or a category that the file does not list."""
    for kind in ('image', 'category'):
        listed = 'images' if kind == 'image' else 'categories'
        ids = {entry['id'] for entry in content[listed]}
        strays = [ann for ann in content['annotations'] if ann[f'{kind}_id'] not in ids]
        if strays:
            article = 'an' if kind == 'image' else 'a'
            unknown = {ann[f'{kind}_id'] for ann in strays}
            quotes = (
                '; 1 and "1" are different ids' if {str(one) for one in unknown} & {str(one) for one in ids} else ''
            )
            raise DataError(
                f'{name}: {len(strays)} annotations (the first has id {strays[0]["id"]!r}) have {article} '
                f"{kind}_id that is not in the file's {listed}: {_listed(unknown)}; the file has {_listed(ids)}{quotes}"
                f'; correct these annotations or remove them, or add the {listed}'
            )


def check_classes(
    name: str, file_classes: Sequence[str], classes: Any, allow_missing: bool, optional: bool = False
) -> None:
    """Compare a file's categories with a config's classes.

    Args:
        name: Name of the file in messages.
        file_classes: Names of the categories in the order of the file.
        classes: ``classes`` of the data set's ``metainfo``, in any order.
        allow_missing: Accept categories that are not in ``classes``.
        optional: Accept a file without categories.

    Raises:
        DataError: ``classes`` is not a list or tuple of distinct names, or does not match the categories.
    """
    if not isinstance(classes, (list, tuple)) or not all(isinstance(entry, str) for entry in classes):
        hint = f"; for a single class write classes=('{classes}',)" if isinstance(classes, str) else ''
        raise DataError(f'metainfo: classes must be a tuple of names, got {classes!r}{hint}')
    check_distinct(classes)
    if optional and not file_classes:
        return
    only_file = [entry for entry in file_classes if entry not in classes]
    only_config = [entry for entry in classes if entry not in file_classes]
    if only_config:
        problem = f'the config has classes that the file does not: {abbreviate(only_config)}'
    elif only_file and not allow_missing:
        problem = (
            f'the file has categories that the config does not, and their boxes would be lost: {abbreviate(only_file)}'
        )
    else:
        return
    line = ', '.join(repr(entry) for entry in file_classes) + (',' if len(file_classes) == 1 else '')
    ignore = '' if only_config else ', or allow_missing_categories=True to ignore the other categories'
    raise DataError(
        f'{name}: the categories do not match the classes of the config: {problem}.\n'
        f'  in the file ({len(file_classes)}): {abbreviate(file_classes)}\n'
        f'  in the config ({len(classes)}): {abbreviate(classes)}\n'
        f'Give the data set\n  metainfo=dict(classes=({line}))\nand the head num_classes={len(file_classes)}{ignore}.'
    )


def check_distinct(classes: Sequence[str]) -> None:
    """Raise ``DataError`` if a class is listed twice."""
    twice = [entry for entry, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(
            f'classes must be distinct names, got more than once: {abbreviate(twice)}; list each class once'
        )


def check_category_ids(name: str, classes: Sequence[str], ids: Sequence[Any], configured: Any) -> None:
    """Compare the ids of a file's categories with ``category_ids`` of the config.

    Args:
        name: Name of the file in messages.
        classes: Names of the classes.
        ids: Ids in the file, or in the config if the file has no categories; one per class, or none at all.
        configured: ``category_ids`` of the data set's ``metainfo``; None without.

    Raises:
        DataError: They differ, or ``category_ids`` are not one distinct id per class.
    """
    if configured is None:
        return
    if len(set(configured)) != len(classes) or len(configured) != len(classes):
        raise DataError(
            f'metainfo: category_ids must have a distinct id for each of the {len(classes)} classes, in their order, '
            f'got {configured!r}'
        )
    differing = [
        f'{entry} ({json.dumps(own)} in the file, {json.dumps(other)} in the config)'
        for entry, own, other in zip(classes, ids, configured, strict=True)
        if own != other
    ]
    if differing:
        raise DataError(
            f'{name}: the ids of the categories are not those of metainfo.category_ids: {abbreviate(differing)}; '
            'remove category_ids from metainfo, as the file has ids'
        )


def abbreviate(values: Iterable[Any], most: int = 20) -> str:
    """Join values with commas, at most ``most`` of them."""
    listed = [str(value) for value in values]
    more = f', … ({len(listed)} in all)' if len(listed) > most else ''
    return ', '.join(listed[:most]) + more or 'none'


def _listed(ids: Iterable[Any]) -> str:
    """List ids as JSON, which distinguishes 1 and ``"1"``."""
    return abbreviate(json.dumps(one) for one in sorted(ids))
