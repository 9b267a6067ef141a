_base_ = [
    '../_base_/recipes/mask_rcnn_dat.py',
    '../_base_/schedules/coco_36ep_dat.py',
    '../_base_/backbones/dat_pp_tiny_pyramid.py',
]

model = _base_.pyramid
model.backbone.update(drop_path_rate=0.3)
