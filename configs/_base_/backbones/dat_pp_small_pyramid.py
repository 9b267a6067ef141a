_base_ = './dat_pp_tiny_pyramid.py'

pyramid = dict(backbone=dict(arch='small'), neck=dict(in_channels=[96, 192, 384, 768]))
