# A small detector on handwritten digits that trains on two CPU cores in minutes: the demo, and a starting point for
# small data sets of one's own.
_base_ = [
    '../_base_/models/dino_nano.py',
    '../_base_/datasets/digits_detection.py',
    '../_base_/runtimes/detection.py',
]

model = dict(
    backbone=dict(
        type='DefocusMamba',
        arch='nano',
        img_size=160,
        patch_size=8,
        token_order='raster',
        final_norm_eps=1e-5,
        out_type='featmap',
        blocks_in_fp32=True,
        patch_embed_init='kaiming_normal',
        scale_rule='per_image',
    ),
)

max_epochs = 4
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4, fused=True),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, begin=0, end=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=1))
visualizer = dict(line_width=1)

# Test-time augmentation by size: flipped digits are other signs.
tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=40))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (144, 160, 176)],
            [dict(type='RandomFlip', prob=0.0)],  # DetTTAModel reads whether it flipped
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale_factor',
                        'flip',
                        'flip_direction',
                    ),
                )
            ],
        ],
    ),
]
