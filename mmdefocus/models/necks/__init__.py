"""Necks: feature pyramids from the single feature map of a plain backbone."""

from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
