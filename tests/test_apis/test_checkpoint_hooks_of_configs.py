"""All configs save checkpoints with the hook that loses none."""

from pathlib import Path

import pytest
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('[!_]*/*.py')), ids=lambda path: path.stem)
def test_the_hook_of(path):
    assert Config.fromfile(path, import_custom_modules=False).default_hooks.checkpoint.type == 'DefocusCheckpointHook'
