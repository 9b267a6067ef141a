# A nano detector for your own images, see ../_base_/recipes/dino_nano.py.
_base_ = ['../_base_/recipes/dino_nano.py', '../_base_/backbones/defocus_vit_nano_pyramid.py']

model = _base_.pyramid
