"""Hooks, training loops and a schedule. Importing this package registers all whose requirements are installed."""

from mmdefocus.openmmlab import are_installed, without_onedl_note

from .activation_checkpoint_hook import DefocusActivationCheckpointHook
from .checkpoint_check_hook import DefocusCheckpointCheckHook
from .class_count_hook import DefocusClassCountHook
from .epoch_seed_hook import DefocusEpochSeedHook
from .errors import SetupError
from .finite_loss_hook import DefocusFiniteLossHook
from .optimizer_step_ema_hook import DefocusOptimizerStepEMAHook
from .scheduled_drop_path_hook import DefocusScheduledDropPathHook
from .train_loops import DefocusEpochBasedTrainLoop, DefocusIterBasedTrainLoop
from .warmup_cosine_lr import DefocusWarmupCosineLR

__all__ = [
    'DefocusActivationCheckpointHook',
    'DefocusCheckpointCheckHook',
    'DefocusClassCountHook',
    'DefocusEpochBasedTrainLoop',
    'DefocusEpochSeedHook',
    'DefocusFiniteLossHook',
    'DefocusIterBasedTrainLoop',
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
