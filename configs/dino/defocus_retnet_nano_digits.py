# The small detector of handwritten digits with DefocusRetNet in place of DefocusMamba.
_base_ = ['../_base_/recipes/dino_nano_digits.py', '../_base_/backbones/defocus_retnet_nano_pyramid.py']

model = _base_.pyramid
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'band_pass': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)})
)
