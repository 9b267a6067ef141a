"""scikit-learn's 1797 handwritten digits as a classification set without a download."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset
from PIL import Image
from sklearn.datasets import load_digits

from mmdefocus.datasets.digits import NUM_TRAIN_GLYPHS

SPLITS = ('train', 'test')


@DATASETS.register_module()
class DefocusDigits(BaseDataset):
    """Handwritten digits 0 to 9, enlarged from 8×8 pixels; other writers wrote nearly all test digits.

    The collection does not name its 13 writers, but the labels show that it consists of 14 forms of about 130 digits
    each, in order. The training split is the first 1397 digits, the test split the last 400: the last three forms (382
    digits) and the last 18 digits of a form (1287 to 1414) whose beginning is in the training split.

    Every item has ``img``, uint8 of shape (size, size, 3), bright ink on black, and ``gt_label``, the digit.

    Args:
        split: ``'train'`` or ``'test'``.
        size: Side in pixels to which a digit is enlarged (bicubic), at least 8.
        pipeline: Transforms, without one that loads an image: items have pixels.
        test_mode: As for MMPreTrain's ``BaseDataset``.
        **kwargs: As for MMPreTrain's ``BaseDataset``, such as ``indices`` for a part of the split.

    Raises:
        ValueError: ``split`` or ``size`` is out of range.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=tuple(str(digit) for digit in range(10)))

    def __init__(
        self, split: str, size: int = 32, pipeline: Sequence = (), test_mode: bool = False, **kwargs: Any
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {list(SPLITS)}, got {split!r}')
        if size < 8:
            raise ValueError(f'size must be at least 8, the side of the original digits, got {size}')
        self.split = split
        self.size = size
        super().__init__(ann_file='', pipeline=pipeline, test_mode=test_mode, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Enlarge the digits of the split.

        Returns:
            One ``dict(img=…, gt_label=…)`` per digit, in the order of the collection.
        """
        digits = load_digits()
        part = slice(None, NUM_TRAIN_GLYPHS) if self.split == 'train' else slice(NUM_TRAIN_GLYPHS, None)
        return [
            dict(img=_enlarge(glyph, self.size), gt_label=int(label))
            for glyph, label in zip(digits.images[part], digits.target[part], strict=True)
        ]

    def extra_repr(self) -> list[str]:
        """Return additional lines for the printed form of the set."""
        return [f'Split: \t{self.split}', f'Side: \t{self.size}']


def _enlarge(glyph: np.ndarray, size: int) -> np.ndarray:
    """Enlarge an 8×8 digit of 17 grey levels to uint8 (size, size, 3)."""
    pixels = Image.fromarray(np.rint(glyph * (255 / 16)).astype(np.uint8))
    grey = np.asarray(pixels.resize((size, size), Image.Resampling.BICUBIC))
    return np.repeat(grey[..., None], 3, axis=-1)
