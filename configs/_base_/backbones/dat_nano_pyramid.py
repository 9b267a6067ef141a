# DAT++, nano, as the backbone of a detector for small images: its maps of strides 8, 16 and 32, with a common width.
_base_ = './fcvit_nano_pyramid.py'

pyramid = dict(backbone=dict(type='DAT', img_size=160), neck=dict(in_channels=[64, 96, 128]))
