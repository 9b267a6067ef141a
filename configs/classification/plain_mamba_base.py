# The decay is a part of Mamba; off are the learnable rotary positions.
_base_ = '../_base_/recipes/imagenet_300ep_plain.py'

model = dict(backbone=dict(type='DefocusMamba', rotary=False))
