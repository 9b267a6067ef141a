# The small detector of handwritten digits with DefocusRetNet in place of DefocusMamba.
_base_ = './defocus_mamba_nano_digits.py'

model = dict(backbone=dict(type='DefocusRetNet'))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'band_pass': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)})
)
