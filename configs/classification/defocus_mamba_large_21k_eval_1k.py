# Evaluation only: the ImageNet-21k model on ImageNet-1k, with the logits of its 1000 classes among the 21,841.
_base_ = './defocus_mamba_large_21k.py'

model = dict(head=dict(predict_classes='imagenet1k'))

test_dataloader = dict(
    dataset=dict(_delete_=True, type='ImageNet', data_root='data/imagenet', split='val', pipeline=_base_.test_pipeline)
)

train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
auto_scale_lr = None
default_hooks = dict(
    _delete_=True,
    **{name: hook for name, hook in _base_.default_hooks.items() if name not in ('ema', 'drop_path')},
)
