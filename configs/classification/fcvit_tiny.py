_base_ = '../_base_/recipes/fcvit_imagenet.py'

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=320))
