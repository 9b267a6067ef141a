# The tables of position biases keep the size that they have at 224 pixels.
_base_ = '../_base_/recipes/dat_imagenet_384.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.6), head=dict(in_channels=1024))
# A checkpoint of dat_pp_base.py, or the official file of DAT-B++ at 224 pixels. None starts from random weights.
load_from = 'work_dirs/dat_pp_base/epoch_300.pth'
