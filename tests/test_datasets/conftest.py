"""Content that the tests of COCO data change."""

from typing import Any

import pytest


@pytest.fixture
def content() -> dict[str, Any]:
    """Two images, two categories with gaps in their ids, three boxes."""
    return dict(
        images=[
            dict(id=7, file_name='a.jpg', width=40, height=30),
            dict(id=9, file_name='b.jpg', width=40, height=30),
        ],
        annotations=[
            dict(id=1, image_id=7, category_id=3, bbox=[1, 2, 10, 12], area=120, iscrowd=0),
            dict(id=2, image_id=7, category_id=5, bbox=[20, 5, 8.5, 9], area=76.5, iscrowd=0),
            dict(id=3, image_id=9, category_id=5, bbox=[0, 0, 40, 30], area=1200, iscrowd=1),
        ],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
    )
