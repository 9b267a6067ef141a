# The classifier of handwritten digits with DefocusViT in place of DefocusMamba.
_base_ = './defocus_mamba_nano_digits.py'

model = dict(backbone=dict(type='DefocusViT'))
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'band_pass': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)})
)
work_dir = 'work_dirs/classification/defocus_vit_nano_digits'
