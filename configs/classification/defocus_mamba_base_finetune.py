# Fine-tuning on images of one's own: data_root/train and data_root/val hold a folder of images per class, see
# docs/finetune.md. Smaller steps for lower layers, and no average of the weights, which pays in long trainings only.
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

# 'auto': as many classes as folders of the training set.
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
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
custom_hooks = [dict(type='DefocusScheduledDropPathHook', max_rate=0.2, mode='constant')]
default_hooks = dict(logger=dict(interval=20))
