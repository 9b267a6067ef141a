# MMDetection's COCO with boxes and masks, at 800 × 1333 pixels, with the data checks of mmdefocus.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'

train_dataloader = dict(dataset=dict(type='DefocusCocoDataset'))
val_dataloader = dict(dataset=dict(type='DefocusCocoDataset'))
test_dataloader = val_dataloader
val_evaluator = dict(type='DefocusCocoMetric')
test_evaluator = val_evaluator
