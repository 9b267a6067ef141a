_base_ = './defocus_mamba_nano_pyramid.py'

pyramid = dict(backbone=dict(type='DefocusRetNet'))
