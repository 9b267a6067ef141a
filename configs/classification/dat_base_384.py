# Windows of 12 instead of 7 cells, and larger tables of position biases than at 224 pixels.
_base_ = '../_base_/recipes/dat_imagenet_384.py'

model = dict(
    backbone=dict(arch='v1-base', img_size=384, window_size=12, drop_path_rate=0.5), head=dict(in_channels=1024)
)
# The published training began with the weights of DAT-B at 224 pixels, whose tables it resized. Loading does not resize
# them: in files of another size they are left out, with a warning that names them.
load_from = 'work_dirs/dat_base/epoch_300_384px.pth'

optim_wrapper = dict(optimizer=dict(lr=2e-6))
param_scheduler = dict(end_factor=1e-7 / 2e-6)

# Unlike DAT++, DAT is tested on the centre.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(384 * 256 // 224,) * 2, backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
