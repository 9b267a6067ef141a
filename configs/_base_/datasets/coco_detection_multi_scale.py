# COCO with boxes, and multi-scale training.
_base_ = ['mmdet::_base_/datasets/coco_detection.py', './multi_scale.py']

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    _base_.multi_scale,
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(type='DefocusCocoDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='DefocusCocoDataset'))
test_dataloader = val_dataloader
val_evaluator = dict(type='DefocusCocoMetric')
test_evaluator = val_evaluator
