_base_ = './fcvit_b24.py'

model = dict(backbone=dict(arch='b48', drop_path_rate=0.2))
