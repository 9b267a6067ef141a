"""A user's data set as it was found, and as it is after preparation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Task = Literal['detection', 'classification']
Format = Literal['coco', 'yolo', 'voc', 'folders']


@dataclass(frozen=True)
class ReadingProblem:
    """Something in a file that COCO format cannot express, so that it is not in the content of the split.

    Attributes:
        kind: ``malformed-label`` (a line or an object without a readable class or box), ``unreadable-label-file``, or
            ``label-without-image``.
        path: File.
        message: What was expected and what the file has.
    """

    kind: Literal['malformed-label', 'unreadable-label-file', 'label-without-image']
    path: Path
    message: str


@dataclass(frozen=True)
class SourceSplit:
    """Images and annotations of one split, as they were found.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        image_root: Folder to which the file names of the images are relative.
        content: The split in COCO format: lists ``images``, ``annotations`` and ``categories``. It keeps what the files
            say, mistakes included. Boxes are ``[x, y, w, h]`` in pixels. For classification, there are no annotations,
            and every image has a ``category_id``. Where the format has no sizes, they come from the headers of the
            images; ``width`` and ``height`` are None if a header is unreadable, as is then the ``bbox`` of YOLO labels.
        files: Annotation files that were read; empty for class folders.
        problems: What could not be read.
    """

    name: str
    image_root: Path
    content: dict[str, Any]
    files: tuple[Path, ...] = ()
    problems: tuple[ReadingProblem, ...] = ()


@dataclass(frozen=True)
class SourceData:
    """A data set as it was found.

    Attributes:
        root: Folder that the user named.
        format: Format of the annotations.
        task: What the annotations are for.
        splits: Splits by name, in the order train, val, test.
        notes: What the reader decided where the files leave a choice; one sentence each.
    """

    root: Path
    format: Format
    task: Task
    splits: Mapping[str, SourceSplit]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedSplit:
    """One split that the data sets of this package can read.

    Attributes:
        image_root: Absolute folder to which the file names of the images are relative.
        ann_file: COCO file of a detection set; lines ``path label`` of a classification set.
        images: Number of images.
        objects: Number of boxes; of images for classification.
        largest: Largest width and height of an image in pixels.
        most_objects: Largest number of boxes in an image; 1 for classification.
        empty_images: Number of images without any box.
    """

    image_root: Path
    ann_file: Path
    images: int
    objects: int
    largest: tuple[int, int]
    most_objects: int
    empty_images: int = 0


@dataclass(frozen=True)
class PreparedData:
    """A data set that the data sets of this package can read.

    Attributes:
        root: Folder that the user named.
        format: Format of its annotations.
        task: What the annotations are for.
        classes: Names in the order of the labels.
        category_ids: Ids of the annotation files in the same order; empty for classification.
        has_masks: Every box has a mask.
        splits: ``train``, ``val`` and, if there is one, ``test``.
        notes: Decisions and warnings, one sentence each.
    """

    root: Path
    format: Format
    task: Task
    classes: tuple[str, ...]
    splits: Mapping[str, PreparedSplit]
    category_ids: tuple[Any, ...] = ()
    has_masks: bool = False
    notes: tuple[str, ...] = field(default=())
