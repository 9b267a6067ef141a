# A small classifier of handwritten digits that trains on two CPU cores in minutes. It needs no download.
_base_ = ['../_base_/datasets/digits_classification.py', '../_base_/runtimes/classification.py']
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets.digits_classification', 'mmdefocus.engine'],
    allow_failed_imports=False,
)

# One token per pixel of the original 8x8 digits.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='DefocusMamba', arch='nano', img_size=32, patch_size=4, out_type='raw'),
    head=dict(type='DefocusClsHead', num_classes=10, in_channels=96),
)

max_epochs = 30
# The accuracies during training select nothing: the model of the last epoch counts.
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = {}
test_cfg = {}
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    constructor='DefocusOptimWrapperConstructor',
    paramwise_cfg=dict(
        flat_decay_mult=0.0, custom_keys={'cls_token': dict(decay_mult=0.0), 'A_log': dict(decay_mult=0.0)}
    ),
    clip_grad=dict(max_norm=5.0),
)
# A warm-up of two epochs, multiplied by a cosine over the length of the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=44),
    dict(type='CosineAnnealingLR', eta_min=1e-5, convert_to_iter_based=True),
]
randomness = dict(seed=0)
# By default, the folder would have the name of the config, which the detector's config shares.
work_dir = 'work_dirs/classification/defocus_mamba_nano_digits'

default_hooks = dict(
    logger=dict(interval=22),
    checkpoint=dict(max_keep_ckpts=1),
    visualization=dict(resize=320),
    drop_path=dict(type='DefocusScheduledDropPathHook', max_rate=0.2),
)

# Small rotations instead of the default flips: a flipped digit is another sign.
tta_pipeline = [
    dict(type='Resize', scale=(32, 32)),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Rotate', angle=angle, prob=1.0, random_negative_prob=0.0, pad_val=0) for angle in (-6, 0, 6)],
            [dict(type='PackInputs')],
        ],
    ),
]
