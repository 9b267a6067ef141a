# Fine-tuning on your own images: data_root/train and data_root/val hold one folder of images per class, see
# docs/finetune.md. Lower layers get lower learning rates. There is no average of the weights, which helps in long
# trainings only.
_base_ = './defocus_mamba_base.py'

data_root = 'data/images'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='DefocusImageFolder',
        data_root=data_root,
        data_prefix='train',
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='DefocusImageFolder',
        data_root=data_root,
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator

# 'auto': the number of class folders of the training set.
data_preprocessor = dict(num_classes='auto')
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
            'defocus_mamba_base_cls.pth',
        )
    ),
    head=dict(num_classes='auto'),
)

train_cfg = dict(max_epochs=30)
param_scheduler = dict(warmup=3)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    constructor='DefocusLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
default_hooks = dict(
    _delete_=True,
    **{name: hook for name, hook in _base_.default_hooks.items() if name not in ('ema', 'drop_path')},
    drop_path=dict(type='DefocusScheduledDropPathHook', max_rate=0.2, mode='constant'),
)
default_hooks['logger'].update(interval=20)
