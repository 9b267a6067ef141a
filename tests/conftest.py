"""Fixtures for all tests: a clean default scope, and data sets that are made once per session and are read-only."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_default_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the default scope as in a new process: runners and inferencers leave theirs set for later tests."""
    registry = sys.modules.get('mmengine.registry')  # operator tests also run without OpenMMLab
    if registry is not None:
        monkeypatch.setattr(registry.DefaultScope, '_instance_dict', OrderedDict())


@pytest.fixture(scope='session')
def photos_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write scikit-learn's two photographs in the layout of COCO 2017."""
    from mmdefocus.datasets.photos import make_photos_coco

    out = tmp_path_factory.mktemp('photos') / 'photos'
    make_photos_coco(out)
    return out


@pytest.fixture(scope='session')
def digits_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four training and four validation images of handwritten digits in COCO format."""
    from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco

    out = tmp_path_factory.mktemp('digits') / 'digits'
    make_digits_coco(out, DigitsOptions(train_images=4, val_images=4))
    return out
