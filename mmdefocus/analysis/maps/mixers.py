"""The attention maps of a mixer's call, by the kind of the mixer."""

from collections.abc import Collection

import torch

from mmdefocus.models.mixers import AttentionMixer, MambaMixer, RetentionMixer

from ..errors import AnalysisError, NoAttention
from .attention import AttentionMaps
from .layer_maps import LayerMaps, Reduce
from .mamba import MambaMaps
from .mixer_calls import MixerCall
from .retention import RetentionMaps

# What can be included in the maps of a mixer.
_PARTS = {MambaMixer: ('conv', 'gate'), RetentionMixer: ('gate',), AttentionMixer: ()}


@torch.no_grad()
def open_maps(call: MixerCall, reduce: Reduce, include: Collection[str]) -> LayerMaps:
    """Return the maps of a mixer's call.

    Args:
        call: The call.
        reduce: ``'none'``, ``'group'`` or ``'mean'``.
        include: Parts of the mixer to include, of ``'conv'`` and ``'gate'``.

    Raises:
        AnalysisError: The mixer has no such part.
        NoAttention: The maps of such a mixer are not known.
    """
    mixer = call.mixer
    for kind, parts in _PARTS.items():
        if isinstance(mixer, kind) and not set(include) <= set(parts):
            known = ' and '.join(parts) or 'no other part'
            raise AnalysisError(
                f'layer {call.layer}: the maps of {kind.__name__} can include {known}, got include={tuple(include)}'
            )
    if isinstance(mixer, MambaMixer):
        return MambaMaps(call, reduce, include)
    if isinstance(mixer, RetentionMixer):
        return RetentionMaps(call, reduce, include)
    if isinstance(mixer, AttentionMixer):
        return AttentionMaps(call, reduce)
    raise NoAttention(call.layer, f'the maps of {type(mixer).__name__} are not known')
