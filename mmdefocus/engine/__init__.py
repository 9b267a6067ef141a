"""Hooks for MMEngine's runner."""

from .activation_checkpoint_hook import ActivationCheckpointHook

__all__ = ['ActivationCheckpointHook']
