# Without the learnable rotary positions; the learnable decay is a part of Mamba.
_base_ = '../_base_/recipes/imagenet_300ep_plain.py'

model = dict(backbone=dict(type='DefocusMamba', rotary=False))
