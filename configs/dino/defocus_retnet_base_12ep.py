_base_ = './defocus_mamba_base_12ep.py'

# There are no published weights: train configs/classification/defocus_retnet_base.py first, and name its checkpoint in
# model.backbone.init_cfg. As it is, the training starts from random weights.
model = dict(backbone=dict(type='DefocusRetNet', init_cfg=None))
