# Only a new linear classifier is trained: fast, and a measure of the quality of the pretrained features.
_base_ = './defocus_mamba_base_finetune.py'

model = dict(
    backbone=dict(frozen_stages=24),  # all blocks, and with them the final norm
    head=dict(aux=None, loss=dict(_delete_=True, type='CrossEntropyLoss')),
    train_cfg=dict(_delete_=True),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.0))
default_hooks = dict(
    _delete_=True,
    **{name: hook for name, hook in _base_.default_hooks.items() if name != 'drop_path'},
)
