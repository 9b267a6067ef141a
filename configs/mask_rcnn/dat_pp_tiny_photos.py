# The full-size detector on two photographs (tools/make_photos_coco.py): one training iteration shows that it runs
# without a GPU. Nothing is downloaded: the weights are random.
_base_ = './dat_pp_tiny_12ep.py'

# After one step no class is likely: without a threshold, the test has boxes and masks to evaluate.
model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))

data_root = 'data/photos/'
# A fixed size, the largest of the recipe, so that time and memory are the same in every run.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=1)
