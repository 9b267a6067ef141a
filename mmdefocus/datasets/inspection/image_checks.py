"""Checks of the image files against their entries."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mmdefocus.datasets.image_files import IMAGE_SUFFIXES

from ..prepared.source_data import SourceSplit, Task
from .annotated_split import AnnotatedSplit, count_of, make_finding, part_of
from .findings import Example, Finding
from .image_facts import ImageFacts

_PROBLEMS = {
    'missing_file': 'without a file',
    'unreadable': 'that OpenCV cannot decode',
    'truncated': 'that end before their last pixel',
    'damaged': 'with corrupt data: a part of their pixels is wrong',
}
_COLOURS = {
    '16 bit': 'with 16 bits per channel: loading keeps the upper 8, which leaves little of a dark image',
    'CMYK': 'in CMYK: loading converts them to RGB without a colour profile, and colours shift',
}


def check_images(annotated: AnnotatedSplit, task: Task) -> list[Finding]:
    """Report files that cannot be used, sizes that differ, turned images, colour modes and files listed twice."""
    findings = []
    for kind, what in _PROBLEMS.items():
        paths = {path: facts.reason for path, facts in _files(annotated) if facts.problem == kind}
        findings += _image_finding(annotated, kind, paths, what)
    for colours, what in _COLOURS.items():
        paths = {path: colours for path, facts in _files(annotated) if facts.colours == colours}
        findings += _image_finding(annotated, 'colour_mode', paths, what)
    paths = {path: 'alpha channel' for path, facts in _files(annotated) if facts.colours == 'transparent'}
    what = 'with an alpha channel: loading drops it and shows the colours that transparent pixels hide'
    findings += _image_finding(annotated, 'transparent', paths, what)
    findings += _listed_twice(annotated)
    findings += _sizes(annotated) if task == 'detection' else _rotated_images(annotated)
    return findings


def find_unlisted(splits: Mapping[str, SourceSplit]) -> list[Finding]:
    """Report image files below the folders of the images that no split lists.

    Args:
        splits: All splits of the data.
    """
    paths = {
        os.path.abspath(split.image_root / image['file_name'])
        for split in splits.values()
        for image in split.content['images']
        if isinstance(image, dict) and isinstance(image.get('file_name'), str)
    }
    listed = {os.path.realpath(path) for path in paths}
    # Only folders that hold listed images: a root may hold pictures of other things.
    folders = sorted({os.path.dirname(path) for path in paths})
    extra = [path for folder in folders for path in _image_files(folder) if os.path.realpath(path) not in listed]
    examples = tuple(Example(path, detail='no entry') for path in extra)
    message = f'{count_of(len(extra), "image file")} beside the listed images, but in no annotation file.'
    return make_finding('unlisted', '', message, len(extra), examples)


def _image_files(folder: str) -> Iterable[str]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith('.') and entry.is_file()
        )


def _files(annotated: AnnotatedSplit) -> Iterable[tuple[str, ImageFacts]]:
    return ((annotated.path(image), annotated.path_facts(image)) for image in annotated.images)


def _image_finding(annotated: AnnotatedSplit, kind: str, paths: Mapping[str, str], what: str) -> list[Finding]:
    total = len({annotated.path(image) for image in annotated.images})
    message = f'{part_of(len(paths), total, "image")} {what}.'
    examples = tuple(Example(path, detail=detail) for path, detail in paths.items())
    return make_finding(kind, annotated.split.name, message, len(paths), examples)


def _listed_twice(annotated: AnnotatedSplit) -> list[Finding]:
    ids = defaultdict(list)
    for image in annotated.images:
        ids[os.path.normpath(annotated.path(image))].append(image['id'])
    repeated = {path: f'ids {", ".join(map(repr, one))}' for path, one in ids.items() if len(one) > 1}
    return _image_finding(annotated, 'listed_twice', repeated, 'with several entries')


def _rotated_images(annotated: AnnotatedSplit) -> list[Finding]:
    paths = {path: f'orientation {facts.orientation}' for path, facts in _files(annotated) if facts.orientation != 1}
    return _image_finding(annotated, 'rotated', paths, 'that loading turns upright')


def _sizes(annotated: AnnotatedSplit) -> list[Finding]:
    wrong: dict[str, str] = {}
    turned: dict[str, dict[str, str]] = {'rotated': {}, 'rotated_boxes': {}, 'rotation_unclear': {}}
    for image in annotated.images:
        path, facts = annotated.path(image), annotated.path_facts(image)
        if facts.size is None:
            continue
        entry = image.get('width'), image.get('height')
        kind = rotation_kind(entry, facts)
        if kind is not None:
            turned[kind][path] = f'orientation {facts.orientation}, entry {_size(entry)}, upright {_size(facts.size)}'
        elif entry != facts.size:
            wrong[path] = f'entry {_size(entry)}, file {_size(facts.size)}'
    return [
        *_image_finding(annotated, 'wrong_size', wrong, 'with another width or height than their entry says'),
        *_image_finding(
            annotated, 'rotated', turned['rotated'], 'that loading turns upright, with boxes for the upright picture'
        ),
        *_image_finding(
            annotated,
            'rotated_boxes',
            turned['rotated_boxes'],
            'that loading turns upright, with boxes for the picture as it is stored',
        ),
        *_image_finding(
            annotated,
            'rotation_unclear',
            turned['rotation_unclear'],
            'that loading turns upright, with boxes for the picture before or after that',
        ),
    ]


def rotation_kind(entry: tuple[object, object], facts: ImageFacts) -> str | None:
    """Return the kind of finding for an image with an EXIF orientation; None without, or if its size is wrong.

    Args:
        entry: Width and height of the entry.
        facts: What is known about the file.
    """
    if facts.orientation == 1 or facts.size is None:
        return None
    exchanged = facts.orientation >= 5 and facts.size[0] != facts.size[1]
    if entry == facts.size:
        return 'rotated' if exchanged else 'rotation_unclear'
    return 'rotated_boxes' if exchanged and entry == facts.size[::-1] else None


def _size(size: tuple[object, object]) -> str:
    return f'{size[0]}x{size[1]}'
