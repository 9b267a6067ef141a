# MMDetection's runtime with the checks and the random numbers of this toolkit.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine'], allow_failed_imports=False
)
default_hooks = dict(
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    finite_loss=dict(type='DefocusFiniteLossHook'),
    class_count=dict(type='DefocusClassCountHook'),
    ground_truth_check=dict(type='DefocusGroundTruthCheckHook'),
)
# Every process draws its own drop path; all share the order of the images.
randomness = dict(seed=None, diff_rank_seed=True)
