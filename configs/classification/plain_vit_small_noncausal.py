_base_ = './plain_vit_small.py'

model = dict(backbone=dict(causal=False))
