# MMDetection's runtime with the checks and random numbers of mmdefocus.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets.coco', 'mmdefocus.evaluation', 'mmdefocus.engine'],
    allow_failed_imports=False,
)
default_hooks = dict(
    checkpoint=dict(type='DefocusCheckpointHook'),
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    finite_loss=dict(type='DefocusFiniteLossHook'),
    class_count=dict(type='DefocusClassCountHook'),
    ground_truth_check=dict(type='DefocusGroundTruthCheckHook'),
)
# Every process draws its own drop path; the order of the images is the same in all.
randomness = dict(seed=None, diff_rank_seed=True)
