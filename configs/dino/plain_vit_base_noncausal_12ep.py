_base_ = './defocus_vit_base_12ep.py'

# Drop path at the rate that is usual for this network in detection.
model = dict(backbone=dict(causal=False, band_pass=False, absolute_positions=True, drop_path_rate=0.1))
