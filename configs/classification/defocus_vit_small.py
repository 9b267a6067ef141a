# The paper reports no De-focus ViT of this size.
_base_ = './defocus_vit_base.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
