# Training of DAT and DAT++ from scratch on ImageNet-1k at 224 pixels, as published. A config that inherits from this
# sets arch, drop path rate and the width of the last stage.
_base_ = [
    '../schedules/imagenet_adamw.py',
    # Bicubic interpolation, RandAugment rand-m9-mstd0.5-inc1 and random erasing 0.25 with noise. The published colour
    # jitter of 0.4 has no effect: timm ignores it in combination with RandAugment.
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../runtimes/classification.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='DAT'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    # One of the two for every batch, with equal probability.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# Testing does not keep the aspect ratio.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    clip_grad=dict(max_norm=5.0),
    # Nor on the tables of position biases, except that of neighbourhood attention (`rpb`).
    paramwise_cfg=dict(
        _delete_=True,
        flat_decay_mult=0.0,
        custom_keys={
            '.rpe_table': dict(decay_mult=0.0),
            '.relative_position_bias_table': dict(decay_mult=0.0),
        },
    ),
)
# The warm-up replaces the beginning of the cosine.
param_scheduler = dict(overlap=True)

val_cfg = {}
test_cfg = {}

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='auto'))
