_base_ = './defocus_mamba_base_pyramid.py'

# There are no published weights. Train configs/classification/defocus_retnet_base.py first and set
# model.backbone.init_cfg to its checkpoint; without it, the training starts from random weights.
pyramid = dict(backbone=dict(type='DefocusRetNet', init_cfg=None))
