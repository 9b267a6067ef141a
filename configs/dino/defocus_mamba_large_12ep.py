_base_ = './defocus_mamba_base_12ep.py'

model = dict(
    backbone=dict(
        arch='large',
        pretrain_size=384,
        # Sides 384 -> 1024, rounded as published.
        rope_scale=7.13,
        delta_scale=2.67,
    ),
    neck=dict(in_channels=1024),
)
