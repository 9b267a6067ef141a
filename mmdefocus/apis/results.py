"""Results of a prediction: boxes or classes of one image, their conversions and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from .errors import UsageError
from .images import read_image

if TYPE_CHECKING:
    import supervision

_SHOWN = 20  # boxes of the short table


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What both results share.

    Attributes:
        path: File or URL of the image; None for an array or a Pillow image.
        scores: Confidences from 0 to 1, float32 (N,), in descending order.
        labels: Positions of the classes among those that the model predicts, int64 (N,).
        names: Names of the classes, N; ``class 3`` and the like if neither the checkpoint nor the config has names.
        image: The image as uint8 BGR (H, W, 3) if it was no file.
    """

    path: str | None
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    image: np.ndarray | None = field(default=None, repr=False, kw_only=True)

    def __len__(self) -> int:
        return len(self.scores)

    def picture(self, image: str | Path | np.ndarray | Image.Image | None = None) -> np.ndarray:
        """Return a copy of the image without drawings, uint8 BGR (H, W, 3).

        Args:
            image: In place of that which was predicted.

        Raises:
            OSError: The file is no longer there.
        """
        source = image if image is not None else self.path if self.image is None else self.image
        if source is None:
            raise UsageError('the result has neither the path nor the pixels of its image; pass it: draw(image)')
        return read_image(source).copy()

    def draw(self, image: str | Path | np.ndarray | Image.Image | None = None) -> np.ndarray:
        """Draw the result into a copy of the image → uint8 BGR (H, W, 3), as for ``cv2.imwrite``."""
        raise NotImplementedError

    def save(self, path: str | Path) -> Path:
        """Write the picture of :meth:`draw` to a file; a missing folder is made.

        Returns:
            ``path``.

        Raises:
            UsageError: The suffix is not that of an image.
            OSError: The file cannot be written.
        """
        path = Path(path)
        if not cv2.haveImageWriter(path.name):
            raise UsageError(f"expected the name of an image file, such as picture.png, got '{path}'")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, self.draw())[1].tobytes())  # imwrite is silent about failures
        return path


@dataclass(frozen=True, eq=False)
class DetectionResult(ImageResult):
    """Detected objects of one image, the best first.

    Attributes:
        image_size: Width and height of the image in pixels.
        boxes: Left, top, right and bottom edge in pixels of the image, float32 (N, 4).
        category_ids: Ids of the classes in the annotation file of the training, N; None if the checkpoint has none.
        masks: Pixels of the objects, bool (N, H, W); None for a detector of boxes.
    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    category_ids: tuple[Any, ...] | None = None
    masks: np.ndarray | None = None

    def to_supervision(self) -> supervision.Detections:
        """Convert to supervision: ``class_id`` has the labels, ``data['class_name']`` the names."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={'class_name': np.array(self.names, dtype=str)},
        )

    def to_coco(self, image_id: Any) -> list[dict[str, Any]]:
        """Convert to entries of a COCO result file.

        Args:
            image_id: Id of the image in the annotation file.

        Returns:
            One dictionary for each object with ``image_id``, the ``category_id`` of the training's annotation file,
            ``bbox`` as left, top, width and height in pixels, ``score``, and ``segmentation`` (RLE) if there are masks.

        Raises:
            UsageError: The checkpoint does not know the category ids.
        """
        if self.category_ids is None:
            raise UsageError(
                'COCO results need the category ids of the annotation file, which the checkpoint does not have; '
                'training with this version stores them, docs/classes.md explains it'
            )
        found = []
        for index, (left, top, right, bottom) in enumerate(self.boxes.tolist()):
            entry = dict(
                image_id=image_id,
                category_id=self.category_ids[index],
                bbox=[left, top, right - left, bottom - top],
                score=float(self.scores[index]),
            )
            if self.masks is not None:
                entry['segmentation'] = _run_lengths(self.masks[index])
            found.append(entry)
        return found

    def draw(self, image: str | Path | np.ndarray | Image.Image | None = None) -> np.ndarray:
        """Draw boxes, names, scores and masks into a copy of the image.

        Args:
            image: In place of that which was predicted; of the same size.

        Returns:
            uint8 BGR (H, W, 3).

        Raises:
            UsageError: The image has another size.
        """
        import supervision

        picture = self.picture(image)
        height, width = picture.shape[:2]
        if (width, height) != self.image_size:
            raise UsageError(
                f'expected an image of {self.image_size[0]} x {self.image_size[1]} pixels, to which the boxes refer, '
                f'got {width} x {height}'
            )
        detections = self.to_supervision()
        labels = [f'{name} {score:.2f}' for name, score in zip(self.names, self.scores, strict=True)]
        if self.masks is not None:
            picture = supervision.MaskAnnotator().annotate(picture, detections)
        thickness = supervision.calculate_optimal_line_thickness(self.image_size)
        scale = max(0.3, supervision.calculate_optimal_text_scale(self.image_size) / 2)
        picture = supervision.BoxAnnotator(thickness=thickness).annotate(picture, detections)
        annotator = supervision.LabelAnnotator(text_scale=scale, text_padding=round(8 * scale), smart_position=True)
        return annotator.annotate(picture, detections, labels)

    def __str__(self) -> str:
        objects = f'{len(self)} {"object" if len(self) == 1 else "objects"}'
        lines = [f'{self.path or "image"}: {objects} in {self.image_size[0]} x {self.image_size[1]} pixels']
        width = max(map(len, self.names), default=0)
        for name, score, box in zip(self.names[:_SHOWN], self.scores, self.boxes, strict=False):
            lines.append(f'  {score:.3f}  {name:<{width}}  ' + ' '.join(f'{edge:7.1f}' for edge in box))
        if len(self) > _SHOWN:
            lines.append(f'  … and {len(self) - _SHOWN} more')
        return '\n'.join(lines)


@dataclass(frozen=True, eq=False)
class ClassificationResult(ImageResult):
    """The best classes of one image, in descending order of their scores."""

    def to_supervision(self) -> supervision.Classifications:
        """Convert to supervision: ``class_id`` has the labels."""
        import supervision

        return supervision.Classifications(class_id=self.labels, confidence=self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Return ``path``, ``labels``, ``names`` and ``scores`` for a JSON file."""
        return dict(path=self.path, labels=self.labels.tolist(), names=list(self.names), scores=self.scores.tolist())

    def draw(self, image: str | Path | np.ndarray | Image.Image | None = None) -> np.ndarray:
        """Write names and scores below a copy of the image → uint8 BGR.

        Images narrower than 240 pixels are magnified by a whole number.
        """
        import supervision

        picture = self.picture(image)
        factor = -(-240 // picture.shape[1])
        picture = picture.repeat(factor, 0).repeat(factor, 1)
        line = 24
        picture = np.pad(picture, ((0, line * len(self) + 6), (0, 0), (0, 0)), constant_values=255)
        first = picture.shape[0] - line * len(self) - 6
        for index, row in enumerate(self._rows()):
            anchor = supervision.Point(picture.shape[1] // 2, first + line * index + line // 2 + 3)
            picture = supervision.draw_text(picture, row, anchor, text_color=supervision.Color.BLACK)
        return picture

    def __str__(self) -> str:
        return '\n'.join([self.path or 'image', *(f'  {row}' for row in self._rows())])

    def _rows(self) -> list[str]:
        return [f'{score:.3f}  {name}' for score, name in zip(self.scores, self.names, strict=True)]


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    from pycocotools.mask import encode

    found = encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=list(found['size']), counts=found['counts'].decode())
