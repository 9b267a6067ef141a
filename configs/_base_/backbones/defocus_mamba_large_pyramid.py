_base_ = './defocus_mamba_base_pyramid.py'

pyramid = dict(
    backbone=dict(
        arch='large',
        pretrain_size=384,
        # Sides 384 -> 1024, rounded as in the published model.
        rope_scale=7.13,
        delta_scale=2.67,
        init_cfg=dict(
            checkpoint='https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
            'defocus_mamba_large_cls_1k.pth',
        ),
    ),
    neck=dict(in_channels=1024),
)
