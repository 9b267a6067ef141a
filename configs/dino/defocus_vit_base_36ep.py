_base_ = './defocus_mamba_base_36ep.py'

# There are no published weights: train configs/classification/defocus_vit_base.py first, and name its checkpoint in
# model.backbone.init_cfg. As it is, the training starts from random weights.
model = dict(backbone=dict(type='DefocusViT', init_cfg=None))
