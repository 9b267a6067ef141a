# Training of a small detector on your own photographs, from random weights: for a CPU, a first look at new data, and
# tests. `mmdefocus train NAME --data FOLDER` sets data, classes and epochs. A config that inherits from this sets
# backbone and neck.
_base_ = ['../models/dino_nano.py', '../runtimes/detection.py']

size = 320  # the longest side of the images
model = dict(num_queries=100, bbox_head=dict(num_classes=80), test_cfg=dict(max_per_img=100))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
# Annotations are loaded after resizing, so that pictures show the true boxes in the coordinates of the original image.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

data_root = 'data/coco/'
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='DefocusCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='DefocusCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='DefocusCocoMetric', ann_file=data_root + 'annotations/instances_val2017.json', metric='bbox', classwise=True
)
test_evaluator = val_evaluator

max_epochs = 50
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4, fused=True),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    constructor='DefocusOptimWrapperConstructor',
)
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = dict(
    type='DefocusWarmupCosineLR',
    warmup=2,
    start_factor=0.01,
    end_factor=0.01,
    delay=0,
    by_epoch=True,
    convert_to_iter_based=True,
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
