# The small detector of handwritten digits with DAT++ in place of DefocusMamba.
_base_ = ['../_base_/recipes/dino_nano_digits.py', '../_base_/backbones/dat_nano_pyramid.py']

model = _base_.pyramid
optim_wrapper = dict(paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys=dict(rpe_table=dict(decay_mult=0.0))))
