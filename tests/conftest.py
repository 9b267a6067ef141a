"""What all tests begin with, and data sets that several share: made once, and not to be written to."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_default_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: a runner or an inferencer leaves its scope as the default one for all that follows."""
    registry = sys.modules.get('mmengine.registry')  # the tests of the operators need nothing from OpenMMLab
    if registry is not None:
        monkeypatch.setattr(registry.DefaultScope, '_instance_dict', OrderedDict())


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
