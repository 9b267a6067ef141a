_base_ = './defocus_vit_base.py'

model = dict(backbone=dict(causal=False))
