# Training of FCViT from scratch on ImageNet-1k at 224 pixels, as published: 8 GPUs × 128 images.
_base_ = [
    '../schedules/imagenet_adamw.py',
    # Batches of 128 images; for testing, the short side is resized to 224 / 0.9 pixels.
    'mmpretrain::_base_/datasets/imagenet_bs128_poolformer_small_224.py',
    '../runtimes/classification.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='FCViT', drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    # One of the two for every batch, with equal probability.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# Crop and RandAugment draw their interpolation. The published colour jitter of 0.4 has no effect: timm ignores it in
# combination with RandAugment.
interpolations = ['bilinear', 'bicubic']
bgr_mean = _base_.data_preprocessor.mean[::-1]
bgr_std = _base_.data_preprocessor.std[::-1]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation=name)] for name in interpolations
        ],
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandAugment',
                    policies='timm_increasing',
                    num_policies=2,
                    total_level=10,
                    magnitude_level=9,
                    magnitude_std=0.5,
                    hparams=dict(pad_val=[round(value) for value in bgr_mean], interpolation=name),
                )
            ]
            for name in interpolations
        ],
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=None,
    paramwise_cfg=dict(_delete_=True, flat_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=1024)

# 300 epochs of a cosine, whose first 5 the warm-up replaces, and 10 at the last rate. The rate is
# constant within an epoch.
train_cfg = dict(max_epochs=310)
val_cfg = {}
test_cfg = {}
param_scheduler = dict(
    warmup=5,
    cooldown=10,
    overlap=True,
    delay=0,
    start_factor=1e-6 / 1e-3,
    end_factor=1e-6 / 1e-3,
    convert_to_iter_based=False,
)

default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best='auto'),
    # The batch norms of a GPU see its images only; their statistics are averaged after every epoch.
    sync_buffers=dict(type='SyncBuffersHook'),
)
