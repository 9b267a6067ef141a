_base_ = [
    '../_base_/recipes/mask_rcnn_fcvit.py',
    '../_base_/schedules/coco_12ep_fcvit.py',
    '../_base_/backbones/fcvit_b12_pyramid.py',
]

model = _base_.pyramid
