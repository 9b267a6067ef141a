# The tiny detector on two images of cats and dogs, in the current directory.
_base_ = '../../test_tools/toy_detector.py'
data = dict(
    data_root='.',
    ann_file='ann.json',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('cat', 'dog'), palette=None),
)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
model = dict(bbox_head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(data, pipeline=[*load, resize, dict(type='PackDetInputs')]))
val_dataloader = dict(dataset=dict(data, pipeline=[load[0], resize, load[1], dict(type='PackDetInputs')]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
val_evaluator = dict(ann_file='ann.json')
test_evaluator = val_evaluator
