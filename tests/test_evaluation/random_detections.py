"""Random annotations in COCO format, and predictions near them with ties between scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np

CLASSES = ('cat', 'dog', 'eel', 'fox', 'gnu')


def random_truth(
    rng: np.random.Generator,
    images: int = 12,
    classes: Sequence[str] = CLASSES,
    ids: Sequence[Any] | None = None,
    category_ids: Sequence[Any] | None = None,
    most_objects: int = 9,
) -> dict[str, Any]:
    """Return annotations of all COCO sizes; one in eight is a crowd, and the last class has no object."""
    ids = list(range(images)) if ids is None else list(ids)
    category_ids = list(range(len(classes))) if category_ids is None else list(category_ids)
    annotations: list[dict] = []
    for image in ids:
        for _ in range(rng.integers(0, most_objects + 1)):
            width, height = np.exp(rng.uniform(np.log(8), np.log(200), 2)).round(2).tolist()
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=image,
                    category_id=category_ids[rng.integers(0, max(len(classes) - 1, 1))],
                    bbox=[*rng.uniform(0, 200, 2).round(2).tolist(), width, height],
                    area=width * height,
                    iscrowd=int(rng.random() < 0.125),
                )
            )
    return dict(
        images=[dict(id=one, file_name=f'{one}.jpg', width=480, height=480) for one in ids],
        categories=[dict(id=one, name=name) for one, name in zip(category_ids, classes, strict=True)],
        annotations=annotations,
    )


def random_predictions(rng: np.random.Generator, truth: dict[str, Any], others: int = 6) -> list[dict]:
    """Return predictions near the objects, some of another class, and others anywhere; scores have one decimal."""
    categories = [category['id'] for category in truth['categories']]
    predictions = []

    def add(image: Any, box: np.ndarray, category: Any) -> None:
        score = float(rng.integers(0, 11)) / 10
        predictions.append(dict(image_id=image, category_id=category, bbox=box.round(2).tolist(), score=score))

    for ann in truth['annotations']:
        for _ in range(rng.integers(0, 4)):
            box = np.array(ann['bbox'])
            box = box + rng.normal(0, rng.choice([0.02, 0.1, 0.3]), 4) * np.tile(box[2:], 2)
            box[2:] = np.abs(box[2:]) + 1
            add(ann['image_id'], box, rng.choice(categories) if rng.random() < 0.2 else ann['category_id'])
    for image in truth['images']:
        for _ in range(others):
            add(image['id'], rng.uniform(1, 200, 4), rng.choice(categories))
    rng.shuffle(predictions)
    for one in predictions:  # NumPy's choice has made NumPy's types of the ids
        one['category_id'] = getattr(one['category_id'], 'item', lambda same=one: same['category_id'])()
    return predictions
