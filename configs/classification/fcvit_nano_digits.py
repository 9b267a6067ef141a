# The classifier of handwritten digits with FCViT in place of DefocusMamba: more steps of fewer images, and a warm-up of
# one epoch.
_base_ = './defocus_mamba_nano_digits.py'

model = dict(
    backbone=dict(_delete_=True, type='FCViT', arch='nano'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=96),
)
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=12, val_interval=4)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=88),
    dict(type='CosineAnnealingLR', eta_min=1e-5, convert_to_iter_based=True),
]
work_dir = 'work_dirs/classification/fcvit_nano_digits'
