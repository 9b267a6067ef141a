"""Repairs of a data set by name. The source is never changed; the result is a new one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..prepared.source_data import SourceData
from .annotated_split import AnnotatedSplit
from .box_repairs import clip_boxes, convert_corners, drop_empty, drop_twins
from .category_repair import repair_categories
from .findings import DataReport
from .split_repairs import (
    Repaired,
    correct_areas,
    drop_images,
    drop_invalid,
    drop_strays,
    drop_unreadable,
    merge_images,
    number_annotations,
    take_sizes,
    turn_boxes,
)

# In the order in which they are applied: later ones need the results of earlier ones.
_SPLIT_REPAIRS: dict[str, tuple[Callable[[AnnotatedSplit], Repaired], str]] = {
    'unreadable': (drop_unreadable, 'dropped {} images that cannot be used, with their boxes'),
    'merge': (merge_images, 'merged {} further entries of images into the first'),
    'sizes': (take_sizes, 'gave {} images the size of their file'),
    'orientation': (turn_boxes, 'turned the boxes of {} images as loading turns the images'),
    'strays': (drop_strays, 'dropped {} annotations of unknown images'),
    'invalid': (drop_invalid, 'dropped {} boxes that are not four finite numbers'),
    'xyxy': (convert_corners, 'converted {} boxes from corners to corner and size'),
    'clip': (clip_boxes, 'clipped {} boxes to their image'),
    'empty': (drop_empty, 'dropped {} boxes that are empty or outside their image'),
    'twins': (drop_twins, 'dropped {} boxes that repeat another'),
    'area': (correct_areas, 'replaced wrong area or iscrowd of {} annotations by the area of mask or box, and 0'),
    'ids': (number_annotations, 'numbered {} annotations anew'),
}
REPAIRS = (*_SPLIT_REPAIRS, 'labels', 'duplicates', 'categories')


def repair_data(source: SourceData, report: DataReport, kinds: Sequence[str]) -> tuple[SourceData, list[str]]:
    """Repair a data set. Neither the source nor any file is changed.

    Args:
        source: The data as they were found.
        report: Their report, which knows the image files.
        kinds: Names of repairs, of :data:`REPAIRS`, in any order.

    Returns:
        The repaired data, and one sentence with numbers for each repair.

    Raises:
        ValueError: A repair is unknown.
        DataError: A repair is not possible; the message says why.
    """
    unknown = [kind for kind in kinds if kind not in REPAIRS]
    if unknown:
        raise ValueError(f'repairs must be of {", ".join(REPAIRS)}, got {", ".join(map(repr, unknown))}')
    sentences = []
    for kind in (one for one in REPAIRS if one in kinds):
        source, sentence = _repair(source, report, kind)
        sentences.append(f'{kind}: {sentence}.')
    return source, sentences


def _repair(source: SourceData, report: DataReport, kind: str) -> tuple[SourceData, str]:
    splits = {name: AnnotatedSplit(split, report.facts) for name, split in source.splits.items()}
    if kind == 'categories':
        repaired, sentence = repair_categories(splits, source.task)
        return replace(source, splits=repaired), sentence
    total, repaired = 0, {}
    for name, annotated in splits.items():
        if kind == 'labels':
            content, count = annotated.split.content, len(annotated.split.problems)
            sentence = 'dropped {} labels that cannot be used'
        elif kind == 'duplicates':
            copies = {path for _, path, _, split in report.duplicates if split == name}
            content, count = drop_images(annotated, copies)
            sentence = 'removed {} images from val and test that another split has'
        else:
            repair, sentence = _SPLIT_REPAIRS[kind]
            content, count = repair(annotated)
        problems = () if kind == 'labels' else annotated.split.problems
        repaired[name] = replace(annotated.split, content=content, problems=problems)
        total += count
    return replace(source, splits=repaired), sentence.format(total)
