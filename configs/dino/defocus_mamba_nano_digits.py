# A small detector on handwritten digits that trains on two CPU cores in minutes: the demo, and a starting point for
# small data sets of one's own.
_base_ = [
    '../_base_/models/dino_nano.py',
    '../_base_/datasets/digits_detection.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        type='DefocusMamba',
        arch='nano',
        img_size=160,
        token_order='raster',
        final_norm_eps=1e-5,
        out_type='featmap',
    ),
)

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, begin=0, end=max_epochs, convert_to_iter_based=True, eta_min=1e-5),
]
