_base_ = [
    '../_base_/recipes/retinanet_dat.py',
    '../_base_/schedules/coco_36ep_dat.py',
    '../_base_/backbones/dat_pp_small_pyramid.py',
]

model = _base_.pyramid
model.backbone.update(out_indices=(1, 2, 3), drop_path_rate=0.5)
model.neck.update(in_channels=model.neck.in_channels[1:])
optim_wrapper = dict(optimizer=dict(lr=2e-4))
