# DAT-T++ as the backbone of a detector: four maps at the strides 4, 8, 16 and 32. List this file and a detector of
# MMDetection in `_base_`; then `model = _base_.pyramid` replaces its backbone, and gives its neck the channels.
pyramid = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,
        with_cp=True,
        # The authors' files are in cloud drives, without an address that a program can download. To start from one, set
        # init_cfg=dict(type='Pretrained', checkpoint='dat_pp_tiny_in1k_224.pth'); None starts from random weights.
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
