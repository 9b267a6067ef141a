# Fine-tuning of the published model of ImageNet-1k on your own images, at 384 pixels. See
# defocus_mamba_base_finetune.py.
_base_ = './defocus_mamba_large.py'

data_root = 'data/images'
train_dataloader = dict(
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

data_preprocessor = dict(num_classes='auto')
model = dict(head=dict(num_classes='auto', from_imagenet21k=False))
load_from = (
    'https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/defocus_mamba_large_cls_1k.pth'
)
