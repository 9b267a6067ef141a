# RetinaNet with FPN on COCO as published for DAT++: levels from stride 8 on, multi-scale training, 32 × 2 images in a
# batch. A config that inherits from this sets the schedule and the backbone.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../datasets/coco_detection_multi_scale.py',
    '../runtimes/detection.py',
]

# The backbone returns no map of stride 4.
model = dict(neck=dict(start_level=0))
