"""Hooks for MMEngine's runner."""

from .activation_checkpoint_hook import ActivationCheckpointHook
from .scheduled_drop_path_hook import ScheduledDropPathHook

__all__ = ['ActivationCheckpointHook', 'ScheduledDropPathHook']
