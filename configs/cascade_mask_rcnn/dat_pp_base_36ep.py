_base_ = [
    '../_base_/recipes/cascade_mask_rcnn_dat.py',
    '../_base_/schedules/coco_36ep_dat.py',
    '../_base_/backbones/dat_pp_base_pyramid.py',
]

model = _base_.pyramid
model.backbone.update(drop_path_rate=0.8)
train_dataloader = dict(batch_size=1)  # on each of 64 GPUs
