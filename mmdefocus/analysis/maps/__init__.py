"""Attention maps of the mixers of this package: matrices over the tokens that turn a mixer's values into its output."""

from .layer_maps import LayerMaps, Reduce
from .mixer_calls import MixerCall, record_mixer_calls
from .mixers import open_maps

__all__ = ['LayerMaps', 'MixerCall', 'Reduce', 'open_maps', 'record_mixer_calls']
