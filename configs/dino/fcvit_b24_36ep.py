_base_ = ['../_base_/recipes/dino_36ep.py', '../_base_/backbones/fcvit_b24_pyramid.py']

model = _base_.pyramid
model.backbone.update(out_indices=(1, 2, 3))
model.neck.update(in_channels=model.neck.in_channels[1:])
