"""Hooks and a schedule for MMEngine's runner."""

from .activation_checkpoint_hook import ActivationCheckpointHook
from .checkpoint_check_hook import CheckpointCheckHook
from .class_count_hook import ClassCountHook
from .epoch_seed_hook import EpochSeedHook
from .errors import SetupError
from .finite_loss_hook import FiniteLossHook
from .ground_truth_check_hook import GroundTruthCheckHook
from .optimizer_step_ema_hook import OptimizerStepEMAHook
from .scheduled_drop_path_hook import ScheduledDropPathHook
from .warmup_cosine_lr import WarmupCosineLR

__all__ = [
    'ActivationCheckpointHook',
    'CheckpointCheckHook',
    'ClassCountHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'GroundTruthCheckHook',
    'OptimizerStepEMAHook',
    'ScheduledDropPathHook',
    'SetupError',
    'WarmupCosineLR',
]
