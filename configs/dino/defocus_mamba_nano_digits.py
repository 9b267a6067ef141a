# A small detector of handwritten digits that trains on two CPU cores in minutes: the demo, and a starting point for
# small data sets.
_base_ = ['../_base_/recipes/dino_nano_digits.py', '../_base_/backbones/defocus_mamba_nano_pyramid.py']

model = _base_.pyramid
