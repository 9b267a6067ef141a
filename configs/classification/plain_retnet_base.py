_base_ = '../_base_/recipes/imagenet_300ep_plain.py'

model = dict(backbone=dict(type='DefocusRetNet', band_pass=False, absolute_positions=True))
