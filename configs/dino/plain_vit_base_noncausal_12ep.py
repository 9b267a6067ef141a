_base_ = './defocus_vit_base_12ep.py'

# The usual drop-path rate of this network in detection.
model = dict(backbone=dict(causal=False, band_pass=False, absolute_positions=True, drop_path_rate=0.1))
