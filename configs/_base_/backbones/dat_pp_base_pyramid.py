_base_ = './dat_pp_tiny_pyramid.py'

pyramid = dict(backbone=dict(arch='base'), neck=dict(in_channels=[128, 256, 512, 1024]))
