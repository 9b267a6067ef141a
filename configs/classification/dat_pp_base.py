_base_ = '../_base_/recipes/dat_imagenet.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.7), head=dict(in_channels=1024))

train_dataloader = dict(batch_size=64)
