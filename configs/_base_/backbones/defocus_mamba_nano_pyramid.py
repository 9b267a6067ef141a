# De-focus Mamba, nano, as the backbone of a detector for small images, with a simple feature pyramid. See
# defocus_mamba_base_pyramid.py.
pyramid = dict(
    backbone=dict(
        _delete_=True,
        type='DefocusMamba',
        arch='nano',
        img_size=160,
        patch_size=8,
        token_order='raster',
        final_norm_eps=1e-5,
        out_type='featmap',
        blocks_in_fp32=False,  # there are no published weights, which would need it
        patch_embed_init='kaiming_normal',
        scale_rule='per_image',
    ),
    # Strides 8, 16 and 32 for patches of 8 pixels; finer levels would cost more than the rest of the detector.
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=96, out_channels=96, num_outs=3, start_level=2),
)
