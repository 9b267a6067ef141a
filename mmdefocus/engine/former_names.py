"""Registered names without the prefix ``Defocus``, kept so that configs of earlier runs can be resumed.

Delete this module, and its import in the package, to drop them.
"""

from mmengine.registry import HOOKS, PARAM_SCHEDULERS

FORMER_NAMES = {
    'ActivationCheckpointHook': HOOKS,
    'CheckpointCheckHook': HOOKS,
    'ClassCountHook': HOOKS,
    'EpochSeedHook': HOOKS,
    'FiniteLossHook': HOOKS,
    'GroundTruthCheckHook': HOOKS,
    'OptimizerStepEMAHook': HOOKS,
    'ScheduledDropPathHook': HOOKS,
    'WarmupCosineLR': PARAM_SCHEDULERS,
}

for name, registry in FORMER_NAMES.items():
    present = registry.module_dict
    # Without mmdet there is no ground-truth hook; a class that another package registered under the name stays.
    if f'Defocus{name}' in present and name not in present:
        registry.register_module(name=name, module=present[f'Defocus{name}'])
