from collections import OrderedDict

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def _no_default_scope(monkeypatch):
    """As in a new process: MMDetection's inferencer leaves its scope as the default one for all that follows."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
