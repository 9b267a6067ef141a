# The small model of defocus_mamba_nano_folder.py with DAT++ as the backbone, and twice the size: at 32 x 32 pixels,
# deformable attention samples a single position.
_base_ = './fcvit_nano_folder.py'

size = 64
model = dict(backbone=dict(type='DAT', img_size=size), head=dict(in_channels=128))
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
