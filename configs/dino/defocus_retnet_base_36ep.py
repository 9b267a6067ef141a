_base_ = './defocus_mamba_base_36ep.py'

model = dict(backbone=dict(type='DefocusRetNet'))
