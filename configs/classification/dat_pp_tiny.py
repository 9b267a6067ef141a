_base_ = '../_base_/recipes/dat_imagenet.py'

model = dict(backbone=dict(arch='tiny', drop_path_rate=0.2), head=dict(in_channels=512))
