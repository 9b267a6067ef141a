# The paper has no detector of this size. There are no published weights of the backbone: train
# ../classification/defocus_mamba_small.py first and set model.backbone.init_cfg to its checkpoint.
_base_ = './defocus_mamba_base_12ep.py'

model = dict(backbone=dict(arch='small', init_cfg=None), neck=dict(in_channels=384))
