# Training of a small detector of handwritten digits: minutes on two CPU cores. A config that inherits from this sets
# backbone and neck.
_base_ = [
    '../models/dino_nano.py',
    '../datasets/digits_detection.py',
    '../runtimes/detection.py',
]

# Scores that predict the IoU rank boxes better in a short training.
model = dict(
    bbox_head=dict(loss_cls=dict(_delete_=True, type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=2.0))
)

max_epochs = 4
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4, fused=True),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    constructor='DefocusOptimWrapperConstructor',
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, begin=0, end=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=1))
visualizer = dict(line_width=1)

# Test-time augmentation by size; a flipped digit is another sign.
tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=40))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (144, 160, 176)],
            [dict(type='RandomFlip', prob=0.0)],  # DetTTAModel reads the key `flip`
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
