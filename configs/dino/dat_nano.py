# A nano detector for your own images, see ../_base_/recipes/dino_nano.py.
_base_ = ['../_base_/recipes/dino_nano.py', '../_base_/backbones/dat_nano_pyramid.py']

model = _base_.pyramid
model.backbone.update(img_size=320)
optim_wrapper = dict(paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys=dict(rpe_table=dict(decay_mult=0.0))))
