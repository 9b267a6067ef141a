_base_ = ['../_base_/recipes/dino_12ep.py', '../_base_/backbones/defocus_retnet_base_pyramid.py']

model = _base_.pyramid
