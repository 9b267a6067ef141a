# Mask R-CNN with FPN on COCO as published for FCViT: images of 800 × 1333, 8 × 4 in a batch. A config that inherits
# from this sets the schedule and the backbone.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../datasets/coco_instance.py',
    '../runtimes/detection.py',
]

train_dataloader = dict(batch_size=4)
