"""Checks of the entries of annotation files: keys, ids and references."""

from collections import Counter
from typing import Any

from mmdefocus.datasets.coco_values import is_number

from ..prepared.source_data import Task
from .annotated_split import AnnotatedSplit, count_of, is_box, is_id, make_finding, part_of
from .findings import Example, Finding


def check_entries(annotated: AnnotatedSplit, task: Task) -> list[Finding]:
    """Report entries that cannot be interpreted, ids that are not unique, and references to nothing."""
    findings = [*_malformed(annotated), *_ambiguous(annotated), *_unknown_categories(annotated, task)]
    if task == 'detection':
        findings += [*_duplicate_ids(annotated), *_strays(annotated), *_invalid_boxes(annotated)]
        findings += [*_invalid_areas(annotated), *_problems(annotated)]
    return findings


def _malformed(annotated: AnnotatedSplit) -> list[Finding]:
    content, examples = annotated.split.content, []
    for listed, keys in (
        ('images', ('id', 'file_name')),
        ('categories', ('id', 'name')),
        ('annotations', ('image_id', 'category_id')),
    ):
        for position, entry in enumerate(content.get(listed, [])):
            wrong = not isinstance(entry, dict) or [
                key
                for key in keys
                if not (isinstance(entry.get(key), str) if key in ('file_name', 'name') else is_id(entry.get(key)))
            ]
            if wrong:
                what = 'is no object' if wrong is True else f'has no usable {", ".join(wrong)}'
                examples.append(Example('', detail=f'entry {position} of {listed} {what}'))
    message = f'{count_of(len(examples), "entry")} without what every entry needs; mmdefocus cannot use the file.'
    return make_finding('malformed', annotated.split.name, message, len(examples), tuple(examples))


def _ambiguous(annotated: AnnotatedSplit) -> list[Finding]:
    content, examples = annotated.split.content, []
    for listed, key in (('images', 'id'), ('categories', 'id'), ('categories', 'name')):
        values = (entry.get(key) for entry in content[listed] if isinstance(entry, dict))
        for value, count in _repeated(values):
            examples.append(Example('', detail=f'{key} {value!r} of {listed}: {count} times'))
    message = f'Images or categories share {count_of(len(examples), "id")} or names.'
    return make_finding('ambiguous_ids', annotated.split.name, message, len(examples), tuple(examples))


def _duplicate_ids(annotated: AnnotatedSplit) -> list[Finding]:
    repeated = _repeated(ann.get('id') for ann in annotated.annotations)
    lacking = sum(not is_id(ann.get('id')) for ann in annotated.annotations)
    examples = tuple(Example('', None, value, f'id {value!r}: {count} times') for value, count in repeated)
    message = (
        f'{count_of(len(repeated), "id")} of several annotations; {count_of(lacking, "annotation")} without an id.'
    )
    return make_finding('duplicate_ids', annotated.split.name, message, len(repeated) + lacking, examples)


def _repeated(values: Any) -> list[tuple[Any, int]]:
    return [(value, count) for value, count in Counter(one for one in values if is_id(one)).items() if count > 1]


def _strays(annotated: AnnotatedSplit) -> list[Finding]:
    strays = [ann for ann in annotated.annotations if ann['image_id'] not in annotated.images_by_id]
    examples = tuple(
        Example('', _box(ann), ann.get('id'), f'refers to image {ann["image_id"]!r}, which is not listed')
        for ann in strays
    )
    message = f'{part_of(len(strays), len(annotated.annotations), "annotation")} of images that the file does not list.'
    return make_finding('unknown_image', annotated.split.name, message, len(strays), examples)


def _unknown_categories(annotated: AnnotatedSplit, task: Task) -> list[Finding]:
    labelled = annotated.annotations if task == 'detection' else annotated.images
    unknown = [entry for entry in labelled if not _is_known(annotated, entry.get('category_id'))]
    images = annotated.images_by_id
    examples = tuple(
        Example(
            annotated.path(images[key]) if (key := entry.get('image_id', entry.get('id'))) in images else '',
            _box(entry),
            entry.get('id'),
            f'refers to category {entry.get("category_id")!r}, which is not listed',
        )
        for entry in unknown
    )
    what = part_of(len(unknown), len(labelled), 'annotation' if task == 'detection' else 'image')
    message = f'{what} of categories that the data does not list.'
    return make_finding('unknown_category', annotated.split.name, message, len(unknown), examples)


def _is_known(annotated: AnnotatedSplit, category: Any) -> bool:
    return is_id(category) and category in annotated.names


def _invalid_boxes(annotated: AnnotatedSplit) -> list[Finding]:
    images = annotated.images_by_id
    # YOLO boxes have no pixels where the size of the image is unknown; the image is reported.
    invalid = [
        ann
        for ann in annotated.annotations
        if not is_box(ann.get('bbox'))
        and not (ann.get('bbox') is None and _has_problem(annotated, images.get(ann['image_id'])))
    ]
    examples = tuple(
        Example(
            annotated.path(images[ann['image_id']]) if ann['image_id'] in images else '',
            None,
            ann.get('id'),
            f'bbox {ann.get("bbox")!r}',
        )
        for ann in invalid
    )
    message = f'{part_of(len(invalid), len(annotated.annotations), "box")} without four finite numbers.'
    return make_finding('invalid_box', annotated.split.name, message, len(invalid), examples)


def _has_problem(annotated: AnnotatedSplit, image: Any) -> bool:
    return image is not None and annotated.path_facts(image).problem is not None


def _invalid_areas(annotated: AnnotatedSplit) -> list[Finding]:
    positions = [position for position, ann in enumerate(annotated.boxed) if invalid_values(ann)]
    message = (
        f'{part_of(len(positions), len(annotated.boxed), "annotation")} with a wrong area or iscrowd: training drops '
        'boxes whose area is 0.'
    )
    return annotated.box_finding(
        'invalid_area',
        positions,
        message,
        lambda one: ', '.join(f'{key} {value!r}' for key, value in invalid_values(annotated.boxed[one]).items()),
    )


def invalid_values(ann: dict[str, Any]) -> dict[str, Any]:
    """Return area and iscrowd of an annotation where it has them and they are wrong; absent ones are added later.

    Args:
        ann: Annotation whose box is four finite numbers.
    """
    wrong = {}
    if 'area' in ann:
        least = 0 if min(ann['bbox'][2:]) < 1 else 1e-9
        if not is_number(ann['area']) or ann['area'] < least:
            wrong['area'] = ann['area']
    if ann.get('iscrowd', 0) not in (0, 1):
        wrong['iscrowd'] = ann['iscrowd']
    return wrong


def _problems(annotated: AnnotatedSplit) -> list[Finding]:
    findings = []
    for kind, problems in (
        ('unreadable_label', [one for one in annotated.split.problems if one.kind != 'label-without-image']),
        ('label_without_image', [one for one in annotated.split.problems if one.kind == 'label-without-image']),
    ):
        message = f'{count_of(len(problems), "label")} that cannot be used.'
        examples = tuple(Example('', detail=one.message) for one in problems)
        findings += make_finding(kind, annotated.split.name, message, len(problems), examples)
    return findings


def _box(entry: dict[str, Any]) -> tuple[float, float, float, float] | None:
    return tuple(entry['bbox']) if is_box(entry.get('bbox')) else None
