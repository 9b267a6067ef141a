"""Hooks, training loops, schedules, optimiser wrappers, constructors; importing this package registers them."""

from mmdefocus.openmmlab import are_installed, without_onedl_note

from .activation_checkpoint_hook import DefocusActivationCheckpointHook
from .amp_optim_wrapper import DefocusAmpOptimWrapper
from .checkpoint_check_hook import DefocusCheckpointCheckHook
from .checkpoint_hook import DefocusCheckpointHook
from .class_count_hook import DefocusClassCountHook
from .epoch_seed_hook import DefocusEpochSeedHook
from .errors import SetupError
from .finite_loss_hook import DefocusFiniteLossHook
from .merged_groups_constructor import DefocusOptimWrapperConstructor
from .optimizer_step_ema_hook import DefocusOptimizerStepEMAHook
from .over_focus_hook import DefocusOverFocusHook
from .peak_memory_hook import DefocusPeakMemoryHook
from .safe_writing import SavingError
from .scheduled_drop_path_hook import DefocusScheduledDropPathHook
from .stop_signal_hook import DefocusStopSignalHook
from .train_loops import DefocusEpochBasedTrainLoop, DefocusIterBasedTrainLoop
from .warmup_cosine_lr import DefocusWarmupCosineLR

__all__ = [
    'DefocusActivationCheckpointHook',
    'DefocusAmpOptimWrapper',
    'DefocusCheckpointCheckHook',
    'DefocusCheckpointHook',
    'DefocusClassCountHook',
    'DefocusEpochBasedTrainLoop',
    'DefocusEpochSeedHook',
    'DefocusFiniteLossHook',
    'DefocusIterBasedTrainLoop',
    'DefocusOptimWrapperConstructor',
    'DefocusOptimizerStepEMAHook',
    'DefocusOverFocusHook',
    'DefocusPeakMemoryHook',
    'DefocusScheduledDropPathHook',
    'DefocusStopSignalHook',
    'DefocusWarmupCosineLR',
    'SavingError',
    'SetupError',
]

with without_onedl_note():
    if are_installed('mmdet'):
        from .ground_truth_check_hook import DefocusGroundTruthCheckHook

        __all__ += ['DefocusGroundTruthCheckHook']
    if are_installed('mmpretrain'):
        from .layer_decay_constructor import DefocusLayerDecayOptimWrapperConstructor

        __all__ += ['DefocusLayerDecayOptimWrapperConstructor']

from . import former_names  # noqa: F401 (last: it refers to the registered classes)
