"""Operators of De-focus networks. Importing this package needs torch and nothing else."""

from mmdefocus.ops import flops
from mmdefocus.ops.backends import available_backends
from mmdefocus.ops.bandpass import bandpass_attention, retention
from mmdefocus.ops.causal_conv1d import causal_conv1d
from mmdefocus.ops.defocus_scan import defocus_scan
from mmdefocus.ops.deformable_sampling import deformable_sampling
from mmdefocus.ops.neighbourhood_attention import neighbourhood_attention
from mmdefocus.ops.rms_norm import rms_norm
from mmdefocus.ops.selective_scan import selective_scan

__all__ = [
    'available_backends',
    'bandpass_attention',
    'causal_conv1d',
    'defocus_scan',
    'deformable_sampling',
    'flops',
    'neighbourhood_attention',
    'retention',
    'rms_norm',
    'selective_scan',
]
