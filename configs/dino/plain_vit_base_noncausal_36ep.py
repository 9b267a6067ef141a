_base_ = './defocus_vit_base_36ep.py'

model = dict(backbone=dict(causal=False, band_pass=False, absolute_positions=True, drop_path_rate=0.1))
