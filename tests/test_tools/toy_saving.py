# The toy classifier with all that a checkpoint can hold, in two iterations per epoch.
_base_ = './toy_classifier.py'
custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.engine'], allow_failed_imports=False)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.01, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, end=4)]
train_cfg = dict(max_epochs=4)
default_hooks = dict(
    sampler_seed=dict(type='DefocusEpochSeedHook'),
    checkpoint=dict(type='DefocusCheckpointHook', max_keep_ckpts=1, save_best='accuracy/top1'),
    ema=dict(type='DefocusOptimizerStepEMAHook', momentum=0.1),
)
