# MMPreTrain's runtime with the checks and random numbers of mmdefocus. All hooks have a name in `default_hooks`, so
# that configs change them by name and `custom_hooks` stays free for your own.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(
    imports=['mmdefocus.models', 'mmdefocus.datasets.image_folder', 'mmdefocus.engine'], allow_failed_imports=False
)
default_hooks = dict(
    checkpoint=dict(type='DefocusCheckpointHook'),
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    finite_loss=dict(type='DefocusFiniteLossHook'),
    class_count=dict(type='DefocusClassCountHook'),
)
# Every process draws its own mixup and drop path; the order of the images is the same in all.
randomness = dict(seed=None, diff_rank_seed=True)
