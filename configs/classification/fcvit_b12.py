_base_ = '../_base_/recipes/fcvit_imagenet.py'

model = dict(backbone=dict(arch='b12'))
