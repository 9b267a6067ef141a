# De-focus Mamba, base, as the backbone of a detector, with a simple feature pyramid (strides 4, 8, 16, 32). List this
# file and a detector in `_base_`; then `model = _base_.pyramid` replaces backbone and neck of the detector.
pyramid = dict(
    backbone=dict(
        _delete_=True,
        type='DefocusMamba',
        arch='base',
        token_order='window',
        pretrain_size=224,
        # Sides 224 -> 1024: about (1024 / 224)**2 and 1024 / 224, rounded as in the published model.
        rope_scale=20.0,
        delta_scale=4.57,
        drop_path_rate=0.5,
        final_norm_eps=1e-5,
        out_type='featmap',
        blocks_in_fp32=True,
        patch_embed_init='kaiming_normal',
        scale_rule='per_image',
        # Saves many GiB of activations for two images of 800 x 1333.
        with_cp=True,
        # The published classifier, downloaded at the first start; None starts from random weights.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
            'defocus_mamba_base_cls.pth',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        num_outs=4,
        norm_cfg=dict(type='DefocusLN2d', eps=1e-5),
    ),
)
