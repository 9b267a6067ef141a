"""Configs in checkpoints are read as data."""

import pytest
from mmengine.config import Config

from mmdefocus.apis.saved_config import read_saved_config
from mmdefocus.apis.zoo import CONFIGS


@pytest.mark.parametrize('name', ['dino/defocus_mamba_nano', 'classification/defocus_mamba_base'])
def test_a_saved_config_reads_as_mmengine_does(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    assert read_saved_config(cfg.pretty_text, 'file.pth').pretty_text == cfg.pretty_text


@pytest.mark.parametrize('text', ['import os', 'a = open("x")', 'a = dict(**{})', 'a = [x for x in (1,)]', 'a = ('])
def test_code_is_refused(text):
    with pytest.raises(ValueError, match=r'the config in file\.pth must consist of data'):
        read_saved_config(text, 'file.pth')
