# A small model on your own small images, trained from scratch on a CPU; there are no published weights of this size.
# Images are not flipped: a flipped digit or letter is another sign.
_base_ = './defocus_mamba_base_finetune.py'

size = 32
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.6, 1.0), interpolation='bicubic'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    backbone=dict(arch='nano', img_size=size, patch_size=4, init_cfg=None),
    head=dict(in_channels=96),
    train_cfg=dict(_delete_=True),
)
optim_wrapper = dict(optimizer=dict(lr=1.6e-2), paramwise_cfg=dict(layer_decay_rate=1.0))
train_cfg = dict(max_epochs=12)
param_scheduler = dict(warmup=1)
