_base_ = [
    '../_base_/recipes/mask_rcnn_dat.py',
    '../_base_/schedules/coco_12ep_dat.py',
    '../_base_/backbones/dat_pp_small_pyramid.py',
]

model = _base_.pyramid
model.backbone.update(drop_path_rate=0.1)
