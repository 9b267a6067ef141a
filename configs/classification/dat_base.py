_base_ = '../_base_/recipes/dat_imagenet.py'

model = dict(backbone=dict(arch='v1-base', drop_path_rate=0.5), head=dict(in_channels=1024))

optim_wrapper = dict(optimizer=dict(lr=4e-4), clip_grad=dict(max_norm=1.0))
param_scheduler = dict(warmup=50, start_factor=5e-7 / 4e-4, end_factor=5e-6 / 4e-4)
