"""``--cfg-options`` of any text: the config changes as asked and can be saved, or UsageError says why not."""

import argparse

import pytest
from fuzzing import FUZZ, watched
from hypothesis import example, given
from hypothesis import strategies as st
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.cli.arguments import add_common_arguments, parse_arguments

TEXT = """
data_root = 'data/digits/'
helper = 3
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18), head=dict(num_classes=3, topk=(1, 5)))
train_dataloader = dict(batch_size=3, dataset=dict(data_root=data_root, pipeline=[dict(type='Resize', scale=(8, 8))]))
val_dataloader = None
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
custom_hooks = []
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01), clip_grad=None)
work_dir = 'runs'
"""
WORDS = """
    model
    backbone depth type head topk train_dataloader dataset pipeline 0 1 -1 \u0663 scale val_dataloader default_hooks
    logger custom_hooks optim_wrapper clip_grad work_dir data_root helper randomness seed load_from resume visualizer
    _delete_ _base_ modle param_scheduler class \u00e9 it's a"b __class__ filename _cfg_dict pop None
"""
LITERALS = """
    1 0.5 -1e-3 1e999 nan inf 0x10 1_000 05 true None False word ( ) [ ] { } , : ' " = \\ # _delete_ "_delete_":True
    "type" {"a":1} [1,2] (1,) b"x" 1j ... {1,2} lambda:0 \u00e9 {{ }} $x
"""
PARTS = [*WORDS.split(), '', 'no name', '\n']
PIECES = [*LITERALS.split(), ' ', '\n', '\0', '\ud800', '9' * 5000, '[' * 2000, '[' * 2000 + ']' * 2000]
KEYS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map('.'.join) | st.text(max_size=6)
VALUES = st.lists(st.sampled_from(PIECES), max_size=6).map(''.join) | st.text(max_size=8)


@pytest.fixture(scope='module')
def load(tmp_path_factory):
    """Apply what is typed behind ``--cfg-options``; return the config, or None if it is refused."""
    path = tmp_path_factory.mktemp('options') / 'config.py'
    path.write_text(TEXT)
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)

    def load(*words):
        with watched():
            try:
                return load_config(path, parse_arguments(parser, ['--cfg-options', *words]).cfg_options)
            except UsageError as error:
                message = str(error)
            except SystemExit:  # of argparse, for a word that is no KEY=VALUE
                return None
        assert message.startswith(('--cfg-options ', 'the work directory ', 'work_dir ', 'custom_hooks'))
        assert len(message) < 12_000
        return None

    return load


def test_the_config_is_read(load):
    assert load('model.backbone.depth=34').model.backbone.depth == 34
    assert load('helper=1') is None


@given(st.lists(st.tuples(KEYS, VALUES).map('='.join), min_size=1, max_size=3))
@example(['model.None=1'])
@example(['model.backbone.class=1'])
@example(['work_dir=' + '9' * 5000])
@example(['work_dir=5'])
@example(['model.model=', 'model.model.model='])
@FUZZ
def test_options(load, words):
    cfg = load(*words)
    if cfg is not None:
        text = cfg.pretty_text
        again = Config.fromstring(text, '.py')
        assert again.to_dict().keys() == cfg.to_dict().keys()


@given(st.sampled_from(('optim_wrapper.clip_grad.max_norm', 'model.new', 'val_dataloader', 'work_dir')), VALUES)
@example('model.new', '{{}}')
@example('model.new', 'inf')
@example('model.new', '[1, nan]')
@example('model.new', '{"class": 1}')
@example('model.new', '[' * 2000 + ']' * 2000)
@FUZZ
def test_values(load, key, value):
    cfg = load(f'{key}={value}')
    if cfg is not None:  # the config is saved beside the checkpoints, and in them
        assert get(Config.fromstring(cfg.pretty_text, '.py'), key) == get(cfg, key)


def get(cfg, key):
    for part in key.split('.'):
        cfg = cfg[part]
    return cfg
