_base_ = [
    '../_base_/recipes/mask_rcnn_dat.py',
    '../_base_/schedules/coco_12ep_dat.py',
    '../_base_/backbones/dat_pp_tiny_pyramid.py',
]

model = _base_.pyramid
