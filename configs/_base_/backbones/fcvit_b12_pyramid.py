# FCViT-B12 as the backbone of a detector. See dat_pp_tiny_pyramid.py.
pyramid = dict(
    backbone=dict(
        _delete_=True,
        type='FCViT',
        arch='b12',
        out_indices=(0, 1, 2, 3),
        layer_scale=1e-6,
        drop_path_rate=0.0,
        with_cp=True,
        # As for DAT: init_cfg=dict(type='Pretrained', checkpoint='fcvit_b12.pth.tar') starts from the authors' file.
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
