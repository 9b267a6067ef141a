# A detector that memorises colours, on train.json, val.json and images/ in the current directory; see colour_models.py.
default_scope = 'mmdet'
custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.engine', 'colour_models'], allow_failed_imports=False)
classes = ('red', 'green', 'blue')
model = dict(type='ColourDetector', num_classes=3, data_preprocessor=dict(type='DetDataPreprocessor'))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
dataset = dict(
    type='DefocusCocoDataset',
    metainfo=dict(classes=classes),
    ann_file='train.json',
    data_prefix=dict(img='images/'),
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='DefocusCocoDataset',
        metainfo=dict(classes=classes),
        ann_file='val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='DefocusCocoMetric', ann_file='val.json', metric='bbox', classwise=True)
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = {}
test_cfg = {}
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.0))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1),
    visualization=dict(type='DetVisualizationHook'),
)
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1))
randomness = dict(seed=0)
