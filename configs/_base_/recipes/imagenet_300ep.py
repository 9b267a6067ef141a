# Training from scratch on ImageNet-1k at 224 pixels, with the auxiliary loss and the drop-path schedule. A config that
# inherits from this sets the type of the backbone; all have an arch 'base' of this width.
_base_ = [
    '../schedules/imagenet_adamw.py',
    # 224 pixels, bicubic interpolation, RandAugment rand-m9-mstd0.5-inc1 and random erasing 0.25 with noise. The
    # published settings also name colour jitter 0.4, which timm ignores in combination with RandAugment.
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../runtimes/classification.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(arch='base', img_size=224, out_type='raw'),
    head=dict(
        type='DefocusClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    # One of the two for every batch, with equal probability.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

train_dataloader = dict(
    batch_size=32,
    sampler=dict(_delete_=True, type='RepeatAugSampler', num_repeats=3),
)

val_cfg = {}
test_cfg = {}

default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best='auto'),
    ema=dict(type='DefocusOptimizerStepEMAHook', momentum=1e-4),  # decay 0.9999
    drop_path=dict(type='DefocusScheduledDropPathHook', min_rate=0.1, max_rate=0.75),
)
