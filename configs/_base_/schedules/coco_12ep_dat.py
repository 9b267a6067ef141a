# AdamW as in the published detectors with DAT++, for 64 images in a batch; `--auto-scale-lr` scales the learning rate
# to the actual number. Warm-up over 500 iterations, and a tenth of the learning rate after epochs 8 and 11.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=4e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='DefocusOptimWrapperConstructor',
    # The tables of neighbourhood attention (rpb) decay, as in the published settings.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'rpe_table': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
        },
    ),
)
auto_scale_lr = dict(base_batch_size=64)
