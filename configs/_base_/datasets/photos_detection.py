# Two photographs in the layout of COCO 2017, made by tools/make_photos_coco.py; otherwise as MMDetection's COCO.
_base_ = ['mmdet::_base_/datasets/coco_detection.py']

data_root = 'data/photos/'
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='DefocusCocoDataset', data_root=data_root),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='DefocusCocoDataset', data_root=data_root),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
