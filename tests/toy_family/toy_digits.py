# ToyNet on handwritten digits, for two training steps.
_base_ = '../../configs/classification/defocus_mamba_nano_digits.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets.digits_classification', 'mmdefocus.engine', 'toy_family']
)
model = dict(backbone=dict(_delete_=True, type='ToyNet', arch='nano', img_size=32, patch_size=4, out_type='raw'))
train_dataloader = dict(dataset=dict(indices=128))
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = []
