# The published code has no small model; its accuracy comes from the paper, its recipe is that of the base model.
_base_ = './defocus_mamba_base.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
