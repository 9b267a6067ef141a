# MMDetection's DINO with four feature levels on COCO, with the data checks, hooks and random numbers of mmdefocus. A
# config that inherits from this sets backbone and neck.
_base_ = 'mmdet::dino/dino-4scale_r50_improved_8xb2-12e_coco.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets.coco', 'mmdefocus.evaluation', 'mmdefocus.engine'],
    allow_failed_imports=False,
)

train_dataloader = dict(dataset=dict(type='DefocusCocoDataset'))
val_dataloader = dict(dataset=dict(type='DefocusCocoDataset'))
test_dataloader = val_dataloader
val_evaluator = dict(type='DefocusCocoMetric')
test_evaluator = val_evaluator

optim_wrapper = dict(constructor='DefocusOptimWrapperConstructor')

# As in ../runtimes/detection.py, which cannot be listed here: MMDetection's config has its own runtime.
default_hooks = dict(
    checkpoint=dict(type='DefocusCheckpointHook'),
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    finite_loss=dict(type='DefocusFiniteLossHook'),
    class_count=dict(type='DefocusClassCountHook'),
    ground_truth_check=dict(type='DefocusGroundTruthCheckHook'),
)
randomness = dict(seed=None, diff_rank_seed=True)
