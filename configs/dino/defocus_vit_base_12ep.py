_base_ = './defocus_mamba_base_12ep.py'

model = dict(backbone=dict(type='DefocusViT'))
