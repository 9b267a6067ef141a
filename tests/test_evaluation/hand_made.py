"""Tiny annotations and predictions in COCO format with known answers."""

from collections.abc import Sequence
from typing import Any

Box = tuple[str, Sequence[float]]


def truth_of(images: Sequence[Sequence[Box]], classes: Sequence[str] = ('cat', 'dog'), **options: Any) -> dict:
    """Return annotations of images that list ``(class, [x, y, w, h])``; the class ``cat*`` is a crowd of cats."""
    ids = options.get('ids', range(len(images)))
    boxes = [(image, name, box) for image, some in zip(ids, images, strict=True) for name, box in some]
    return dict(
        images=[dict(id=image, file_name=f'{image}.jpg', width=400, height=400) for image in ids],
        categories=[dict(id=number, name=name) for number, name in enumerate(classes)],
        annotations=[
            dict(
                id=number,
                image_id=image,
                category_id=classes.index(name.rstrip('*')),
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=int(name.endswith('*')),
            )
            for number, (image, name, box) in enumerate(boxes)
        ],
    )


def predictions_of(truth: dict, *predictions: tuple[Any, str, float, Sequence[float]]) -> list[dict]:
    """Return predictions ``(image, class, score, [x, y, w, h])``."""
    ids = {category['name']: category['id'] for category in truth['categories']}
    return [
        dict(image_id=image, category_id=ids[name], score=score, bbox=list(box))
        for image, name, score, box in predictions
    ]
