# The published code has no small model. The accuracy is that of the paper, the recipe that of the base model.
_base_ = './defocus_mamba_base.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
