# The part that the published classification recipes share. The learning rates are for a total batch size of 512 and are
# scaled to the actual one, as are those at the start of the warm-up and at the end of the cosine.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bfloat16 has the range of float32
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
    constructor='DefocusOptimWrapperConstructor',
    # No weight decay on parameters with one dimension (biases, norms, D, freq), the class token, positions, A_log of
    # De-focus Mamba, and decays and frequencies of the other networks.
    paramwise_cfg=dict(
        flat_decay_mult=0.0,
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
            '.A_log': dict(decay_mult=0.0),
            '.band_pass': dict(decay_mult=0.0),
        },
    ),
)
auto_scale_lr = dict(base_batch_size=512, enable=True)

train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
param_scheduler = dict(
    type='DefocusWarmupCosineLR',
    warmup=20,
    start_factor=5e-7 / 5e-4,
    end_factor=5e-6 / 5e-4,
    by_epoch=True,
    convert_to_iter_based=True,
)
