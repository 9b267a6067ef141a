# AdamW as in the published detectors with FCViT, for 32 images in a batch; `--auto-scale-lr` scales the learning rate
# to the actual number. Warm-up over 500 iterations, and a tenth of the learning rate after epochs 8 and 11.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4),
    constructor='DefocusOptimWrapperConstructor',
)
auto_scale_lr = dict(base_batch_size=32)
