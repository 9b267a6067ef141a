# The small DINO on the smallest images, with everything that draws numbers; data_root is set by the test.
_base_ = '../../configs/dino/defocus_mamba_nano_digits.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(48, 48), (64, 64)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
model = dict(backbone=dict(drop_path_rate=0.5), num_queries=8)
# The sampler that mmdet's COCO configs have.
train_dataloader = dict(
    batch_size=2, batch_sampler=dict(type='AspectRatioBatchSampler'), dataset=dict(pipeline=train_pipeline)
)
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=True, begin=0, end=2)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1))
env_cfg = dict(mp_cfg=dict(opencv_num_threads=1))
