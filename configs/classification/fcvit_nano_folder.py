# The small model of defocus_mamba_nano_folder.py with FCViT as the backbone.
_base_ = './defocus_mamba_nano_folder.py'

model = dict(
    backbone=dict(_delete_=True, type='FCViT', arch='nano'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes='auto', in_channels=96),
)
