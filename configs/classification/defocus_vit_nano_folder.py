# The small model of defocus_mamba_nano_folder.py with the backbone DefocusViT.
_base_ = './defocus_mamba_nano_folder.py'

model = dict(backbone=dict(type='DefocusViT'))
