# Fine-tuning of the ImageNet-21k model on ImageNet-1k at 384 pixels.
_base_ = [
    '../_base_/schedules/imagenet_adamw.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_384.py',
    '../_base_/runtimes/classification.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='DefocusMamba',
        arch='large',
        img_size=384,
        out_type='raw',
        # Pretraining at 192 pixels.
        rope_scale=(384 / 192) ** 2,
        delta_scale=384 / 192,
    ),
    head=dict(
        type='DefocusClsHead',
        num_classes=1000,
        in_channels=1024,
        hidden_dims=3 * 1024,
        from_imagenet21k=True,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)], probs=0.5),
)
# The published model, downloaded at the first start, or a checkpoint of defocus_mamba_large_21k.py. The head takes the
# rows of the 1000 classes from either. None starts from random weights.
load_from = (
    'https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/defocus_mamba_large_cls_21k.pth'
)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=384 * 256 // 224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=20)
val_cfg = {}
test_cfg = {}
optim_wrapper = dict(optimizer=dict(lr=2e-5))
param_scheduler = dict(warmup=2, start_factor=5e-7 / 2e-5, end_factor=5e-6 / 2e-5)

default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best='auto'),
    ema=dict(type='DefocusOptimizerStepEMAHook', momentum=1e-4),
    drop_path=dict(type='DefocusScheduledDropPathHook', min_rate=0.1, max_rate=0.7),
)
