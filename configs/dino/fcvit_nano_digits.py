# The small detector of handwritten digits with FCViT in place of DefocusMamba.
_base_ = ['../_base_/recipes/dino_nano_digits.py', '../_base_/backbones/fcvit_nano_pyramid.py']

model = _base_.pyramid
optim_wrapper = dict(paramwise_cfg=dict(flat_decay_mult=0.0))
