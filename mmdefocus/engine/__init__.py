"""Hooks, a learning-rate schedule and optimiser constructors; importing this registers those whose needs are met."""

from mmdefocus.openmmlab import are_installed, without_onedl_note

from .activation_checkpoint_hook import DefocusActivationCheckpointHook
from .checkpoint_check_hook import DefocusCheckpointCheckHook
from .class_count_hook import DefocusClassCountHook
from .epoch_seed_hook import DefocusEpochSeedHook
from .errors import SetupError
from .finite_loss_hook import DefocusFiniteLossHook
from .merged_groups_constructor import DefocusOptimWrapperConstructor
from .optimizer_step_ema_hook import DefocusOptimizerStepEMAHook
from .scheduled_drop_path_hook import DefocusScheduledDropPathHook
from .warmup_cosine_lr import DefocusWarmupCosineLR

__all__ = [
    'DefocusActivationCheckpointHook',
    'DefocusCheckpointCheckHook',
    'DefocusClassCountHook',
    'DefocusEpochSeedHook',
    'DefocusFiniteLossHook',
    'DefocusOptimWrapperConstructor',
    'DefocusOptimizerStepEMAHook',
    'DefocusScheduledDropPathHook',
    'DefocusWarmupCosineLR',
    'SetupError',
]

with without_onedl_note():
    if are_installed('mmdet'):
        from .ground_truth_check_hook import DefocusGroundTruthCheckHook

        __all__ += ['DefocusGroundTruthCheckHook']

from . import former_names  # noqa: F401 (last: it refers to the registered classes)
