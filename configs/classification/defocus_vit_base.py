_base_ = '../_base_/recipes/imagenet_300ep.py'

model = dict(backbone=dict(type='DefocusViT'))
