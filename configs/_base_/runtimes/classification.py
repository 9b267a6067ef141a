# MMPreTrain's runtime with the checks and the random numbers of this toolkit. The hooks stand in `default_hooks`, which
# are merged by name: a list of `custom_hooks` in a config would replace that of its base.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine'], allow_failed_imports=False
)
default_hooks = dict(
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    finite_loss=dict(type='DefocusFiniteLossHook'),
    class_count=dict(type='DefocusClassCountHook'),
)
# Every process draws its own mixup and drop path; all share the order of the images.
randomness = dict(seed=None, diff_rank_seed=True)
