"""Data sets that several tests share. They are made once and must not be written to."""

from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def photos_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's two photographs in the layout of COCO 2017."""
    from mmdefocus.datasets.photos import make_photos_coco

    out = tmp_path_factory.mktemp('photos') / 'photos'
    make_photos_coco(out)
    return out


@pytest.fixture(scope='session')
def digits_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and four validation images of handwritten digits."""
    from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco

    out = tmp_path_factory.mktemp('digits') / 'digits'
    make_digits_coco(out, DigitsOptions(train_images=4, val_images=4))
    return out
