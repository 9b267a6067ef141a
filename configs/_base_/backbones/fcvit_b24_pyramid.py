_base_ = './fcvit_b12_pyramid.py'

pyramid = dict(backbone=dict(arch='b24'))
