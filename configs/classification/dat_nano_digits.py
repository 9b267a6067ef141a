# The classifier of handwritten digits with DAT++ in place of DefocusMamba, with the recipe of FCViT and twice the size:
# at 32 x 32 pixels, deformable attention samples a single position.
_base_ = './fcvit_nano_digits.py'

size = 64
model = dict(backbone=dict(type='DAT', img_size=size), head=dict(in_channels=128))
test_pipeline = [dict(type='Resize', scale=(size, size)), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(size=size))
val_dataloader = dict(dataset=dict(size=size, pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(rpe_table=dict(decay_mult=0.0))))
work_dir = 'work_dirs/classification/dat_nano_digits'
tta_pipeline = [
    dict(type='Resize', scale=(size, size)),
    *_base_.tta_pipeline[1:],
]
