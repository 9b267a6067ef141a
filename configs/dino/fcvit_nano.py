# A nano detector for your own images, see ../_base_/recipes/dino_nano.py.
_base_ = ['../_base_/recipes/dino_nano.py', '../_base_/backbones/fcvit_nano_pyramid.py']

model = _base_.pyramid
optim_wrapper = dict(paramwise_cfg=dict(flat_decay_mult=0.0))
