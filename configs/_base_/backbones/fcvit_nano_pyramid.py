# FCViT, nano, as the backbone of a detector for small images: its maps of strides 8, 16 and 32, with a common width.
pyramid = dict(
    backbone=dict(_delete_=True, type='FCViT', arch='nano', out_indices=(1, 2, 3)),
    neck=dict(
        _delete_=True,
        type='ChannelMapper',
        in_channels=[48, 64, 96],
        out_channels=96,
        kernel_size=1,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=3,
    ),
)
