# Mask R-CNN with FPN on COCO as published for DAT++: multi-scale training, 32 × 2 images in a batch. A config that
# inherits from this sets the schedule and the backbone.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../datasets/coco_instance_multi_scale.py',
    '../runtimes/detection.py',
]

# The fifth level is a convolution of the last map of the backbone in place of max pooling.
model = dict(neck=dict(add_extra_convs='on_input'))
