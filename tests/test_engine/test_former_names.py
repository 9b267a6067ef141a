"""Registered names without the prefix, as the configs of earlier runs have them."""

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, DefaultScope

import mmdefocus.engine
from mmdefocus.engine.former_names import FORMER_NAMES


@pytest.mark.parametrize('name', FORMER_NAMES)
@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmpretrain'])
def test_former_names_stand_for_the_present_classes(name, scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert FORMER_NAMES[name].get(name) is getattr(mmdefocus.engine, f'Defocus{name}')


def test_every_hook_and_schedule_has_the_prefix():
    for registry in (HOOKS, PARAM_SCHEDULERS):
        ours = {name for name, kind in registry.module_dict.items() if kind.__module__.startswith('mmdefocus.')}
        assert {name for name in ours if not name.startswith('Defocus')} <= FORMER_NAMES.keys()


def test_hooks_of_the_config_of_an_earlier_run():
    text = "default_hooks = dict(seed=dict(type='EpochSeedHook'))\ncustom_hooks = [dict(type='FiniteLossHook')]"
    cfg = Config.fromstring(text, '.py')
    assert isinstance(HOOKS.build(cfg.default_hooks.seed), mmdefocus.engine.DefocusEpochSeedHook)
    assert isinstance(HOOKS.build(cfg.custom_hooks[0]), mmdefocus.engine.DefocusFiniteLossHook)
