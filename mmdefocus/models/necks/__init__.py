"""Necks: from the single feature map of a plain backbone to a pyramid."""

from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
