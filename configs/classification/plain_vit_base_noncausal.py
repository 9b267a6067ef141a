_base_ = './plain_vit_base.py'

model = dict(backbone=dict(causal=False))
