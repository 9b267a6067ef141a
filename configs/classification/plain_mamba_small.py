_base_ = './plain_mamba_base.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
