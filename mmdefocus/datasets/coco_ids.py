"""Category ids of COCO's 80 object classes."""

from collections.abc import Sequence

# Eleven of the 91 categories are not in the published annotations.
COCO_IDS = tuple(one for one in range(1, 91) if one not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))


def coco_category_ids(classes: Sequence[str] | None) -> list[int] | None:
    """Return COCO's category ids if ``classes`` are its 80 classes in their order, else None."""
    if classes is None or len(classes) != len(COCO_IDS):
        return None
    from mmdet.datasets import CocoDataset  # needed for the names only

    return list(COCO_IDS) if tuple(classes) == tuple(CocoDataset.METAINFO['classes']) else None
