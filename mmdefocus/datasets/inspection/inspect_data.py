"""The inspection of a whole data set."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..prepared.duplicates import find_duplicates
from ..prepared.source_data import SourceData, SourceSplit
from .annotated_split import AnnotatedSplit, count_of, image_path, make_finding
from .box_checks import check_boxes, check_objects
from .class_checks import check_classes, count_classes
from .entry_checks import check_entries
from .findings import DataReport, Example, Finding, Pair
from .histograms import count_bins
from .image_checks import check_images, find_unlisted
from .image_facts import ImageFacts, read_image_facts
from .model_checks import check_model_fit

# Of the nano detectors.
NANO_STRIDES = (8, 16, 32)
NANO_IMAGE_SIZE = (160, 160)
NANO_MAX_OBJECTS = 40

_SEVERITIES = ('error', 'warning', 'note')


def inspect_data(
    source: SourceData,
    strides: Sequence[int] | None = None,
    image_size: int | tuple[int, int] | None = None,
    read_images: bool = True,
    progress: Callable[[int, int], None] | None = None,
    max_objects: int | None = None,
) -> DataReport:
    """Look for mistakes in a data set. Nothing is changed.

    The images are opened one after the other; what is kept of each is a few numbers.

    Args:
        source: The data as they were found.
        strides: Strides of the feature maps of the model; None for those of the nano detectors, 8, 16 and 32.
        image_size: Side, or width and height, in pixels of the box into which the model's test images are scaled
            (``scale`` of ``Resize``); None for that of the nano detectors, 160.
        read_images: Decode all images and compare the pictures of the splits. Without it, only the headers are read:
            truncated and damaged images and duplicates go unnoticed.
        progress: Called with the number of steps done and the total after every image. Images that are compared with
            those of other splits are two steps.
        max_objects: Most objects that the model predicts per image (``max_per_img``); None for that of the nano
            detectors, 40.

    Returns:
        The report.

    Raises:
        ValueError: A stride or a size is not positive.
    """
    strides = tuple(NANO_STRIDES if strides is None else strides)
    size = NANO_IMAGE_SIZE if image_size is None else image_size
    size = (size, size) if isinstance(size, int) else (size[0], size[1])
    if not strides or min(*strides, *size) < 1:
        raise ValueError(f'strides and image_size must be positive numbers of pixels, got {strides} and {size}')
    report_progress = progress or (lambda done, total: None)
    # Comparing the splits opens all images once more.
    comparing = read_images and len(source.splits) > 1
    facts = _read_files(source, read_images, lambda done, total: report_progress(done, total * (1 + comparing)))
    duplicates = (
        _find_duplicates(source, lambda done, total: report_progress(total + done, 2 * total)) if comparing else ()
    )
    settings = _Settings(strides, size, NANO_MAX_OBJECTS if max_objects is None else max_objects, read_images)
    return _report(source, facts, duplicates, settings)


def inspect_repaired(source: SourceData, report: DataReport) -> DataReport:
    """Inspect a repaired data set without opening its images again.

    Args:
        source: Result of :func:`~mmdefocus.datasets.inspection.repairs.repair_data`.
        report: Report of the data before the repair.
    """
    listed = {name: set(map(os.fspath, _paths(split))) for name, split in source.splits.items()}
    duplicates = tuple(
        one
        for one in report.duplicates
        if all(path in listed[split] for path, split in zip(one[:2], one[2:], strict=True))
    )
    settings = _Settings(report.strides, report.image_size, report.max_objects, report.images_read)
    return _report(source, report.facts, duplicates, settings)


class _Settings(NamedTuple):
    strides: tuple[int, ...]
    image_size: tuple[int, int]
    max_objects: int | None
    images_read: bool


def _report(
    source: SourceData, facts: Mapping[str, ImageFacts], duplicates: tuple[Pair, ...], settings: _Settings
) -> DataReport:
    splits = {name: AnnotatedSplit(split, facts) for name, split in source.splits.items()}
    findings = []
    for annotated in splits.values():
        findings += check_entries(annotated, source.task) + check_images(annotated, source.task)
        if source.task == 'detection':
            findings += check_boxes(annotated) + check_objects(annotated)
            findings += check_model_fit(annotated, min(settings.strides), settings.image_size, settings.max_objects)
    classes = count_classes(splits, source.task)
    findings += check_classes(splits, classes, source.task) + find_unlisted(source.splits)
    message = f'{count_of(len(duplicates), "picture")} of val or test that another split has.'
    examples = tuple(Example(second, detail=f'equals {first} in {where}') for first, second, where, _ in duplicates)
    findings += make_finding('duplicates', '', message, len(duplicates), examples)
    return DataReport(
        root=os.fspath(source.root),
        format=source.format,
        task=source.task,
        findings=_ordered(findings),
        splits={name: _numbers(annotated, source) for name, annotated in splits.items()},
        classes=classes,
        histograms=count_bins(splits, source.task),
        strides=settings.strides,
        image_size=settings.image_size,
        max_objects=settings.max_objects,
        images_read=settings.images_read,
        facts=facts,
        duplicates=duplicates,
        notes=source.notes,
    )


def _read_files(source: SourceData, read_images: bool, progress: Callable[[int, int], None]) -> dict[str, ImageFacts]:
    paths = dict.fromkeys(path for split in source.splits.values() for path in _paths(split))
    facts = {}
    for done, path in enumerate(paths, 1):
        facts[os.fspath(path)] = read_image_facts(path, read_images)
        progress(done, len(paths))
    return facts


def _paths(split: SourceSplit) -> list[Path]:
    return [image_path(split, image) for image in AnnotatedSplit(split, {}).images]


def _find_duplicates(source: SourceData, progress: Callable[[int, int], None]) -> tuple[Pair, ...]:
    named = {
        name: replace(split, content=split.content | dict(images=AnnotatedSplit(split, {}).images))
        for name, split in source.splits.items()
    }
    return tuple(
        (os.fspath(one.first), os.fspath(one.second), *one.splits)
        for one in find_duplicates(replace(source, splits=named), progress)
        if one.splits[0] != one.splits[1]
    )


def _numbers(annotated: AnnotatedSplit, source: SourceData) -> dict[str, int]:
    objects = annotated.boxed if source.task == 'detection' else annotated.images
    return dict(images=len(annotated.images), objects=len(objects))


def _ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: (_SEVERITIES.index(one.severity), -one.count)))
