# Pretraining on ImageNet-21k: 21,841 folders, named by synset. There is no official validation split: this config tests
# on images that you hold out in data/imagenet21k/val, defocus_mamba_large_21k_eval_1k.py on ImageNet-1k.
_base_ = [
    '../_base_/schedules/imagenet_adamw.py',
    'mmpretrain::_base_/datasets/imagenet21k_bs128.py',
    '../_base_/runtimes/classification.py',
]

num_classes = 21841
data_preprocessor = dict(num_classes=num_classes)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='DefocusMamba', arch='large', img_size=192, out_type='raw', with_cp=True),
    head=dict(
        type='DefocusClsHead',
        num_classes=num_classes,
        in_channels=1024,
        hidden_dims=3 * 1024,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)], probs=0.5),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=192, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=192 * 256 // 224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=192),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=64,
    num_workers=5,
    dataset=dict(type='ImageNet21k', data_root='data/imagenet21k', data_prefix='val', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='Accuracy', topk=(1, 5))
test_cfg = {}

train_cfg = dict(max_epochs=90)
optim_wrapper = dict(optimizer=dict(lr=1.25e-4))
param_scheduler = dict(warmup=5, start_factor=5e-7 / 1.25e-4, end_factor=5e-6 / 1.25e-4)

default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3),
    ema=dict(type='DefocusOptimizerStepEMAHook', momentum=1e-4),
    drop_path=dict(type='DefocusScheduledDropPathHook', max_rate=0.4, mode='constant'),
)
