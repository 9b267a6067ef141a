"""What an inspection finds, and the report of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .image_facts import ImageFacts
from .kinds import KINDS, Severity

# Most examples that a finding keeps.
MOST_EXAMPLES = 12
# Increase it when a key of the dictionary changes its meaning.
FORMAT_VERSION = 1

Pair = tuple[str, str, str, str]


@dataclass(frozen=True)
class Example:
    """One image or box that a finding is about.

    Attributes:
        image: Path of the image file; empty if the finding is not about an image.
        box: ``(x, y, w, h)`` in pixels as the file has it; None if the finding is not about a box.
        annotation: Id of the annotation, or None.
        detail: What is wrong with it, in a few words.
    """

    image: str
    box: tuple[float, float, float, float] | None = None
    annotation: Any = None
    detail: str = ''


@dataclass(frozen=True)
class Finding:
    """A mistake or a property of the data that a user should know.

    Attributes:
        kind: Key of :data:`~mmdefocus.datasets.inspection.kinds.KINDS`.
        severity: ``error``, ``warning`` or ``note``.
        split: Name of the split; empty if it concerns several.
        message: One or two sentences with numbers.
        count: Number of images, boxes or classes concerned.
        examples: The worst ones first, at most :data:`MOST_EXAMPLES`.
    """

    kind: str
    severity: Severity
    split: str
    message: str
    count: int
    examples: tuple[Example, ...] = ()

    @property
    def title(self) -> str:
        """Heading of the kind."""
        return KINDS[self.kind].title

    @property
    def remedy(self) -> str:
        """What the user can do."""
        return KINDS[self.kind].remedy

    @property
    def repair(self) -> str | None:
        """Name of the repair that removes the finding, or None."""
        return KINDS[self.kind].repair

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return dict(
            kind=self.kind,
            severity=self.severity,
            split=self.split,
            title=self.title,
            message=self.message,
            remedy=self.remedy,
            repair=self.repair,
            count=self.count,
            examples=[
                dict(
                    image=one.image,
                    box=None if one.box is None else [value if math.isfinite(value) else None for value in one.box],
                    annotation=one.annotation,
                    detail=one.detail,
                )
                for one in self.examples
            ],
        )


@dataclass(frozen=True)
class DataReport:
    """What an inspection found.

    Attributes:
        root: Folder of the data.
        format: Format of the annotations.
        task: ``detection`` or ``classification``.
        findings: Errors, then warnings, then notes; those with more cases first.
        splits: Numbers of ``images`` and ``objects`` by split.
        classes: Number of objects (of images, for classification) by class and split.
        histograms: Counts by histogram, split and bin.
        strides: Strides of the model's feature maps, in pixels.
        image_size: Width and height in pixels of the box into which the model's test images are scaled.
        max_objects: Most objects that the model predicts per image.
        images_read: The images were decoded.
        facts: What is known about the image files, by path.
        duplicates: Equal pictures in two splits: the path in the earlier split, that in the later one, and both splits.
        notes: What the reader of the files decided.
    """

    root: str
    format: str
    task: str
    findings: tuple[Finding, ...]
    splits: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, Mapping[str, int]]
    histograms: Mapping[str, Mapping[str, Mapping[str, int]]]
    strides: tuple[int, ...]
    image_size: tuple[int, int]
    max_objects: int | None
    images_read: bool
    facts: Mapping[str, ImageFacts] = field(default_factory=dict, repr=False)
    duplicates: tuple[Pair, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of severity ``error``."""
        return self._of('error')

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings of severity ``warning``."""
        return self._of('warning')

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, with keys that stay the same."""
        return dict(
            version=FORMAT_VERSION,
            root=self.root,
            format=self.format,
            task=self.task,
            counts={severity: len(self._of(severity)) for severity in ('error', 'warning', 'note')},
            settings=dict(
                strides=list(self.strides),
                image_size=list(self.image_size),
                max_objects=self.max_objects,
                images_read=self.images_read,
            ),
            splits={name: dict(numbers) for name, numbers in self.splits.items()},
            classes={name: dict(numbers) for name, numbers in self.classes.items()},
            findings=[finding.to_dict() for finding in self.findings],
            histograms={
                name: {split: dict(bins) for split, bins in splits.items()} for name, splits in self.histograms.items()
            },
            notes=list(self.notes),
        )

    def to_text(self, most_examples: int = 3) -> str:
        """Return the report as text for a terminal.

        Args:
            most_examples: Most examples per finding.
        """
        from .report_text import format_report

        return format_report(self, most_examples)
